/** `deft advise`: which method and rank to train a job with, from probe steps and short trials of its own loss. */
import { type Advice, advise, type Candidate, probe, type Task, trialsOf } from '@deftjs/deft';
import { evaluate, mean, stack, treeLeaves } from '@deftjs/tensor';
import type { TrainConfig } from '../config/index.ts';
import { UserError } from '../userError.ts';
import type { BatchTensors } from './batch.ts';
import { batchesOf, lossOfBatches } from './personalize.ts';
import { encodeData, openJob } from './prepare.ts';
import { priorPictures } from './priorPictures.ts';

export interface AdviceRequest {
  readonly probeSteps: number;
  readonly ranks: readonly number[];
  /** Steps of the longest trial. */
  readonly steps: number;
  /** Of the steps of training every method at every rank so long. */
  readonly share: number;
}

/** Batches of noise that no trial sees, which the score is the mean loss of. */
const heldOutBatches = 4;

/** Far from the batches of any training. */
const heldOutFrom = 2 ** 30;

/** Keys of `deft train` that train with a candidate. */
export function keysOf({ name, rank }: Candidate): Readonly<Record<string, string | number>> {
  return name === 'lora' || name === 'para'
    ? { method: name, rank }
    : { method: 'deft', projector: name, rank };
}

/**
 * The advice for a job whose method has adapters on layers; its own method and rank count for nothing, its data, layers, loss,
 * learning rate and seed do.
 * @throws {UserError} as `deft train`, or where the share of steps is too small for a choice
 */
export async function adviceFor(config: TrainConfig, request: AdviceRequest): Promise<Advice> {
  const { probeSteps, ranks, steps, share } = request;
  if (!('target_modules' in config)) {
    throw new UserError(
      `method: ${config.method} has no layers to choose for; expected deft, para or lora`,
      2,
    );
  }
  const job = await openJob(config);
  const { model, device } = job;
  const seen = await encodeData(config, job, await priorPictures(model, config, device));
  type Batches = readonly BatchTensors[];
  const batches = (k: number): Batches => batchesOf(model, config, seen, k);
  const heldOut = Array.from({ length: heldOutBatches }, (_, i) => batches(heldOutFrom + i));
  await evaluate(treeLeaves(heldOut), device);
  const task: Task<Batches, readonly Batches[]> = {
    module: model.denoiser,
    targetModules: config.target_modules,
    data: batches,
    loss: (some) => lossOfBatches(model, config, some),
    heldOut,
    score: (all) => mean(stack(all.map((some) => lossOfBatches(model, config, some)))),
    learningRate: config.learning_rate,
    seed: config.seed,
    device,
  };
  try {
    const signals = await probe(task, probeSteps);
    using trials = trialsOf(task);
    const start = (candidate: Candidate) => {
      console.error(`deft: trying ${candidate.name} at rank ${candidate.rank}`);
      return trials.start(candidate);
    };
    return await advise({ signals, probeSteps, ranks, steps, share, start });
  } catch (error) {
    if (error instanceof RangeError) throw new UserError(error.message, 2);
    throw error;
  }
}

/** Prints the reasons and the keys to train with. @throws as {@link adviceFor} */
export async function printAdvice(config: TrainConfig, request: AdviceRequest): Promise<void> {
  const { best, reasons } = await adviceFor(config, request);
  for (const reason of reasons) console.log(reason);
  console.log('\n# for the file of deft train');
  for (const [key, value] of Object.entries(keysOf(best))) console.log(`${key}: ${value}`);
}

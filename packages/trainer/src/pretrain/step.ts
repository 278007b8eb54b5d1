/** What every pretraining job does: steps of gradient, clipping, AdamW and a moving average of the weights. */
import { valueAndGrad } from '@deftjs/autograd';
import { type Module, setTraining, trainableState, withState } from '@deftjs/autograd/nn';
import {
  adamW,
  clipByGlobalNorm,
  cosine,
  movingAverage,
  type Packing,
  packing,
  warmup,
} from '@deftjs/autograd/optim';
import {
  compile,
  type Device,
  item,
  scope,
  type Tensor,
  type Tree,
  tensor,
  treeLeaves,
} from '@deftjs/tensor';
import type { PretrainConfig } from '../config/index.ts';
import type { Run } from '../runs/index.ts';
import { guarded } from '../train/finite.ts';
import {
  keptByName,
  type PackedState,
  packedState,
  type StateOf,
  unpacked,
  type Weights,
} from '../train/packed.ts';
import { averageDecay } from '../train/rates.ts';
import { runSteps, type Taken } from '../train/steps.ts';

/** What a job trains on. */
export interface Lesson<B extends Tree> {
  /** The batch of a step (counted from 0): a pure function of it. */
  batch(step: number): B;
  /** The loss of the model on a batch, a scalar. */
  loss(batch: B): Tensor;
}

function packingOf(model: Module): Packing<Weights> {
  // Norms and biases are not decayed.
  const groups = [{ match: (path: string) => /bias$|norm/.test(path), weightDecay: 0 }];
  return packing(trainableState(model), groups);
}

function optimizerOf(config: PretrainConfig, { groups }: Packing<Weights>) {
  return adamW({ betas: [0.9, 0.99], weightDecay: config.weight_decay, groups });
}

/** Learning rate of each step. */
function learningRates(config: PretrainConfig): (step: number) => number {
  const { learning_rate: peak, warmup_steps, steps, learning_rate_schedule } = config;
  const after = learning_rate_schedule === 'cosine' ? cosine(peak, steps) : () => peak;
  return warmup(after, warmup_steps);
}

/** The training step of a model: one compiled program. The state passed in is used up. */
function pretrainStep<B extends Tree>(
  model: Module,
  config: PretrainConfig,
  packed: Packing<Weights>,
  lesson: Lesson<B>,
  device: Device,
): (state: PackedState, step: number) => Promise<Taken<PackedState>> {
  setTraining(model, true);
  const optimizer = optimizerOf(config, packed);
  const schedule = learningRates(config);
  const compiled = compile(
    (state: PackedState, batch: B, learningRate: Tensor, decay: Tensor) => {
      const loss = (weights: Weights): Tensor => withState(model, weights, () => lesson.loss(batch));
      const { value, gradient } = valueAndGrad(loss)(packed.unpack(state.weights));
      const { clipped, norm } = clipByGlobalNorm(packed.pack(gradient), config.max_grad_norm);
      const { parameters: weights, state: next } = optimizer.update(state.weights, clipped, state.optimizer, {
        learningRate,
      });
      const average = movingAverage(state.average!, weights, decay);
      const after = { weights, optimizer: next as PackedState['optimizer'], average };
      return { state: guarded(value, norm, after, state), loss: value, norm };
    },
    { device, donate: { 0: 'state' } },
  );
  return async (state, step) => {
    const batch = lesson.batch(step);
    const learningRate = schedule(step);
    const decay = averageDecay(config.ema_decay, step);
    const result = await compiled(state, batch, tensor(learningRate), tensor(decay));
    const [loss, norm] = [await item(result.loss), await item(result.norm)];
    for (const spent of [...treeLeaves(batch), result.loss, result.norm]) spent.dispose();
    return { state: result.state, loss, measured: { learning_rate: learningRate, gradient_norm: norm } };
  };
}

export interface PretrainRun {
  readonly run: Run;
  readonly device: Device;
  readonly signal: AbortSignal;
  /** Called with the averaged weights when `done` steps are done, before a checkpoint of them is saved. */
  readonly after?: (average: Weights, done: number) => Promise<void>;
}

/** What a job has learnt. */
export interface Learnt {
  readonly average: Weights;
  readonly done: number;
  /** The loss of each step from the first. */
  readonly losses: readonly number[];
}

/** Takes the steps of the job that are left, until its time is up or the signal is given. @throws {UserError} as `runSteps` */
export async function runPretraining<B extends Tree>(
  model: Module,
  config: PretrainConfig,
  lesson: Lesson<B>,
  { run, device, signal, after }: PretrainRun,
): Promise<Learnt> {
  const began = performance.now();
  const isOutOfTime = (): boolean =>
    config.minutes !== null && performance.now() - began > 60_000 * config.minutes;
  const packed = packingOf(model);
  const { state, done, losses } = await runSteps<PackedState, StateOf<Weights>>({
    label: `pretrain ${config.name}`,
    run,
    total: config.steps,
    checkpointEvery: config.checkpoint_every,
    keepCheckpoints: config.keep_checkpoints,
    first: packedState(model, packed, { keepsAverage: true }),
    kept: keptByName(packed, device),
    step: pretrainStep(model, config, packed, lesson, device),
    stop: () => signal.aborted || isOutOfTime(),
    ...(after && {
      after: (own, steps) => scope(async () => after(await unpacked(packed, own.average!, device), steps)),
    }),
  });
  return { average: await unpacked(packed, state.average!, device), done, losses };
}

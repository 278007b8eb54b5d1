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
  type Vectors,
  warmup,
} from '@deftjs/autograd/optim';
import {
  alias,
  compile,
  type Device,
  evaluate,
  item,
  scope,
  type Tensor,
  type Tree,
  tensor,
  treeLeaves,
  treeMap,
} from '@deftjs/tensor';
import type { PretrainConfig } from '../config/index.ts';
import type { Run } from '../runs/index.ts';
import { guarded } from '../train/finite.ts';
import { averageDecay } from '../train/rates.ts';
import { runSteps, type Taken } from '../train/steps.ts';

export type Weights = Record<string, Tensor>;

/** Everything that a step changes; `average` is the moving average of the weights, which is what is shipped. */
type StateOf<P extends Tree> = {
  readonly weights: P;
  readonly optimizer: { readonly step: Tensor; readonly m: P; readonly v: P };
  readonly average: P;
};

/** As steps have it: a few vectors, so that the update of all weights is a few kernels. */
type Packed = StateOf<Vectors>;

/** As checkpoints have it: by the names of the weights. */
type Named = StateOf<Weights>;

function mapState<P extends Tree, Q extends Tree>(state: StateOf<P>, f: (part: P) => Q): StateOf<Q> {
  const { weights, optimizer, average } = state;
  const { step, m, v } = optimizer;
  return { weights: f(weights), optimizer: { step, m: f(m), v: f(v) }, average: f(average) };
}

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

/** The state that training starts from. */
function firstState(model: Module, config: PretrainConfig, packed: Packing<Weights>): Packed {
  // Steps use their state up, so it must not be the model's own tensors, nor one tensor twice.
  const copy = (): Vectors => packed.pack(treeMap(alias, trainableState(model)));
  const weights = copy();
  const optimizer = optimizerOf(config, packed).init(weights) as Packed['optimizer'];
  return { weights, optimizer, average: copy() };
}

/** The training step of a model: one compiled program. The state passed in is used up. */
function pretrainStep<B extends Tree>(
  model: Module,
  config: PretrainConfig,
  packed: Packing<Weights>,
  lesson: Lesson<B>,
  device: Device,
): (state: Packed, step: number) => Promise<Taken<Packed>> {
  setTraining(model, true);
  const optimizer = optimizerOf(config, packed);
  const schedule = learningRates(config);
  const compiled = compile(
    (state: Packed, batch: B, learningRate: Tensor, decay: Tensor) => {
      const loss = (weights: Weights): Tensor => withState(model, weights, () => lesson.loss(batch));
      const { value, gradient } = valueAndGrad(loss)(packed.unpack(state.weights));
      const { clipped, norm } = clipByGlobalNorm(packed.pack(gradient), config.max_grad_norm);
      const { parameters: weights, state: next } = optimizer.update(state.weights, clipped, state.optimizer, {
        learningRate,
      });
      const average = movingAverage(state.average, weights, decay);
      const after = { weights, optimizer: next as Packed['optimizer'], average };
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
  /** The tensors of a state by the names of the weights, computed. */
  const named = async <T extends Tree>(unpacked: T): Promise<T> => {
    await evaluate(treeLeaves(unpacked), device);
    return unpacked;
  };
  const { state, done, losses } = await runSteps<Packed, Named>({
    label: `pretrain ${config.name}`,
    run,
    total: config.steps,
    checkpointEvery: config.checkpoint_every,
    keepCheckpoints: config.keep_checkpoints,
    first: firstState(model, config, packed),
    kept: {
      of: (own) => named(mapState(own, packed.unpack)),
      stateOf: (own) => mapState(own, packed.pack),
    },
    step: pretrainStep(model, config, packed, lesson, device),
    stop: () => signal.aborted || isOutOfTime(),
    ...(after && {
      after: (own, steps) => scope(async () => after(await named(packed.unpack(own.average)), steps)),
    }),
  });
  return { average: await named(packed.unpack(state.average)), done, losses };
}

/** What every pretraining job does: steps of gradient, clipping, AdamW and a moving average of the weights. */
import { valueAndGrad } from '@deftjs/autograd';
import { type Module, setTraining, trainableState, withState } from '@deftjs/autograd/nn';
import { adamW, clipByGlobalNorm, cosine, movingAverage, warmup } from '@deftjs/autograd/optim';
import {
  alias,
  compile,
  type Device,
  item,
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
import { type Finished, runSteps, type Taken } from '../train/steps.ts';

export type Weights = Record<string, Tensor>;

/** Everything that a step changes; `average` is the moving average of the weights, which is what is shipped. */
export type PretrainState = {
  readonly weights: Weights;
  readonly optimizer: ReturnType<ReturnType<typeof adamW>['init']>;
  readonly average: Weights;
};

/** What a job trains on. */
export interface Lesson<B extends Tree> {
  /** The batch of a step (counted from 0): a pure function of it. */
  batch(step: number): B;
  /** The loss of the model on a batch, a scalar. */
  loss(batch: B): Tensor;
}

function optimizerOf(config: PretrainConfig) {
  // Norms and biases are not decayed.
  const groups = [{ match: (path: string) => /bias$|norm/.test(path), weightDecay: 0 }];
  return adamW({ betas: [0.9, 0.99], weightDecay: config.weight_decay, groups });
}

/** Learning rate of each step. */
function learningRates(config: PretrainConfig): (step: number) => number {
  const { learning_rate: peak, warmup_steps, steps, learning_rate_schedule } = config;
  const after = learning_rate_schedule === 'cosine' ? cosine(peak, steps) : () => peak;
  return warmup(after, warmup_steps);
}

/** The state that training starts from. */
function firstState(model: Module, config: PretrainConfig): PretrainState {
  // Steps use their state up, so it must not be the model's own tensors, nor one tensor twice.
  const copy = (): Weights => treeMap(alias, trainableState(model));
  const weights = copy();
  return { weights, optimizer: optimizerOf(config).init(weights), average: copy() };
}

/** The training step of a model: one compiled program. The state passed in is used up. */
function pretrainStep<B extends Tree>(
  model: Module,
  config: PretrainConfig,
  lesson: Lesson<B>,
  device: Device,
): (state: PretrainState, step: number) => Promise<Taken<PretrainState>> {
  setTraining(model, true);
  const optimizer = optimizerOf(config);
  const schedule = learningRates(config);
  const compiled = compile(
    (state: PretrainState, batch: B, learningRate: Tensor, decay: Tensor) => {
      const loss = (weights: Weights): Tensor => withState(model, weights, () => lesson.loss(batch));
      const { value, gradient } = valueAndGrad(loss)(state.weights);
      const { clipped, norm } = clipByGlobalNorm(gradient, config.max_grad_norm);
      const { parameters: weights, state: next } = optimizer.update(state.weights, clipped, state.optimizer, {
        learningRate,
      });
      const average = movingAverage(state.average, weights, decay);
      return {
        state: guarded(value, norm, { weights, optimizer: next, average }, state),
        loss: value,
        norm,
      };
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
  /** Called when `done` steps are done, before a checkpoint of them is saved. */
  readonly after?: (state: PretrainState, done: number) => Promise<void>;
}

/** Takes the steps of the job that are left, until its time is up or the signal is given. @throws {UserError} as `runSteps` */
export function runPretraining<B extends Tree>(
  model: Module,
  config: PretrainConfig,
  lesson: Lesson<B>,
  { run, device, signal, after }: PretrainRun,
): Promise<Finished<PretrainState>> {
  const began = performance.now();
  const isOutOfTime = (): boolean =>
    config.minutes !== null && performance.now() - began > 60_000 * config.minutes;
  return runSteps<PretrainState>({
    label: `pretrain ${config.name}`,
    run,
    total: config.steps,
    checkpointEvery: config.checkpoint_every,
    keepCheckpoints: config.keep_checkpoints,
    first: firstState(model, config),
    step: pretrainStep(model, config, lesson, device),
    stop: () => signal.aborted || isOutOfTime(),
    ...(after && { after }),
  });
}

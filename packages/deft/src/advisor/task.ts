/** Probe steps and trial trainings for any module and loss: what `advise` needs. */
import { grad } from '@deftjs/autograd';
import { type Module, namedParameters, stateOf, withState } from '@deftjs/autograd/nn';
import { type AdamState, adamW } from '@deftjs/autograd/optim';
import {
  add,
  alias,
  type CompiledFunction,
  compile,
  type Device,
  item,
  mul,
  type Tensor,
  type Tree,
  treeLeaves,
  treeMap,
} from '@deftjs/tensor';
import { attach, detach } from '../adapt.ts';
import { attachedAdapters } from '../adapter.ts';
import { findTargets, type Targets } from '../targets.ts';
import { type Candidate, candidateMethods } from './advise.ts';
import type { Trial } from './halving.ts';
import { type LayerSignals, layerSignals } from './signals.ts';

/** What is to be learnt. Functions build graphs from the module's present parameters and from nothing that changes. */
export interface Task<D extends Tree, H extends Tree> {
  readonly module: Module;
  readonly targetModules: Targets;
  /** The data of a step, counted from 0, of the same shapes in each. */
  data(step: number): D;
  /** The loss that is trained: a scalar. */
  loss(data: D): Tensor;
  /** What the score is computed on, such as pictures held out and pictures of other things. */
  readonly heldOut: H;
  /** What candidates are judged by, smaller is better: a scalar, such as a loss plus drift. */
  score(heldOut: H): Tensor;
  /** Of R, of LoRA's factors and of the directions of PaRa; the directions of DEFT learn at a tenth of it. */
  readonly learningRate: number;
  readonly seed: number;
  readonly device?: Device;
}

/** The rate of DEFT's directions as a multiple of R's: that of the presets. */
const basisRate = 0.1;

const adapterName = 'advised';

type Weights = Readonly<Record<string, Tensor>>;

/**
 * The signals of every targeted layer from the mean of the loss's gradient over so many steps' data, at the present
 * weights. Nothing is trained.
 * @throws as `attach` when the targets match nothing; RangeError unless steps is a whole number >= 1
 */
export async function probe<D extends Tree, H extends Tree>(
  { module, targetModules, data, loss, device }: Task<D, H>,
  steps: number,
): Promise<LayerSignals[]> {
  if (!Number.isSafeInteger(steps) || steps < 1)
    throw new RangeError(`probe: steps must be a whole number >= 1; got ${steps}`);
  const layers = findTargets(module, targetModules);
  const weightPath = (path: string): string => (path === '' ? 'weight' : `${path}.weight`);
  const weights = Object.fromEntries(
    [...layers].map(([path, { weight }]) => [weightPath(path), weight.value]),
  );
  const gradientAt = grad((theta: Weights, batch: D) => withState(module, theta, () => loss(batch)));
  const accumulate = compile(
    (theta: Weights, total: Weights, batch: D) => {
      const gradient = gradientAt(theta, batch);
      return Object.fromEntries(
        Object.entries(total).map(([path, sum]) => [path, add(sum, mul(gradient[path]!, 1 / steps))]),
      );
    },
    { ...(device ? { device } : {}), donate: { 1: '' } },
  );
  try {
    let total: Weights = Object.fromEntries(
      Object.entries(weights).map(([path, weight]) => [path, mul(weight, 0)]),
    );
    for (let step = 0; step < steps; step += 1) total = await accumulate(weights, total, data(step));
    const signals: LayerSignals[] = [];
    for (const [path, { weight }] of layers) {
      const mean = total[weightPath(path)]!;
      signals.push(await layerSignals(path, weight.value, mean, device));
      mean.dispose();
    }
    return signals;
  } finally {
    accumulate.dispose();
  }
}

/** Trainings of candidates, whose programs are shared by all that train the same candidate; disposing frees them. */
export interface Trials extends Disposable {
  /**
   * Begins a training from the module's present weights, which it does not change.
   * @throws as `attach`
   */
  start(candidate: Candidate): Promise<Trial>;
}

type TrainingState = { readonly weights: Weights; readonly optimizer: AdamState };

interface Programs<D extends Tree, H extends Tree> {
  readonly step: CompiledFunction<[TrainingState, Weights, D], { state: TrainingState }>;
  readonly score: CompiledFunction<[Weights, Weights, H], Tensor>;
}

function programsOf<D extends Tree, H extends Tree>(
  { module, loss, score, learningRate, device }: Task<D, H>,
  { name }: Candidate,
): Programs<D, H> {
  const groups = name === 'para' ? [] : [{ match: /\.deft_[PWH]$/, learningRateFactor: basisRate }];
  const optimizer = adamW({ weightDecay: 0, groups });
  const options = device ? { device } : {};
  return {
    step: compile(
      ({ weights, optimizer: before }: TrainingState, base: Weights, batch: D) => {
        const gradient = grad((theta: Weights) =>
          withState(module, { ...base, ...theta }, () => loss(batch)),
        )(weights);
        const { parameters, state } = optimizer.update(weights, gradient, before, { learningRate });
        return { state: { weights: parameters, optimizer: state } };
      },
      { ...options, donate: { 0: 'state' } },
    ),
    score: compile(
      (weights: Weights, base: Weights, heldOut: H) =>
        withState(module, { ...base, ...weights }, () => score(heldOut)),
      options,
    ),
  };
}

/** Trial trainings of the task. Layers carry an adapter only while a trial takes steps. */
export function trialsOf<D extends Tree, H extends Tree>(task: Task<D, H>): Trials {
  const { module, targetModules, seed, device } = task;
  const known = new Map<string, Programs<D, H>>();

  const start = async (candidate: Candidate): Promise<Trial> => {
    const { name, rank } = candidate;
    const base = stateOf(module);
    const trainable = new Map([...namedParameters(module).values()].map((p) => [p, p.trainable]));
    const method = candidateMethods[name](rank);
    await attach(module, { method, targetModules, adapterName, seed, ...(device ? { device } : {}) });
    const adapters = attachedAdapters(module, adapterName);
    const weights = treeMap(
      alias,
      stateOf(module, (path) => path.includes(`adapters.${adapterName}.`)),
    );
    detach(module, adapterName);
    for (const [parameter, before] of trainable) parameter.trainable = before;
    const programs = known.get(`${name} ${rank}`) ?? programsOf(task, candidate);
    known.set(`${name} ${rank}`, programs);

    /** The result of `run` with the adapter on its layers: programs are traced when they are first called. */
    const adapted = async <R>(run: () => Promise<R>): Promise<R> => {
      for (const { layer, adapter } of adapters) layer.adapters[adapterName] = adapter;
      try {
        return await run();
      } finally {
        for (const { layer } of adapters) delete layer.adapters[adapterName];
      }
    };
    let state: TrainingState = { weights, optimizer: adamW().init(weights) };
    let taken = 0;
    return {
      advance: (steps) =>
        adapted(async () => {
          for (const end = taken + steps; taken < end; taken += 1)
            ({ state } = await programs.step(state, base, task.data(taken)));
          const score = await programs.score(state.weights, base, task.heldOut);
          const value = await item(score);
          score.dispose();
          return value;
        }),
      end: () => {
        for (const value of treeLeaves(state)) value.dispose();
      },
    };
  };
  return {
    start,
    [Symbol.dispose]: () => {
      for (const { step, score } of known.values()) {
        step.dispose();
        score.dispose();
      }
    },
  };
}

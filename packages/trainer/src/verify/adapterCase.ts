/** Adapters against PEFT: what they compute, how they train, and what they merge to. */
import { dirname, join } from 'node:path';
import { valueAndGrad } from '@deftjs/autograd';
import {
  Linear,
  loadState,
  Module,
  namedParameters,
  stateOf,
  trainableState,
  withState,
} from '@deftjs/autograd/nn';
import { type AdamState, adamW } from '@deftjs/autograd/optim';
import { merge } from '@deftjs/deft';
import { loadPeftFolder } from '@deftjs/deft/node';
import { readConfigFile } from '@deftjs/models/node';
import { compile, type Device, item, meanSquaredError, read, silu, type Tensor } from '@deftjs/tensor';
import { memoryName } from './adapterNames.ts';
import { type Check, compare, compareAll, outputBound, trajectoryBound } from './check.ts';
import type { GoldenFolder } from './goldenFolder.ts';
import { checkLoss, loadModelCase } from './modelCase.ts';

/** y = fc2(silu(fc1(x))), the base of the cases that name no other. */
class TwoLayers extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(state: Readonly<Record<string, Tensor>>) {
    super();
    const layer = (name: string) => {
      const weight = state[`${name}.weight`];
      if (weight === undefined) throw new Error(`no recorded tensor "base/${name}.weight"`);
      return new Linear(weight.shape[1]!, weight.shape[0]!, { bias: `${name}.bias` in state });
    };
    this.fc1 = layer('fc1');
    this.fc2 = layer('fc2');
    loadState(this, state);
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(silu(this.fc1.forward(x)));
  }
}

/** How the recorded training of a two-layer case went. */
interface Training {
  readonly lr_P: number;
  readonly lr_other: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  readonly steps: number;
}

/** Checks an adapter on the base that its case names, or on two layers. */
export async function checkAdapter(golden: GoldenFolder, device: Device): Promise<Check[]> {
  const { base } = golden.json('case.json');
  if (typeof base === 'string') return checkOnModel(golden, join(dirname(golden.path), base), device);
  return checkOnTwoLayers(golden, device);
}

async function checkOnModel(golden: GoldenFolder, base: string, device: Device): Promise<Check[]> {
  const { model, forward } = await loadModelCase(base, await readConfigFile(join(base, 'config.json')));
  await loadPeftFolder(golden.path, model, { trainable: true });
  return checkLoss(golden, { model, forward, theta: trainableState(model), nameOf: memoryName }, device);
}

/** Checks `out`, `loss` and `grad/*`, then `start/*`, `losses` and `after20/*` of training, and `merged/*`. */
async function checkOnTwoLayers(golden: GoldenFolder, device: Device): Promise<Check[]> {
  const model = new TwoLayers(golden.under('base/'));
  await loadPeftFolder(golden.path, model, { trainable: true });
  const theta = trainableState(model);
  const forward = ({ x }: Readonly<Record<string, Tensor>>) => model.forward(x!);
  return [
    ...(await checkLoss(golden, { model, forward, theta, nameOf: memoryName }, device)),
    ...(await compareAll(named('start/', theta), recordedUnder(golden, 'start/'), outputBound, device)),
    ...(await checkTraining(golden, model, device)),
    ...(await checkMerging(golden, model, device)),
  ];
}

function named(prefix: string, theta: Readonly<Record<string, Tensor>>): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(theta).map(([path, value]) => [`${prefix}${memoryName(path)}`, value]),
  );
}

/** The recorded tensors whose names begin so, by their whole names. */
function recordedUnder(golden: GoldenFolder, prefix: string): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(golden.tensors).filter(([name]) => name.startsWith(prefix)));
}

/** AdamW from where the adapter begins, P at a learning rate of its own. */
async function checkTraining(golden: GoldenFolder, model: TwoLayers, device: Device): Promise<Check[]> {
  const training = golden.json('case.json') as unknown as Training;
  const optimizer = adamW({
    betas: training.betas,
    eps: training.eps,
    weightDecay: training.weight_decay,
    groups: [{ match: /\.deft_P$/, learningRateFactor: training.lr_P / training.lr_other }],
  });
  const [x, target] = [golden.get('in/x'), golden.get('target')];
  const loss = valueAndGrad((parameters: Record<string, Tensor>) =>
    withState(model, parameters, () => meanSquaredError(model.forward(x), target)),
  );
  const step = compile(
    (parameters: Record<string, Tensor>, before: AdamState) => {
      const { value, gradient } = loss(parameters);
      return {
        value,
        ...optimizer.update(parameters, gradient, before, { learningRate: training.lr_other }),
      };
    },
    { device },
  );
  let parameters = trainableState(model);
  let state = optimizer.init(parameters);
  const losses: number[] = [];
  for (let i = 0; i < training.steps; i += 1) {
    const next = await step(parameters, state);
    losses.push(await item(next.value, device));
    ({ parameters, state } = next);
  }
  step.dispose();
  return [
    compare('losses', losses, await read(golden.get('losses'), device), trajectoryBound),
    ...(await compareAll(
      named('after20/', parameters),
      recordedUnder(golden, 'after20/'),
      trajectoryBound,
      device,
    )),
  ];
}

/** Merges the adapter that PEFT had after its training, so that rounding in ours has no part in it. */
async function checkMerging(golden: GoldenFolder, model: TwoLayers, device: Device): Promise<Check[]> {
  for (const [path, parameter] of namedParameters(model)) {
    if (parameter.trainable) parameter.value = golden.get(`after20/${memoryName(path)}`);
  }
  using _merged = await merge(model, device);
  const weights = Object.entries(stateOf(model)).map(([path, value]) => [`merged/${path}`, value]);
  return await compareAll(
    Object.fromEntries(weights) as Record<string, Tensor>,
    recordedUnder(golden, 'merged/'),
    outputBound,
    device,
  );
}

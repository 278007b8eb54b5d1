/** This engine's entries of the table, and how it runs them. */
import { valueAndGrad } from '@deftjs/autograd';
import { adam } from '@deftjs/autograd/optim';
import {
  add,
  attention,
  compile,
  conv2d,
  type Device,
  evaluate,
  gelu,
  groupNorm,
  layerNorm,
  logSoftmax,
  matmul,
  mean,
  mul,
  neg,
  permute,
  read,
  relu,
  reshape,
  silu,
  softmax,
  square,
  sub,
  sum,
  type Tensor,
  tensor,
  treeLeaves,
  treeMap,
  zeros,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import type { Backend, Contender, Prepared } from './contender.ts';
import { chainLength, checkedSteps, groupCount, type HostTensors, headWidth, type Row } from './rows.ts';

export type Tensors = { readonly [name: string]: Tensor };

/** Functions of a row's inputs to its results. */
export const functions: { readonly [computes: string]: (inputs: Tensors) => readonly Tensor[] } = {
  matmul: ({ a, b }) => [matmul(a!, b!)],
  conv2d: ({ x, w }) => [conv2d(x!, w!, null, { padding: 1 })],
  softmax: ({ x }) => [softmax(x!)],
  layerNorm: ({ x, weight, bias }) => [layerNorm(x!, weight, bias)],
  groupNorm: ({ x, weight, bias }) => [groupNorm(x!, groupCount(x!.shape[1]!), weight, bias)],
  geluChain: ({ x, a, b }) => [add(gelu(add(mul(x!, a!), b!)), x!)],
  sum: ({ x }) => [sum(x!)],
  attention: ({ q, k, v }) => [attention(q!, k!, v!)],
  attentionGradient: ({ q, k, v, g }) => {
    const weighted = (inputs: Tensor[]): Tensor =>
      sum(mul(attention(inputs[0]!, inputs[1]!, inputs[2]!), g!));
    return valueAndGrad(weighted)([q!, k!, v!]).gradient;
  },
  chain: ({ x }) => {
    let y = x!;
    for (let i = 0; i < chainLength; i += 2) y = add(mul(y, 0.99), 0.01);
    return [y];
  },
  increment: ({ x }) => [add(x!, 1)],
};

const meanSquare = (y: Tensor, target: Tensor): Tensor => mean(square(sub(y, target)));

/** Losses of a training row's parameters and data. */
export const losses: { readonly [computes: string]: (p: Tensors, data: Tensors) => Tensor } = {
  mlp: (p, { x, target }) => {
    const h1 = relu(add(matmul(x!, p.w1!), p.b1!));
    const h2 = relu(add(matmul(h1, p.w2!), p.b2!));
    const logits = add(matmul(h2, p.w3!), p.b3!);
    return mean(neg(sum(mul(softmax(target!), logSoftmax(logits)), -1)));
  },
  transformer: (p, { x, target }) => {
    const [batch, length, width] = x!.shape as [number, number, number];
    const heads = (y: Tensor): Tensor =>
      permute(reshape(y, [batch, length, width / headWidth, headWidth]), [0, 2, 1, 3]);
    const y = layerNorm(x!, p.norm1Weight, p.norm1Bias);
    const mixed = attention(heads(matmul(y, p.q!)), heads(matmul(y, p.k!)), heads(matmul(y, p.v!)));
    const joined = reshape(permute(mixed, [0, 2, 1, 3]), [batch, length, width]);
    const h = add(x!, add(matmul(joined, p.o!), p.oBias!));
    const inner = gelu(add(matmul(layerNorm(h, p.norm2Weight, p.norm2Bias), p.w1!), p.b1!));
    return meanSquare(add(h, add(matmul(inner, p.w2!), p.b2!)), target!);
  },
  resBlock: (p, { x, target }) => {
    const groups = groupCount(x!.shape[1]!);
    const first = silu(groupNorm(x!, groups, p.norm1Weight, p.norm1Bias));
    const h = conv2d(first, p.conv1!, p.conv1Bias, { padding: 1 });
    const second = silu(groupNorm(h, groups, p.norm2Weight, p.norm2Bias));
    return meanSquare(add(x!, conv2d(second, p.conv2!, p.conv2Bias, { padding: 1 })), target!);
  },
};

const optimizer = adam({ eps: 1e-6 });

/** What a training step carries on to the next. */
export interface TrainState {
  readonly parameters: Tensors;
  readonly adam: ReturnType<typeof optimizer.init>;
  readonly [key: string]: Tensors | ReturnType<typeof optimizer.init>;
}

/** The row's inputs as the state before its first step, and its data. */
export function trainStart(row: Row, inputs: Tensors): { state: TrainState; data: Tensors } {
  const part = (data: boolean): Tensors =>
    Object.fromEntries(Object.entries(inputs).filter(([name]) => (row.inputs[name]!.data ?? false) === data));
  const parameters = part(false);
  return { state: { parameters, adam: optimizer.init(parameters) }, data: part(true) };
}

/** The step of a training row: a pure function, to compile with its state donated. */
export function trainStep(
  row: Row,
): (state: TrainState, data: Tensors) => { state: TrainState; loss: Tensor } {
  const both = valueAndGrad(losses[row.computes]!);
  return (state, data) => {
    const { value, gradient } = both(state.parameters, data);
    const next = optimizer.update(state.parameters, gradient, state.adam, { learningRate: 1e-3 });
    return { state: { parameters: next.parameters, adam: next.state }, loss: value as Tensor };
  };
}

/** Host values as tensors. */
export function tensorsOf(inputs: HostTensors): Tensors {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, values }]) => [name, tensor(values, shape)]),
  );
}

async function values(outputs: readonly Tensor[], device: Device) {
  return Promise.all(
    outputs.map(async (y) => ({ shape: y.shape, values: (await read(y, device)) as Float32Array })),
  );
}

const dispose = (tensors: readonly Tensor[]): void => {
  for (const x of tensors) x.dispose();
};

function prepareFunction(row: Row, inputs: Tensors, device: Device): Prepared {
  const compute = functions[row.computes]!;
  const compiled = compile(compute, { device });
  const once = async (): Promise<readonly Tensor[]> => {
    if (row.mode === 'compiled') return compiled(inputs);
    const outputs = compute(inputs);
    await evaluate(outputs, device);
    return outputs;
  };
  return {
    async run() {
      const outputs = await once();
      if (row.mode === 'readback') await read(outputs[0]!, device);
      else await device.idle();
      dispose(outputs);
    },
    async outputs() {
      const outputs = await once();
      const result = await values(outputs, device);
      dispose(outputs);
      return result;
    },
    dispose() {
      compiled.dispose();
      dispose(Object.values(inputs));
    },
  };
}

/** A state of fresh tensors: the first step's donation would take the inputs. */
export async function ownState(state: TrainState, device: Device): Promise<TrainState> {
  const own = treeMap((x) => add(x, zeros([])), state);
  await evaluate(treeLeaves(own), device);
  return own;
}

async function prepareTraining(row: Row, inputs: Tensors, device: Device): Promise<Prepared> {
  const step = compile(trainStep(row), { device, donate: { 0: 'state' } });
  const start = trainStart(row, inputs);
  let state = await ownState(start.state, device);
  const advance = async (): Promise<Tensor> => {
    const next = await step(state, start.data);
    state = next.state;
    return next.loss;
  };
  return {
    async run() {
      const loss = await advance();
      await device.idle();
      loss.dispose();
    },
    async outputs() {
      const result = new Float32Array(checkedSteps);
      for (let i = 0; i < checkedSteps; i += 1) result[i] = (await read(await advance(), device))[0]!;
      return [{ shape: [checkedSteps], values: result }];
    },
    dispose() {
      step.dispose();
      dispose([...treeLeaves(state), ...Object.values(inputs)]);
    },
  };
}

/** The row on a device of this engine. */
export async function prepareOn(device: Device, row: Row, inputs: HostTensors): Promise<Prepared> {
  const tensors = tensorsOf(inputs);
  return row.mode === 'train' ? prepareTraining(row, tensors, device) : prepareFunction(row, tensors, device);
}

/** This engine on the backend. */
export async function open(backend: Backend): Promise<Contender> {
  const { device, why } = await openDevice(backend);
  return { description: why, prepare: (row, inputs) => prepareOn(device, row, inputs) };
}

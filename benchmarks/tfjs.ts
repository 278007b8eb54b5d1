/**
 * TensorFlow.js's entries of the table. It convolves channels-last: images and kernels are turned on the host.
 */
import tf from '@tensorflow/tfjs';
import type { Backend, Contender, Prepared } from './contender.ts';
import { provideWebGPU } from './gpu.ts';
import { chainLength, checkedSteps, groupCount, type HostTensor, headWidth, type Row } from './rows.ts';

// biome-ignore lint/suspicious/noExplicitAny: the peer's types are not at hand (peers.d.ts)
type TfTensor = any;
type Tensors = { [name: string]: TfTensor };

function standardized(x: TfTensor, axes: number[]): TfTensor {
  const { mean, variance } = tf.moments(x, axes, true);
  return x.sub(mean).mul(variance.add(1e-5).rsqrt());
}

const layerNorm = (x: TfTensor, weight: TfTensor, bias: TfTensor): TfTensor =>
  standardized(x, [-1]).mul(weight).add(bias);

function groupNorm(x: TfTensor, weight: TfTensor, bias: TfTensor): TfTensor {
  const [n, h, w, c] = x.shape as [number, number, number, number];
  const groups = groupCount(c);
  const y = standardized(x.reshape([n, h * w, groups, c / groups]), [1, 3]);
  return y.reshape([n, h, w, c]).mul(weight).add(bias);
}

function attention(q: TfTensor, k: TfTensor, v: TfTensor): TfTensor {
  const scale = 1 / Math.sqrt(q.shape.at(-1));
  return tf.matMul(tf.softmax(tf.matMul(q.mul(scale), k, false, true), -1), v);
}

const gelu = (x: TfTensor): TfTensor => x.mul(0.5).mul(x.mul(Math.SQRT1_2).erf().add(1));
const silu = (x: TfTensor): TfTensor => x.mul(tf.sigmoid(x));
const conv = (x: TfTensor, w: TfTensor): TfTensor => tf.conv2d(x, w, 1, 'same');

const functions: { readonly [computes: string]: (inputs: Tensors) => TfTensor[] } = {
  matmul: ({ a, b }) => [tf.matMul(a, b)],
  conv2d: ({ x, w }) => [conv(x, w)],
  softmax: ({ x }) => [tf.softmax(x, -1)],
  layerNorm: ({ x, weight, bias }) => [layerNorm(x, weight, bias)],
  groupNorm: ({ x, weight, bias }) => [groupNorm(x, weight, bias)],
  geluChain: ({ x, a, b }) => [gelu(x.mul(a).add(b)).add(x)],
  sum: ({ x }) => [tf.sum(x)],
  attention: ({ q, k, v }) => [attention(q, k, v)],
  attentionGradient: ({ q, k, v, g }) =>
    tf.grads((a: TfTensor, b: TfTensor, c: TfTensor) => tf.sum(attention(a, b, c).mul(g)))([q, k, v]),
  chain: ({ x }) => {
    let y = x;
    for (let i = 0; i < chainLength; i += 2) y = y.mul(0.99).add(0.01);
    return [y];
  },
  increment: ({ x }) => [x.add(1)],
};

const meanSquare = (y: TfTensor, target: TfTensor): TfTensor => tf.mean(tf.square(y.sub(target)));

const losses: { readonly [computes: string]: (p: Tensors, data: Tensors) => TfTensor } = {
  mlp: (p, { x, target }) => {
    const h1 = tf.relu(tf.matMul(x, p.w1).add(p.b1));
    const h2 = tf.relu(tf.matMul(h1, p.w2).add(p.b2));
    const logits = tf.matMul(h2, p.w3).add(p.b3);
    return tf.mean(tf.neg(tf.sum(tf.softmax(target, -1).mul(tf.logSoftmax(logits, -1)), -1)));
  },
  transformer: (p, { x, target }) => {
    const [batch, length, width] = x.shape as [number, number, number];
    const product = (y: TfTensor, w: TfTensor): TfTensor =>
      tf.matMul(y.reshape([batch * length, -1]), w).reshape([batch, length, -1]);
    const heads = (y: TfTensor): TfTensor =>
      y.reshape([batch, length, width / headWidth, headWidth]).transpose([0, 2, 1, 3]);
    const y = layerNorm(x, p.norm1Weight, p.norm1Bias);
    const mixed = attention(heads(product(y, p.q)), heads(product(y, p.k)), heads(product(y, p.v)));
    const joined = mixed.transpose([0, 2, 1, 3]).reshape([batch, length, width]);
    const h = x.add(product(joined, p.o).add(p.oBias));
    const inner = gelu(product(layerNorm(h, p.norm2Weight, p.norm2Bias), p.w1).add(p.b1));
    return meanSquare(h.add(product(inner, p.w2).add(p.b2)), target);
  },
  resBlock: (p, { x, target }) => {
    const h = conv(silu(groupNorm(x, p.norm1Weight, p.norm1Bias)), p.conv1).add(p.conv1Bias);
    const second = silu(groupNorm(h, p.norm2Weight, p.norm2Bias));
    return meanSquare(x.add(conv(second, p.conv2).add(p.conv2Bias)), target);
  },
};

/** Rows over images, and which of their inputs are kernels. */
const overImages = new Set(['conv2d', 'groupNorm', 'resBlock']);
const kernels = new Set(['w', 'conv1', 'conv2']);
const [channelsLast, channelsFirst, kernelLast] = [
  [0, 2, 3, 1],
  [0, 3, 1, 2],
  [2, 3, 1, 0],
] as const;

/** A tensor of four axes with its axes in another order. */
function permuted({ shape, values }: HostTensor, order: readonly number[]): HostTensor {
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const [s0, s1, s2, s3] = order.map((axis) => strides[axis]!) as [number, number, number, number];
  const [n0, n1, n2, n3] = order.map((axis) => shape[axis]!) as [number, number, number, number];
  const moved = new Float32Array(values.length);
  let at = 0;
  for (let a = 0; a < n0; a += 1)
    for (let b = 0; b < n1; b += 1)
      for (let c = 0; c < n2; c += 1)
        for (let d = 0; d < n3; d += 1, at += 1) moved[at] = values[a * s0 + b * s1 + c * s2 + d * s3]!;
  return { shape: [n0, n1, n2, n3], values: moved };
}

function uploaded(row: Row, name: string, given: HostTensor): TfTensor {
  const turn = overImages.has(row.computes) && given.shape.length === 4;
  const { shape, values } = turn ? permuted(given, kernels.has(name) ? kernelLast : channelsLast) : given;
  return tf.tensor(values, [...shape]);
}

async function downloaded(row: Row, y: TfTensor): Promise<HostTensor> {
  const output = { shape: [...y.shape], values: (await y.data()) as Float32Array };
  return overImages.has(row.computes) && output.shape.length === 4 ? permuted(output, channelsFirst) : output;
}

type Wait = () => Promise<void>;

function prepareFunction(row: Row, inputs: Tensors, wait: Wait): Prepared {
  const once = (): TfTensor[] => tf.tidy(() => functions[row.computes]!(inputs));
  return {
    async run() {
      const outputs = once();
      await (row.mode === 'readback' ? outputs[0].data() : wait());
      tf.dispose(outputs);
    },
    async outputs() {
      const outputs = once();
      const values = await Promise.all(outputs.map((y) => downloaded(row, y)));
      tf.dispose(outputs);
      return values;
    },
    dispose: () => tf.dispose(inputs),
  };
}

function prepareTraining(row: Row, inputs: Tensors, wait: Wait): Prepared {
  const names = Object.keys(inputs);
  const isData = (name: string): boolean => row.inputs[name]!.data ?? false;
  const parameters: Tensors = {};
  for (const name of names) if (!isData(name)) parameters[name] = tf.variable(inputs[name]);
  const adam = tf.train.adam(1e-3, 0.9, 0.999, 1e-6);
  const variables = Object.values(parameters);
  const advance = (): TfTensor =>
    adam.minimize(() => losses[row.computes]!(parameters, inputs), true, variables);
  return {
    async run() {
      const loss = advance();
      await wait();
      loss.dispose();
    },
    async outputs() {
      const values = new Float32Array(checkedSteps);
      for (let i = 0; i < checkedSteps; i += 1) {
        const loss = advance();
        values[i] = (await loss.data())[0];
        loss.dispose();
      }
      return [{ shape: [checkedSteps], values }];
    },
    dispose() {
      adam.dispose();
      tf.dispose([inputs, parameters]);
    },
  };
}

async function openBackend(backend: Backend): Promise<{ description: string; wait: Wait }> {
  if (backend === 'wasm') {
    await import('@tensorflow/tfjs-backend-wasm');
    await tf.setBackend('wasm');
    return { description: 'WebAssembly SIMD, 1 thread', wait: async () => {} };
  }
  const description = await provideWebGPU();
  await import('@tensorflow/tfjs-backend-webgpu');
  await tf.setBackend('webgpu');
  const gpu = tf.backend();
  const wait = async (): Promise<void> => {
    // Null when everything since the last submit was so small that it was computed on the CPU.
    if (gpu.commandEncoder) {
      gpu.endComputePassEncoder();
      gpu.submitQueue();
    }
    await gpu.queue.onSubmittedWorkDone();
  };
  return { description, wait };
}

/** TensorFlow.js on the backend. */
export async function open(backend: Backend): Promise<Contender> {
  const { description, wait } = await openBackend(backend);
  await tf.ready();
  return {
    description,
    async prepare(row, inputs) {
      const tensors = Object.fromEntries(
        Object.entries(inputs).map(([name, value]) => [name, uploaded(row, name, value)]),
      );
      return row.mode === 'train' ? prepareTraining(row, tensors, wait) : prepareFunction(row, tensors, wait);
    },
  };
}

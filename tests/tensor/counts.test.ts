/**
 * How many kernels whole training steps take: budgets that hold on any machine, since plans do not depend on it.
 * Launches are those of a GPU with the least that WebGPU guarantees, for which some kernels are split.
 */
import { valueAndGrad } from '@deftjs/autograd';
import { adamW, packing } from '@deftjs/autograd/optim';
import * as T from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';
import { lower } from '../../packages/tensor/src/compiler/lower.ts';
import { placeholder } from '../../packages/tensor/src/tensor.ts';
import { barriers } from '../../packages/tensor/src/wasm/barriers.ts';
import type { Capabilities } from '../../packages/tensor/src/webgpu/capabilities.ts';
import { openWebGPU } from '../../packages/tensor/src/webgpu/index.ts';
import { rewrite } from '../../packages/tensor/src/webgpu/rewrite.ts';
import { describeWebGPU, testAdapter } from '../support/webgpu.ts';

type Tensor = T.Tensor;
type Tensors = { readonly [name: string]: Tensor };

const leaves = (shapes: { readonly [name: string]: readonly number[] }): Tensors =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, placeholder(shape, 'f32')]));

const placeholders = <P extends T.Tree>(tree: P): P =>
  T.treeMap(({ shape, dtype }) => placeholder(shape, dtype), tree);

/** The graph of a training step whose parameters and moments are flat vectors, updated in place. */
function trainingStep(parameters: Tensors, data: Tensors, loss: (p: Tensors, data: Tensors) => Tensor) {
  const optimizer = adamW({ weightDecay: 0.01 });
  const { pack, unpack } = packing(parameters);
  const weights = placeholders(pack(parameters));
  const state = placeholders(optimizer.init(weights));
  const learningRate = placeholder([], 'f32');
  const { value, gradient } = valueAndGrad(loss)(unpack(weights), data);
  const next = optimizer.update(weights, pack(gradient), state, { learningRate });
  const before = [...T.treeLeaves(weights), ...T.treeLeaves(state)];
  const after = [...T.treeLeaves(next.parameters), ...T.treeLeaves(next.state)];
  return {
    inputs: [...before, ...Object.values(data), learningRate],
    outputs: [...after, value as Tensor],
    donations: new Map(before.map((_, i) => [i, i])),
  };
}

const capabilities: Capabilities = {
  f16: false,
  subgroupSize: 0,
  matrices: false,
  software: false,
  unrolls: false,
  keptScores: 0,
  maxWorkgroupsPerDimension: 65535,
  maxInvocationsPerWorkgroup: 256,
  maxWorkgroupStorageBytes: 16384,
  maxStorageBuffers: 8,
  maxBindingBytes: 2 ** 27,
  maxBufferBytes: 2 ** 28,
};

/** @param expected what the step takes: lower the numbers when a change does */
function expectCounts(
  graph: ReturnType<typeof trainingStep>,
  expected: { readonly kernels: number; readonly launches: number },
): void {
  const plan = lower(graph);
  const kernels = plan.kernels.map(({ kind, label }) => `${kind} ${label}`);
  expect(kernels.length, kernels.join('\n')).toBe(expected.kernels);
  const lengths = plan.buffers.map(({ length }) => length);
  const places = {
    place: (buffer: number) => {
      const planned = plan.buffers[buffer];
      return planned?.role === 'output' && planned.donated !== undefined
        ? plan.inputs[planned.donated]!
        : buffer;
    },
    length: (buffer: number) => lengths[buffer]!,
    start: () => 0,
    scratch: (_: T.DType, length: number) => lengths.push(length) - 1,
  };
  const launches = plan.kernels.flatMap((kernel) => rewrite(kernel, places, capabilities));
  const labels = launches.map(({ kind, label }) => `${kind} ${label}`);
  expect(labels.length, labels.join('\n')).toBe(expected.launches);
}

const meanSquare = (x: Tensor, y: Tensor): Tensor => T.mean(T.square(T.sub(x, y)));

function residualBlock() {
  const [n, c, side, width] = [2, 64, 16, 256];
  const image = [n, c, side, side];
  const parameters = leaves({
    norm1: [c],
    norm1Bias: [c],
    conv1: [c, c, 3, 3],
    conv1Bias: [c],
    time: [c, width],
    timeBias: [c],
    norm2: [c],
    norm2Bias: [c],
    conv2: [c, c, 3, 3],
    conv2Bias: [c],
  });
  const data = leaves({ x: image, embedding: [n, width], target: image });
  return trainingStep(parameters, data, (p, { x, embedding, target }) => {
    const first = T.conv2d(T.silu(T.groupNorm(x!, 32, p.norm1, p.norm1Bias)), p.conv1!, p.conv1Bias, {
      padding: 1,
    });
    const time = T.linear(T.silu(embedding!), p.time!, p.timeBias);
    const h = T.add(first, T.reshape(time, [n, c, 1, 1]));
    const second = T.conv2d(T.silu(T.groupNorm(h, 32, p.norm2, p.norm2Bias)), p.conv2!, p.conv2Bias, {
      padding: 1,
    });
    return meanSquare(T.add(x!, second), target!);
  });
}

function transformerBlock() {
  const [n, length, c, heads] = [1, 64, 128, 4];
  const parameters = leaves({
    norm1: [c],
    norm1Bias: [c],
    q: [c, c],
    k: [c, c],
    v: [c, c],
    o: [c, c],
    oBias: [c],
    norm2: [c],
    norm2Bias: [c],
    up: [4 * c, c],
    upBias: [4 * c],
    down: [c, 4 * c],
    downBias: [c],
  });
  const data = leaves({ x: [n, length, c], target: [n, length, c] });
  return trainingStep(parameters, data, (p, { x, target }) => {
    const split = (y: Tensor): Tensor => T.permute(T.reshape(y, [n, length, heads, c / heads]), [0, 2, 1, 3]);
    const y = T.layerNorm(x!, p.norm1, p.norm1Bias);
    const [q, k, v] = [p.q!, p.k!, p.v!].map((weight) => split(T.linear(y, weight)));
    const mixed = T.reshape(T.permute(T.attention(q!, k!, v!), [0, 2, 1, 3]), [n, length, c]);
    const h = T.add(x!, T.linear(mixed, p.o!, p.oBias));
    const inner = T.gelu(T.linear(T.layerNorm(h, p.norm2, p.norm2Bias), p.up!, p.upBias));
    return meanSquare(T.add(h, T.linear(inner, p.down!, p.downBias)), target!);
  });
}

describe('a training step', () => {
  it('of a residual block with a time embedding', () => {
    expectCounts(residualBlock(), { kernels: 21, launches: 22 });
  });

  it('of a transformer block', () => {
    expectCounts(transformerBlock(), { kernels: 33, launches: 34 });
  });
});

describeWebGPU('a training step', () => {
  it.each([
    ['a residual block', residualBlock],
    ['a transformer block', transformerBlock],
  ])('of %s is one submit and creates nothing from the second on', async (_, block) => {
    const graph = block();
    const device = await openWebGPU((await testAdapter()).adapter);
    const program = await device.prepare(graph);
    let storages = graph.inputs.map(({ dtype, size }) => device.upload(dtype, new Float32Array(size)));
    const data = storages.slice(graph.donations.size);
    const step = (): void => {
      const outputs = program.run(storages);
      outputs.at(-1)!.dispose(); // the loss
      storages = [...outputs.slice(0, -1), ...data] as typeof storages;
    };
    for (let i = 0; i < 2; i += 1) step();
    const before = device.statistics;
    for (let i = 0; i < 5; i += 1) step();
    await device.idle();
    const dispatches = before.dispatches + 5 * program.kernelCount;
    expect(device.statistics).toEqual({ ...before, submits: before.submits + 5, dispatches });
    await device.close();
  });
});

describe('an AdamW step over 300 parameters', () => {
  const parameters = leaves(
    Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`p${i}`, [1 + (i % 7), 16]])),
  );
  const inputs = leaves(Object.fromEntries(Object.keys(parameters).map((name) => [name, [8, 16]])));
  const products = (p: Tensors, x: Tensors): Tensor =>
    Object.keys(p)
      .map((name) => T.sum(T.square(T.linear(x[name]!, p[name]!))))
      .reduce((a, b) => T.add(a, b));
  const step = trainingStep(parameters, inputs, products);
  const plan = lower(step);

  it('is two kernels beside those of the gradients, in which weights and moments stay where they are', () => {
    const gradients = T.treeLeaves(valueAndGrad(products)(parameters, inputs));
    const before = lower({
      inputs: [...T.treeLeaves(parameters), ...T.treeLeaves(inputs)],
      outputs: gradients,
      donations: new Map(),
    });
    expect(plan.kernels.length - before.kernels.length).toBe(2);
    const outputs = plan.buffers.filter(({ role }) => role === 'output');
    expect(outputs.filter((buffer) => 'donated' in buffer)).toHaveLength(step.donations.size);
  });

  it('is one kernel for each parameter, and one for the scalars, on the tree itself', () => {
    const optimizer = adamW();
    const state = placeholders(optimizer.init(parameters));
    const gradients = placeholders(parameters);
    const learningRate = placeholder([], 'f32');
    const next = optimizer.update(parameters, gradients, state, { learningRate });
    const before = [...T.treeLeaves(parameters), ...T.treeLeaves(state)];
    const apart = lower({
      inputs: [...before, ...T.treeLeaves(gradients), learningRate],
      outputs: [...T.treeLeaves(next.parameters), ...T.treeLeaves(next.state)],
      donations: new Map(before.map((_, i) => [i, i])),
    });
    expect(apart.kernels).toHaveLength(301);
    expect(apart.slots.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(1024);
    expect(barriers(apart, apart.kernels).filter(Boolean)).toHaveLength(1);
  });
});

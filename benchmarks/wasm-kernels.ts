/**
 * Speed of the wasm backend's contractions: node --import tsx --conditions=@deftjs/source benchmarks/wasm-kernels.ts
 * Prints the best and the median of repeated runs, after the engine has optimised the code.
 */
import type { ContractKernel, Plan } from '../packages/tensor/src/kernel.ts';
import { openWasmNode } from '../packages/tensor/src/node/wasm.ts';
import { numel } from '../packages/tensor/src/shape.ts';
import { contiguousView, expandView, padView, permuteView, windowView } from '../packages/tensor/src/view.ts';

type Contraction = Pick<ContractKernel, 'batch' | 'm' | 'n' | 'k'> & {
  readonly a: ContractKernel['a']['view'];
  readonly b: ContractKernel['b']['view'];
};

const secondsEach = 1;

function matmul(size: number): Contraction {
  const square = contiguousView([size, size]);
  return { batch: [], m: [size], n: [size], k: [size], a: square, b: square };
}

/** 3 x 3 windows of pictures [N, C, H, H] with a border of zeros: [N, C, H, H, 3, 3]. */
function windows(pictures: number, channels: number, size: number) {
  const padded = padView(contiguousView([pictures, channels, size, size]), [0, 0, 1, 1], [0, 0, 1, 1]);
  return windowView(windowView(padded, 2, 3, 1, 1), 3, 3, 1, 1);
}

/** Forward pass; the input's gradient is the same contraction with flipped weights. */
function convolution(pictures: number, channels: number, size: number): Contraction {
  const k = [channels, 3, 3];
  const weights = contiguousView([channels, ...k]);
  return {
    batch: [pictures],
    m: [channels],
    n: [size, size],
    k,
    a: expandView({ ...weights, shape: [1, ...weights.shape], strides: [0, ...weights.strides] }, [
      pictures,
      channels,
      ...k,
    ]),
    b: permuteView(windows(pictures, channels, size), [0, 1, 4, 5, 2, 3]),
  };
}

function weightGradient(pictures: number, channels: number, size: number): Contraction {
  return {
    batch: [],
    m: [channels],
    n: [channels, 3, 3],
    k: [pictures, size, size],
    a: permuteView(contiguousView([pictures, channels, size, size]), [1, 0, 2, 3]),
    b: permuteView(windows(pictures, channels, size), [0, 2, 3, 1, 4, 5]),
  };
}

function planOf({ a, b, ...extents }: Contraction, lengths: readonly [number, number]): Plan {
  const outputLength = numel([...extents.batch, ...extents.m, ...extents.n]);
  const kernel: ContractKernel = {
    kind: 'contract',
    label: 'benchmark',
    ...extents,
    bindings: [
      { buffer: 0, dtype: 'f32' },
      { buffer: 1, dtype: 'f32' },
    ],
    a: { binding: 0, view: a },
    b: { binding: 1, view: b },
    output: { buffer: 2, dtype: 'f32', expr: { kind: 'folded', type: 'f32' } },
  };
  return {
    kernels: [kernel],
    buffers: [
      { dtype: 'f32', length: lengths[0], role: 'input', index: 0 },
      { dtype: 'f32', length: lengths[1], role: 'input', index: 1 },
      { dtype: 'f32', length: outputLength, role: 'output', index: 0 },
    ],
    slots: [],
    inputs: [0, 1],
    outputs: [2],
  };
}

const device = await openWasmNode();
console.log(device.description);

async function measure(
  name: string,
  contraction: Contraction,
  lengths: readonly [number, number],
): Promise<void> {
  const program = await device.preparePlan(planOf(contraction, lengths));
  const inputs = lengths.map((length) => device.upload('f32', new Float32Array(length).fill(0.5)));
  const times: number[] = [];
  const began = performance.now();
  while (performance.now() - began < 1000 * secondsEach || times.length < 5) {
    const start = performance.now();
    program.run(inputs)[0]!.dispose();
    times.push(performance.now() - start);
  }
  times.sort((x, y) => x - y);
  const { batch, m, n, k } = contraction;
  const rate = (ms: number) => ((2 * numel([...batch, ...m, ...n, ...k])) / ms / 1e6).toFixed(1);
  const [best, median] = [times[0]!, times[times.length >> 1]!];
  console.log(`${name}: best ${rate(best)} GFLOP/s (${best.toFixed(2)} ms), median ${rate(median)} GFLOP/s`);
  for (const input of inputs) input.dispose();
  program.dispose();
}

for (const size of [256, 512, 1024]) {
  await measure(`matmul ${size}`, matmul(size), [size * size, size * size]);
}
for (const [pictures, channels, size] of [
  [16, 64, 16],
  [16, 128, 8],
] as const) {
  const name = `conv 3x3 N${pictures} C${channels} ${size}x${size}`;
  const [weights, pixels] = [channels * channels * 9, pictures * channels * size * size];
  await measure(`${name} forward`, convolution(pictures, channels, size), [weights, pixels]);
  await measure(`${name} weight gradient`, weightGradient(pictures, channels, size), [pixels, pixels]);
}
await device.close();

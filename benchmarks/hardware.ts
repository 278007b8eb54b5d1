/**
 * How near the kernels come to what a GPU can do: `npm run bench:hardware`. Each figure is the best of several profiles
 * of one function (see `Program.profile`), against ceilings measured in the same process.
 */
import { valueAndGrad } from '@deftjs/autograd';
import { attention, compile, conv2d, matmul, mul, permute, sum, type Tensor, zeros } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import type { WebGPUDevice } from '../packages/tensor/src/webgpu/device.ts';
import { timeLaunch } from '../packages/tensor/src/webgpu/time.ts';

const PROFILES = 5;

const { device: opened, why } = await openDevice('webgpu');
const device = opened as WebGPUDevice;
console.log(why);

/** Milliseconds of all kernels of the function, at best. */
async function best(fn: (...x: Tensor[]) => Tensor | readonly Tensor[], ...x: Tensor[]): Promise<number> {
  const compiled = compile(fn as (...x: Tensor[]) => Tensor[], { device });
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < PROFILES; i += 1) {
    const times = await compiled.profile(...x);
    least = Math.min(
      least,
      times.reduce((total, { milliseconds }) => total + milliseconds, 0),
    );
  }
  compiled.dispose();
  return least;
}

/** TFLOP/s of fused multiply-adds in registers; `step` is one of them, of `sums` independent sums. */
async function ceiling(sums: number, step: (i: number) => string): Promise<number> {
  const [turns, groups, lanes] = [2048, 4224, 256];
  const all = Array.from({ length: sums }, (_, i) => i);
  const once = all.map(step).join(' ');
  const wgsl = `@group(0) @binding(0) var<storage, read_write> x: array<vec4f>;
@compute @workgroup_size(${lanes}) fn main(@builtin(global_invocation_id) id: vec3u) {
  let s = x[id.x % 64u]; let t = x[id.x % 64u + 64u];
  let q = array<vec4f, 4>(s, x[id.x % 64u + 128u], x[id.x % 64u + 192u], x[id.x % 64u + 256u]);
  ${all.map((i) => `var a${i} = s * ${i + 1}.0;`).join(' ')}
  for (var k = 0u; k < ${turns}u; k += 4u) { ${once} ${once} ${once} ${once} }
  x[id.x % 4096u] = ${all.map((i) => `a${i}`).join(' + ')};
}`;
  const bindings = [{ place: 0, page: 0, startBytes: 0, bytes: 65536, written: true }];
  const launch = { label: 'ceiling', description: '', wgsl, bindings, workgroups: [groups, 1, 1] as const };
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < PROFILES; i += 1) least = Math.min(least, await timeLaunch(device, launch));
  return (groups * lanes * sums * turns * 4 * 2) / least / 1e9;
}

const row = (name: string, value: string, note = ''): void => {
  console.log(`${name.padEnd(52)} ${value.padEnd(18)} ${note}`);
};
const rate = (flops: number, milliseconds: number): number => flops / milliseconds / 1e9;
const percent = (part: number): string => `${(100 * part).toFixed(0)} %`;

const twoOperands = await ceiling(8, (i) => `a${i} = fma(a${i}, t, a${i});`);
const outer = await ceiling(16, (i) => `a${i} = fma(vec4f(t[${i % 4}]), q[${i >> 2}], a${i});`);
row('f32 ceiling, a = a t + a', `${twoOperands.toFixed(1)} TFLOP/s`);
row('f32 ceiling, a = s t + a, as products are', `${outer.toFixed(1)} TFLOP/s`);

for (const n of [512, 1024, 2048, 4096]) {
  const flops = 2 * n ** 3;
  const [a, b] = [zeros([n, n]), zeros([n, n])];
  const [p, q] = [zeros([n, n], 'f16'), zeros([n, n], 'f16')];
  const full = rate(flops, await best((x, y) => matmul(x!, y!), a, b));
  const half = rate(flops, await best((x, y) => matmul(x!, y!), p, q));
  const turned = rate(flops, await best((x, y) => matmul(x!, permute(y!, [1, 0])), p, q));
  row(
    `matmul ${n}, f32`,
    `${full.toFixed(1)} TFLOP/s`,
    `${percent(full / twoOperands)} of the first ceiling, ${percent(full / outer)} of the second`,
  );
  row(
    `matmul ${n}, f16`,
    `${half.toFixed(1)} TFLOP/s`,
    `${(half / full).toFixed(2)} x f32; second operand turned: ${turned.toFixed(1)}`,
  );
}

for (const [n, channels, side] of [
  [4, 64, 32],
  [1, 320, 32],
  [4, 320, 64],
] as const) {
  const flops = 2 * n * side ** 2 * channels ** 2 * 9;
  const x = zeros([n, channels, side, side]);
  const w = zeros([channels, channels, 3, 3]);
  const g = zeros([n, channels, side, side]);
  const conv = (x_: Tensor, w_: Tensor): Tensor => conv2d(x_, w_, null, { padding: 1 });
  const byImage = (x_: Tensor, w_: Tensor, g_: Tensor): Tensor =>
    valueAndGrad((own: Tensor) => sum(mul(conv(own, w_), g_)))(x_).gradient;
  const byWeight = (x_: Tensor, w_: Tensor, g_: Tensor): Tensor =>
    valueAndGrad((own: Tensor) => sum(mul(conv(x_, own), g_)))(w_).gradient;
  const [pixels, taps] = [n * side ** 2, channels * 9];
  const [tall, wide, grown] = [zeros([channels, taps]), zeros([taps, pixels]), zeros([channels, pixels])];
  const same = rate(flops, await best((a, b) => matmul(a!, b!), tall, wide));
  const turned = rate(flops, await best((a, b) => matmul(a!, permute(b!, [1, 0])), grown, wide));
  const passes = [
    ['forward', await best((a, b) => conv(a!, b!), x, w), same],
    ['backward, image', await best((a, b, c) => byImage(a!, b!, c!), x, w, g), same],
    ['backward, weight', await best((a, b, c) => byWeight(a!, b!, c!), x, w, g), turned],
  ] as const;
  for (const [pass, milliseconds, product] of passes) {
    const own = rate(flops, milliseconds);
    row(
      `conv 3x3 N${n} C${channels} ${side}x${side}, ${pass}`,
      `${own.toFixed(1)} TFLOP/s`,
      `${percent(own / product)} of the same matmul (${product.toFixed(1)})`,
    );
  }
}

for (const shape of [
  [2, 8, 1024, 64],
  [1, 16, 4096, 64],
]) {
  const [q, k, v, g] = [zeros(shape), zeros(shape), zeros(shape), zeros(shape)];
  const forward = await best((a, b, c) => attention(a!, b!, c!), q, k, v);
  const gradient = (...x: Tensor[]): readonly Tensor[] =>
    valueAndGrad((own: Tensor[]) => sum(mul(attention(own[0]!, own[1]!, own[2]!), x[3]!)))(x.slice(0, 3))
      .gradient;
  const both = await best(gradient, q, k, v, g);
  const flops = 4 * shape[0]! * shape[1]! * shape[2]! ** 2 * shape[3]!;
  row(
    `attention ${shape.join('x')}, forward`,
    `${rate(flops, forward).toFixed(1)} TFLOP/s`,
    `${forward.toFixed(3)} ms`,
  );
  row(
    `attention ${shape.join('x')}, backward`,
    `${rate(2.5 * flops, both - forward).toFixed(1)} TFLOP/s`,
    `${((both - forward) / forward).toFixed(2)} x forward`,
  );
}
await device.close();

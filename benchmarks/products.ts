/**
 * f32 products of n x n matrices written by hand, to see what WGSL can reach on a GPU and what each choice costs:
 *
 *     node --import tsx --conditions=@deftjs/source benchmarks/products.ts [N]...
 *
 * All have the structure of the large tiles of sharedTile.ts (128 x 128, 256 invocations of 8 x 8, panels of some steps in
 * workgroup memory, the next ones on their way); n must be a multiple of 128. Figures: benchmarks/results/2026-11-27-h200.md.
 */
import { compile, matmul, zeros } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import type { WebGPUDevice } from '../packages/tensor/src/webgpu/device.ts';
import { timeLaunch } from '../packages/tensor/src/webgpu/time.ts';

interface Variant {
  /** How the fetch after the last panel is left out: tested for, done again, or the last panel's turn apart. */
  readonly end: 'tested' | 'again' | 'apart';
  /** Steps of a panel, and those written out one by one. */
  readonly steps: 8 | 16;
  readonly written: 1 | 2 | 4 | 8 | 16;
  /** A subgroup's invocations: 8 columns by 4 rows, or 16 by 2. */
  readonly lanes: 'blocks' | 'rows';
}

const landed: Variant = { end: 'tested', steps: 16, written: 16, lanes: 'blocks' };
const variants: readonly Partial<Variant>[] = [
  {},
  { written: 1 },
  { written: 4 },
  { written: 8 },
  { steps: 8, written: 8 },
  { end: 'again' },
  { end: 'apart' },
  { end: 'apart', written: 4 },
  { lanes: 'rows' },
];

/** Quads from one step of a panel to the next. */
const STRIDE = 33;
const range = (length: number): number[] => [...Array(length).keys()];

function productOf(n: number, { end, steps, written, lanes }: Variant): string {
  const [row, across, last] = [n / 4, n / 128, n - steps];
  const each = steps / 8; // quads that an invocation fetches of a panel
  const rowsAtOnce = 1024 / steps;
  const fetch = (k: string): string[] =>
    range(each).flatMap((i) => [
      `nextA${i} = a[(top + rowA + ${i * rowsAtOnce}u) * ${row}u + (${k}) / 4u + quadA];`,
      `nextB${i} = b[(${k} + stepB + ${8 * i}u) * ${row}u + first / 4u + quadB];`,
    ]);
  const store = range(each).flatMap((i) => [
    ...['x', 'y', 'z', 'w'].map((c, j) => {
      const place = `(rowA + ${i * rowsAtOnce}u)`;
      return `panelA[(quadA * 4u + ${j}u) * ${STRIDE}u + ${place} / 4u][${place} % 4u] = nextA${i}.${c};`;
    }),
    `panelB[(stepB + ${8 * i}u) * ${STRIDE}u + quadB] = nextB${i};`,
  ]);
  const step = (at: string): string[] => [
    '{',
    ...[0, 16].map((c, i) => `let b${i} = panelB[${at} * ${STRIDE}u + x + ${c}u];`),
    ...[0, 16].map((r, i) => `let a${i} = panelA[${at} * ${STRIDE}u + y + ${r}u];`),
    ...range(8).flatMap((r) =>
      [0, 1].map((c) => `c${r}_${c} = fma(vec4f(a${r >> 2}[${r & 3}]), b${c}, c${r}_${c});`),
    ),
    '}',
  ];
  const multiply =
    written === steps
      ? range(steps).flatMap((s) => step(`${s}u`))
      : [
          `for (var s = 0u; s < ${steps}u; s += ${written}u) {`,
          ...range(written).flatMap((s) => step(`(s + ${s}u)`)),
          '}',
        ];
  const barrier = 'workgroupBarrier();';
  const ahead = {
    tested: [`if (k < ${last}u) {`, ...fetch(`k + ${steps}u`), '}'],
    again: [`let after = min(k + ${steps}u, ${last}u);`, ...fetch('after')],
    apart: fetch(`k + ${steps}u`),
  };
  const turn = (fetched: readonly string[]): string[] => [
    ...store,
    barrier,
    ...fetched,
    ...multiply,
    barrier,
  ];
  const tests = range(8).flatMap((r) =>
    [0, 1].map((c) => {
      const [at, column] = [`top + y * 4u + ${(r >> 2) * 64 + (r & 3)}u`, `first + x * 4u + ${64 * c}u`];
      return `if (${at} < ${n}u && ${column} < ${n}u) { c[(${at}) * ${row}u + (${column}) / 4u] = c${r}_${c}; }`;
    }),
  );
  const [x, y] =
    lanes === 'blocks'
      ? ['lane / 32u % 2u * 8u + lane % 8u', 'lane / 64u * 4u + lane / 8u % 4u']
      : ['lane % 16u', 'lane / 16u'];
  return [
    '@group(0) @binding(0) var<storage, read> a: array<vec4f>;',
    '@group(0) @binding(1) var<storage, read> b: array<vec4f>;',
    '@group(0) @binding(2) var<storage, read_write> c: array<vec4f>;',
    `var<workgroup> panelA: array<vec4f, ${steps * STRIDE}>;`,
    `var<workgroup> panelB: array<vec4f, ${steps * STRIDE}>;`,
    '@compute @workgroup_size(256)',
    'fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {',
    `let first = group.x % ${across}u * 128u;`,
    `let top = group.x / ${across}u * 128u;`,
    `let x = ${x};`,
    `let y = ${y};`,
    `let quadA = lane % ${steps / 4}u;`,
    `let rowA = lane / ${steps / 4}u;`,
    'let quadB = lane % 32u;',
    'let stepB = lane / 32u;',
    ...range(8).flatMap((r) => [0, 1].map((c) => `var c${r}_${c} = vec4f();`)),
    ...range(each).flatMap((i) => [`var nextA${i} = vec4f();`, `var nextB${i} = vec4f();`]),
    ...fetch('0u'),
    `for (var k = 0u; k ${end === 'apart' ? '<' : '<='} ${last}u; k += ${steps}u) {`,
    ...turn(ahead[end]),
    '}',
    ...(end === 'apart' ? turn([]) : []),
    ...tests,
    '}',
  ].join('\n');
}

const { device: opened, why } = await openDevice('webgpu');
const device = opened as WebGPUDevice;
console.log(why);
const sizes = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [2048, 4096];
for (const n of sizes) {
  const rate = (milliseconds: number): string => `${((2 * n ** 3) / milliseconds / 1e9).toFixed(1)} TFLOP/s`;
  const own = compile(matmul, { device });
  const [time] = await own.profile(zeros([n, n]), zeros([n, n]));
  console.log(`${n}  ${'this engine'.padEnd(40)} ${rate(time!.milliseconds)}`);
  own.dispose();
  const bindings = [0, 1, 2].map((place) => {
    return { place, page: 0, startBytes: 0, bytes: 4 * n * n, written: place === 2 };
  });
  for (const variant of variants) {
    const wgsl = productOf(n, { ...landed, ...variant });
    const workgroups = [(n / 128) ** 2, 1, 1] as const;
    const took = await timeLaunch(device, { label: 'product', description: '', wgsl, bindings, workgroups });
    console.log(`${n}  ${(JSON.stringify(variant) as string).padEnd(40)} ${rate(took)}`);
  }
}
await device.close();

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encode, type HostArray, toHalfBits } from '../../../packages/tensor/src/dtype.ts';
import { DeviceError, DisposedError, DTypeError } from '../../../packages/tensor/src/errors.ts';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import { contiguousView, permuteView } from '../../../packages/tensor/src/view.ts';
import type { WasmDevice } from '../../../packages/tensor/src/wasm/index.ts';
import { runPlan } from '../webgpu/agreement.ts';
import { binary, cast, constant, folded, noise, PlanBuilder, unary } from '../webgpu/plans.ts';

let device: WasmDevice;
beforeAll(async () => {
  device = await openWasmNode({ threads: 2 });
});
afterAll(() => device.close());

/** y = x + 1 of `length` numbers, in place of x where donated. */
function increment(length: number, donated = false) {
  const builder = new PlanBuilder();
  const x = builder.load(builder.input('f32', noise(length, 1)), [length]);
  const buffer = builder.output('f32', length, donated ? 0 : undefined);
  const outputs = [{ dtype: 'f32' as const, buffer, expr: binary('add', x, constant(1)) }];
  builder.kernel({ kind: 'map', label: 'add', shape: [length], outputs });
  return builder.build();
}

/** Kernels of every kind that depend on each other, big enough for many chunks. */
function manyChunks() {
  const builder = new PlanBuilder();
  const n = 200;
  const left = builder.input('f32', noise(n * n, 2));
  const product = builder.temporary('f32', n * n);
  const a = builder.bind(left);
  const b = builder.bind(left);
  builder.kernel({
    kind: 'contract',
    label: 'square',
    batch: [],
    m: [n],
    n: [n],
    k: [n],
    a: { binding: a, view: contiguousView([n, n]) },
    b: { binding: b, view: permuteView(contiguousView([n, n]), [1, 0]) },
    output: { dtype: 'f32', buffer: product, expr: unary('tanh', folded()) },
  });
  const total = builder.output('f32', 1);
  builder.kernel({
    kind: 'reduce',
    label: 'sum',
    shape: [],
    reduced: [n * n],
    fold: 'sum',
    body: builder.load(product, [n * n]),
    output: { dtype: 'f32', buffer: total, expr: folded() },
  });
  const columns = builder.output('f32', n);
  builder.kernel({
    kind: 'reduce',
    label: 'columns',
    shape: [n],
    reduced: [n],
    fold: 'sum',
    body: builder.load(product, permuteView(contiguousView([n, n]), [1, 0])),
    output: { dtype: 'f32', buffer: columns, expr: folded() },
  });
  const scaled = builder.output('f32', n * n);
  const factor = builder.load(total, { shape: [n * n], offset: 0, strides: [0], guards: [] });
  const expr = binary('mul', builder.load(product, [n * n]), factor);
  builder.kernel({
    kind: 'map',
    label: 'scale',
    shape: [n * n],
    outputs: [{ dtype: 'f32', buffer: scaled, expr }],
  });
  return builder.build();
}

test('results do not depend on the number of threads, to the bit', async () => {
  const { plan, values } = manyChunks();
  const single = await openWasmNode({ threads: 1 });
  const expected = await runPlan(single, plan, values);
  await single.close();
  for (let repetition = 0; repetition < 3; repetition += 1) {
    const results = await runPlan(device, plan, values);
    results.forEach((result, o) => {
      const differences = result.filter((x, i) => !Object.is(x, expected[o]![i]));
      expect(differences).toHaveLength(0);
    });
  }
});

test('a program can be run again and again', async () => {
  const { plan, values } = manyChunks();
  const program = await device.preparePlan(plan);
  const input = device.upload('f32', values[0]!);
  const first = program.run([input]);
  const expected = await Promise.all(first.map((output) => device.read(output)));
  for (let repetition = 0; repetition < 20; repetition += 1) {
    const outputs = program.run([input]);
    expect(await device.read(outputs[0]!)).toEqual(expected[0]);
    for (const output of outputs) output.dispose();
  }
  for (const storage of [input, ...first]) storage.dispose();
  program.dispose();
});

test('a sum of four million numbers is right to 1e-6', async () => {
  const length = 2 ** 22;
  const builder = new PlanBuilder();
  const values = noise(length, 7).map((x) => 1 + x / 8);
  const body = builder.load(builder.input('f32', values), [length]);
  const buffer = builder.output('f32', 1);
  const output = { dtype: 'f32' as const, buffer, expr: folded() };
  builder.kernel({ kind: 'reduce', label: 'sum', shape: [], reduced: [length], fold: 'sum', body, output });
  const { plan, values: inputs } = builder.build();
  const exact = (inputs[0] as Float32Array).reduce((sum: number, x) => sum + x, 0);
  const [sum] = await runPlan(device, plan, inputs);
  expect(Math.abs(sum![0]! / exact - 1)).toBeLessThan(1e-6);
});

test('every half-precision number goes through f32 unchanged, and rounding is to even', async () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter(
    (bits) => (bits & 0x7c00) !== 0x7c00 || (bits & 0x3ff) === 0,
  );
  const midpoints = Float32Array.from(
    { length: 4096 },
    (_, i) => (1 + (2 * i + 1) / 2048) * 2 ** ((i % 40) - 26),
  );
  const builder = new PlanBuilder();
  const copies = [
    { dtype: 'f16' as const, values: all as HostArray, length: all.length },
    { dtype: 'f32' as const, values: midpoints as HostArray, length: midpoints.length },
  ];
  for (const { dtype, length } of copies) {
    const x = builder.load(builder.input(dtype, new Float32Array(length)), [length]);
    const outputs = [{ dtype: 'f16' as const, buffer: builder.output('f16', length), expr: x }];
    builder.kernel({ kind: 'map', label: 'copy', shape: [length], outputs });
  }
  const { plan } = builder.build();
  const program = await device.preparePlan(plan);
  const inputs = copies.map(({ dtype, values }) => device.upload(dtype, values));
  const [same, rounded] = program.run(inputs);
  expect(await device.read(same!)).toEqual(all);
  expect(await device.read(rounded!)).toEqual(Uint16Array.from(midpoints, toHalfBits));
  for (const storage of [...inputs, same!, rounded!]) storage.dispose();
  program.dispose();
});

test('integers divide towards zero, by 0 to 0, and wrap', async () => {
  const least = -(2 ** 31);
  const x = [7, -7, 7, -7, 5, least, least, 2 ** 31 - 1];
  const y = [2, 2, -2, -2, 0, -1, 0, 1];
  const builder = new PlanBuilder();
  const load = (values: number[]) => builder.load(builder.input('i32', values), [values.length]);
  const [a, b] = [load(x), load(y)];
  const outputs = (['div', 'mod', 'add'] as const).map((op) => ({
    dtype: 'i32' as const,
    buffer: builder.output('i32', x.length),
    expr: binary(op, a, b),
  }));
  builder.kernel({ kind: 'map', label: 'integers', shape: [x.length], outputs });
  const { plan, values } = builder.build();
  const [quotient, remainder, sum] = await runPlan(device, plan, values);
  expect([...quotient!]).toEqual([3, -3, -3, 3, 0, least, 0, 2 ** 31 - 1]);
  expect([...remainder!]).toEqual([1, -1, 1, -1, 0, 0, 0, 0]);
  expect([...sum!]).toEqual(x.map((value, i) => (value + y[i]!) | 0));
});

test('floats become integers by truncation and saturate', async () => {
  const x = [1.9, -1.9, 3e9, -3e9, 5e9, Number.NaN, Number.POSITIVE_INFINITY];
  const builder = new PlanBuilder();
  const float = builder.load(builder.input('f32', x), [x.length]);
  const outputs = (['i32', 'u32', 'bool'] as const).map((type) => ({
    dtype: type,
    buffer: builder.output(type, x.length),
    expr: cast(type, float),
  }));
  builder.kernel({ kind: 'map', label: 'cast', shape: [x.length], outputs });
  const { plan, values } = builder.build();
  const results = await runPlan(device, plan, values);
  outputs.forEach(({ dtype }, o) => {
    expect([...results[o]!], dtype).toEqual([...encode(dtype, x.map(Math.fround))]);
  });
});

describe('memory', () => {
  test('is all given back', async () => {
    const before = device.bytesInUse;
    const { plan, values } = manyChunks();
    const program = await device.preparePlan(plan);
    expect(program.temporaryBytes).toBeGreaterThanOrEqual(4 * 200 * 200);
    const input = device.upload('f32', values[0]!);
    const outputs = program.run([input]);
    expect(device.bytesInUse).toBeGreaterThan(before + program.temporaryBytes);
    for (const storage of [input, ...outputs]) storage.dispose();
    program.dispose();
    program.dispose();
    expect(device.bytesInUse).toBe(before);
  });

  test('a donated input is the output', async () => {
    const { plan, values } = increment(1000, true);
    const program = await device.preparePlan(plan);
    const input = device.upload('f32', values[0]!);
    const inUse = device.bytesInUse;
    const [output] = program.run([input]);
    expect(output).toBe(input);
    expect(device.bytesInUse).toBe(inUse);
    expect(await device.read(output!)).toEqual((values[0] as Float32Array).map((x) => x + 1));
    input.dispose();
    program.dispose();
  });

  test('that is not there is refused with the need and the limit, and nothing is kept', async () => {
    const before = device.bytesInUse;
    const builder = new PlanBuilder();
    const length = 2 ** 29;
    for (let i = 0; i < 3; i += 1) {
      const outputs = [{ dtype: 'f32' as const, buffer: builder.output('f32', length), expr: constant(i) }];
      builder.kernel({ kind: 'map', label: 'fill', shape: [length], outputs });
    }
    const program = await device.preparePlan(builder.build().plan);
    expect(() => program.run([])).toThrow(
      new DeviceError(
        `wasm: out of memory; needs 2147483648 bytes more; got ${device.bytesInUse + 64 + 2 ** 31} bytes in use of ${device.memory.limitBytes}`,
        { need: device.bytesInUse + 64 + 2 ** 32, limit: device.memory.limitBytes },
      ),
    );
    program.dispose();
    expect(device.bytesInUse).toBe(before);
  });

  test('holds what is written to a storage', async () => {
    const storage = device.upload('i32', Int32Array.of(1, 2, 3));
    device.write(storage, Int32Array.of(4, 5, 6));
    expect(await device.read(storage)).toEqual(Int32Array.of(4, 5, 6));
    expect(() => device.write(storage, Int32Array.of(1))).toThrow(
      new DTypeError('write: expected 3 elements of i32; got 1 of a Int32Array'),
    );
    storage.dispose();
  });
});

describe('what cannot be done is refused', () => {
  test('f64', async () => {
    expect(() => device.upload('f64', new Float64Array(1))).toThrow(
      new DTypeError('upload: wasm stores f32, f16, i32, u32, bool; got f64'),
    );
    const builder = new PlanBuilder();
    builder.input('f64', [1]);
    await expect(device.preparePlan(builder.build().plan)).rejects.toThrow(
      new DTypeError('wasm: kernels compute in f32; expected f32, f16, i32, u32 or bool; got f64'),
    );
  });

  test('what was disposed', async () => {
    const { plan, values } = increment(10);
    const program = await device.preparePlan(plan);
    const input = device.upload('f32', values[0]!);
    input.dispose();
    input.dispose();
    expect(() => program.run([input])).toThrow(new DisposedError('run: the storage was disposed'));
    await expect(device.read(input)).rejects.toThrow(new DisposedError('read: the storage was disposed'));
    program.dispose();
    expect(() => program.run([input])).toThrow(new DisposedError('run: the program was disposed'));
  });

  test('inputs that the plan does not take', async () => {
    const { plan } = increment(10);
    const program = await device.preparePlan(plan);
    expect(() => program.run([])).toThrow(new DeviceError('run: expected 1 inputs; got 0'));
    const other = device.upload('i32', new Int32Array(10));
    expect(() => program.run([other])).toThrow(new DTypeError('run: input 0 must be 10 f32; got 10 i32'));
    other.dispose();
    program.dispose();
  });

  test('another device’s storage, and a closed device', async () => {
    const other = await openWasmNode({ threads: 1 });
    const storage = other.upload('f32', new Float32Array(1));
    await expect(device.read(storage)).rejects.toThrow(
      new DeviceError(`read: the storage belongs to another device (${other.description})`),
    );
    await other.close();
    await expect(other.read(storage)).rejects.toThrow(
      new DeviceError('read: the wasm device cannot be used: it was closed'),
    );
  });
});

test('a kernel that traps ends the device with an error, on whichever thread it runs', async () => {
  const lost = await openWasmNode({ threads: 2 });
  const builder = new PlanBuilder();
  const length = 100_000;
  // Elements from 2^16 on lie beyond the memory.
  const x = builder.load(builder.input('f32', [1]), {
    shape: [length],
    offset: 0,
    strides: [2 ** 14],
    guards: [],
  });
  const outputs = [{ dtype: 'f32' as const, buffer: builder.output('f32', length), expr: x }];
  builder.kernel({ kind: 'map', label: 'wild', shape: [length], outputs });
  const { plan, values } = builder.build();
  const program = await lost.preparePlan(plan);
  const input = lost.upload('f32', values[0]!);
  expect(() => program.run([input])).toThrow(DeviceError);
  expect(() => program.run([input])).toThrow(/^run: the wasm device cannot be used: a kernel trapped/);
  await lost.close();
});

test('explain has a line for each kernel with its size', async () => {
  const { plan } = manyChunks();
  const program = await device.preparePlan(plan);
  const lines = program.explain().split('\n');
  expect(lines[0]).toMatch(
    /^0 contract square: batch \[\] m \[200\] n \[200\] k \[200\], 16 Mflop, .* chunks$/,
  );
  expect(lines.slice(1, 4).map((line) => line.split(':')[0])).toEqual([
    '1 reduce sum',
    '2 reduce columns',
    '3 map scale',
  ]);
  expect(lines).toContain('// 0 square');
  expect(program.kernelCount).toBe(4);
  program.dispose();
});

test('the number of threads can be set in the environment', async () => {
  process.env.DEFT_THREADS = '3';
  const three = await openWasmNode();
  expect(three.threads).toBe(3);
  await three.close();
  process.env.DEFT_THREADS = 'many';
  await expect(openWasmNode()).rejects.toThrow(
    new Error('DEFT_THREADS: expected a whole number >= 1; got many'),
  );
  delete process.env.DEFT_THREADS;
});

import { DeviceError, DisposedError, DTypeError } from '@deftjs/tensor';
import { afterEach, expect, test } from 'vitest';
import type { Plan } from '../../../packages/tensor/src/kernel.ts';
import { openWebGPUNode } from '../../../packages/tensor/src/node/webgpu.ts';
import {
  openWebGPU,
  type WebGPUDevice,
  type WebGPUOptions,
} from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { expectAgreement, runPlan } from './agreement.ts';
import { binary, constant, folded, noise, PlanBuilder, unary } from './plans.ts';

const opened: WebGPUDevice[] = [];
async function open(options: WebGPUOptions = {}): Promise<WebGPUDevice> {
  const device = await openWebGPU((await testAdapter()).adapter, options);
  opened.push(device);
  return device;
}
afterEach(async () => {
  await Promise.all(opened.splice(0).map((device) => device.close()));
});

/** -x of one input, with the label. */
function negation(length: number, label = 'negation'): { plan: Plan; values: Float32Array } {
  const builder = new PlanBuilder();
  const values = Float32Array.from(noise(length, 1));
  const expr = unary('neg', builder.load(builder.input('f32', values), [length]));
  builder.kernel({
    kind: 'map',
    label,
    shape: [length],
    outputs: [{ dtype: 'f32', expr, buffer: builder.output('f32', length) }],
  });
  return { plan: builder.build().plan, values };
}

/** A training step in small: state' = state - 0.1 sum(state * x), with a temporary, state donated. */
function step(length: number): Plan {
  const builder = new PlanBuilder();
  const state = builder.input('f32', new Float32Array(length));
  const x = builder.input('f32', new Float32Array(length));
  const total = builder.temporary('f32', 1);
  const product = binary('mul', builder.load(state, [length]), builder.load(x, [length]));
  builder.kernel({
    kind: 'reduce',
    label: 'dot',
    shape: [],
    reduced: [length],
    fold: 'sum',
    body: product,
    output: { dtype: 'f32', expr: folded(), buffer: total },
  });
  const sum = builder.load(total, { shape: [length], offset: 0, strides: [0], guards: [] });
  const expr = binary('sub', builder.load(state, [length]), binary('mul', constant(0.1), sum));
  const output = builder.output('f32', length, 0);
  builder.kernel({
    kind: 'map',
    label: 'update',
    shape: [length],
    outputs: [{ dtype: 'f32', expr, buffer: output }],
  });
  return builder.build().plan;
}

describeWebGPU('programs', () => {
  test('a thousand runs create no buffer, no bind group and no pipeline', async () => {
    const device = await open();
    const { plan, values } = negation(1000);
    const [negate, update] = await Promise.all([device.preparePlan(plan), device.preparePlan(step(1000))]);
    const x = device.upload('f32', values);
    let state = device.upload('f32', values);
    const run = () => {
      negate.run([x])[0]!.dispose();
      [state] = update.run([state, x]) as [typeof state];
    };
    for (let i = 0; i < 3; i += 1) run();
    const before = device.statistics;
    for (let i = 0; i < 1000; i += 1) run();
    await device.idle();
    expect(device.statistics).toEqual({
      ...before,
      submits: before.submits + 2000,
      dispatches: before.dispatches + 3000,
    });
  });

  test('storages that take turns meet their old bind groups', async () => {
    const device = await open();
    const { plan, values } = negation(64);
    const program = await device.preparePlan(plan);
    const inputs = [device.upload('f32', values), device.upload('f32', values), device.upload('f32', values)];
    const turn = () => inputs.map((input) => program.run([input])[0]!);
    for (const output of turn()) output.dispose();
    for (const output of turn().reverse()) output.dispose();
    const before = device.statistics.bindGroupsCreated;
    expect(before).toBeLessThanOrEqual(9);
    for (let i = 0; i < 20; i += 1) for (const output of turn().reverse()) output.dispose();
    expect(device.statistics.bindGroupsCreated).toBeLessThanOrEqual(9);
    await device.idle();
  });

  test('kernels of one text share a pipeline', async () => {
    const device = await open();
    const builder = new PlanBuilder();
    for (let i = 0; i < 5; i += 1) {
      const x = builder.load(builder.input('f32', noise(8, i)), [8]);
      const output = { dtype: 'f32', expr: unary('abs', x), buffer: builder.output('f32', 8) } as const;
      builder.kernel({ kind: 'map', label: `abs ${i}`, shape: [8], outputs: [output] });
    }
    const { plan, values } = builder.build();
    const results = await runPlan(device, plan, values);
    expect(results).toEqual(values.map((x) => Float64Array.from(x, Math.abs)));
    expect(device.statistics).toMatchObject({ pipelinesCreated: 1, dispatches: 5 });
  });

  test('workgroups beyond the limit of one dimension go into the second', async () => {
    const device = await open({ capabilities: { maxWorkgroupsPerDimension: 3 } });
    const { plan, values } = negation(10_007);
    const program = await device.preparePlan(plan);
    expect(program.explain()).toMatch(/^negation: map 10007, 10 kflop, 80.1 kB, 3x\d+ workgroups$/m);
    const [result] = await runPlan(device, plan, [values]);
    expect(result).toEqual(Float64Array.from(values, (x) => -x));
  });

  test('a donated storage becomes the output, and its old handle is gone', async () => {
    const device = await open();
    const program = await device.preparePlan(step(5));
    const state = device.upload('f32', Float32Array.of(1, 2, 3, 4, 5));
    const x = device.upload('f32', Float32Array.of(1, 0, 0, 0, 1));
    const held = device.bytesInUse;
    const [next] = program.run([state, x]);
    expect(device.bytesInUse).toBe(held);
    const sum = Math.fround(0.6);
    expect(await device.read(next!)).toEqual(Float32Array.of(1, 2, 3, 4, 5).map((v) => v - sum));
    expect(state.disposed).toBe(true);
    await expect(device.read(state)).rejects.toThrow(
      new DisposedError('read: the storage was disposed or donated'),
    );
    expect(() => program.run([next!, next!])).toThrow(
      new DeviceError('run: input 0 is donated and given a second time'),
    );
  });

  test('a kernel reads and writes one slot', async () => {
    const device = await open();
    const length = 30;
    await expectAgreement(device, [
      (builder) => {
        const slot = 0;
        const first = builder.temporary('f32', length, slot);
        const x = builder.load(builder.input('f32', noise(length, 3)), [length]);
        builder.kernel({
          kind: 'map',
          label: 'first',
          shape: [length],
          outputs: [{ dtype: 'f32', expr: unary('sin', x), buffer: first }],
        });
        const second = builder.temporary('i32', length, slot);
        const scaled = binary('mul', builder.load(first, [length]), constant(100));
        builder.kernel({
          kind: 'map',
          label: 'second',
          shape: [length],
          outputs: [{ dtype: 'i32', expr: { kind: 'cast', type: 'i32', x: scaled }, buffer: second }],
        });
        const output = builder.output('i32', length);
        builder.kernel({
          kind: 'map',
          label: 'third',
          shape: [length],
          outputs: [{ dtype: 'i32', expr: builder.load(second, [length]), buffer: output }],
        });
      },
    ]);
  });

  test('long folds and deep contractions are computed in parts', async () => {
    const device = await open();
    const kernels = (builder: PlanBuilder) => {
      const long = builder.input('f32', noise(9001, 1)); // no divisor near: the last part is short
      const body = unary('exp', builder.load(long, [9001]));
      builder.kernel({
        kind: 'reduce',
        label: 'long',
        shape: [],
        reduced: [9001],
        fold: 'sum',
        body,
        output: {
          dtype: 'f32',
          expr: binary('mul', folded(), constant(1e-4)),
          buffer: builder.output('f32', 1),
        },
      });
      const most = builder.load(long, [9001]);
      builder.kernel({
        kind: 'reduce',
        label: 'most',
        shape: [],
        reduced: [9001],
        fold: 'max',
        body: binary('sub', most, constant(10)),
        output: { dtype: 'f16', expr: folded(), buffer: builder.output('f16', 1) },
      });
      const [k, m, n] = [1537, 3, 5];
      const a = builder.bind(builder.input('f32', noise(m * k, 2)));
      const b = builder.bind(builder.input('f32', noise(k * n, 3)));
      const view = (shape: number[], strides: number[]) => ({ shape, strides, offset: 0, guards: [] });
      builder.kernel({
        kind: 'contract',
        label: 'deep',
        batch: [],
        m: [m],
        n: [n],
        k: [k],
        a: { binding: a, view: view([m, k], [k, 1]) },
        b: { binding: b, view: view([k, n], [1, k]) },
        output: { dtype: 'f32', expr: folded(), buffer: builder.output('f32', m * n) },
      });
    };
    const builder = new PlanBuilder();
    kernels(builder);
    const program = await device.preparePlan(builder.build().plan);
    // A GPU computes folds of so few terms in one stage.
    expect(program.kernelCount).toBe(device.capabilities.software ? 6 : 4);
    program.dispose();
    await expectAgreement(device, [kernels]);
  });

  test('a map with more outputs than the device binds becomes several kernels', async () => {
    const device = await open({ capabilities: { maxStorageBuffers: 5 } });
    await expectAgreement(device, [
      (builder) => {
        const inputs = [1, 2, 3].map((seed) => builder.load(builder.input('f32', noise(20, seed)), [20]));
        const outputs = inputs.map((x, i) => ({
          dtype: 'f32' as const,
          expr: binary('add', x, inputs[(i + 1) % 3]!),
          buffer: builder.output('f32', 20),
        }));
        builder.kernel({ kind: 'map', label: 'many', shape: [20], outputs });
      },
    ]);
    expect(device.statistics.dispatches).toBe(2);
  });

  test('times kernels one by one, and not after disposal', async () => {
    const device = await open();
    const program = await device.preparePlan(negation(1000, 'minus').plan);
    const times = await program.profile();
    expect(times).toMatchObject([{ label: 'minus', description: 'map 1000', flops: 1000, bytes: 8000 }]);
    expect(times[0]!.milliseconds).toBeGreaterThan(0);
    program.dispose();
    await expect(program.profile()).rejects.toThrow(DisposedError);
  });

  test('explains kernels with their space, arithmetic, bytes and text', async () => {
    const device = await open();
    const explained = (await device.preparePlan(negation(1000, 'minus').plan)).explain();
    expect(explained.split('\n')[0]).toMatch(/^minus: map 1000, 1 kflop, 8 kB, \d+ workgroups$/);
    expect(explained).toContain('@compute');
  });
});

describeWebGPU('storages', () => {
  test('carry every bit of what was uploaded', async () => {
    const device = await open();
    const bits = Uint32Array.of(
      0x7fc00000,
      0x7f800001,
      0xffc12345,
      0x7f800000,
      0xff800000,
      0x80000000,
      1,
      0x7f7fffff,
    );
    const values = new Float32Array(bits.buffer);
    expect(new Uint32Array((await device.read(device.upload('f32', values))).buffer)).toEqual(bits);
    for (const [dtype, array] of [
      ['f16', Uint16Array.of(0x7e01, 0x8000, 0x0001)],
      ['i32', Int32Array.of(-(2 ** 31), 2 ** 31 - 1)],
      ['u32', Uint32Array.of(2 ** 32 - 1)],
      ['bool', Uint32Array.of(1, 0, 1)],
      ['f32', new Float32Array(0)],
    ] as const) {
      expect(await device.read(device.upload(dtype, array))).toEqual(array);
    }
  });

  test('keep their identity when they are written', async () => {
    const device = await open();
    const storage = device.upload('f16', Uint16Array.of(1, 2, 3));
    device.write(storage, Uint16Array.of(4, 5, 6));
    expect(await device.read(storage)).toEqual(Uint16Array.of(4, 5, 6));
    expect(() => device.write(storage, Uint16Array.of(1))).toThrow(
      new DTypeError('write: expected 3 f16 values in a Uint16Array; got 1 in a Uint16Array'),
    );
  });

  test('take memory that workers share', async () => {
    const device = await open();
    const shared = new Float32Array(new SharedArrayBuffer(12));
    shared.set([1, 2, 3]);
    expect(await device.read(device.upload('f32', shared))).toEqual(Float32Array.of(1, 2, 3));
  });

  test('count what they hold, and give it back', async () => {
    const device = await open();
    const { plan, values } = negation(5000);
    const program = await device.preparePlan(plan);
    const input = device.upload('f32', values);
    const [output] = program.run([input]);
    expect(device.bytesInUse).toBeGreaterThanOrEqual(40_000);
    for (const owned of [input, output!, program]) {
      owned.dispose();
      owned.dispose();
    }
    expect(device.bytesInUse).toBe(0);
    expect(() => program.run([input])).toThrow(DisposedError);
  });
});

describeWebGPU('errors', () => {
  test('name the kernel that does not fit the device', async () => {
    const device = await open({ capabilities: { maxBindingBytes: 4096, maxStorageBuffers: 2 } });
    await expect(device.preparePlan(negation(2000, 'large').plan)).rejects.toThrow(
      new DeviceError(
        'kernel "large": too many buffers; expected at most 2; got 4 (buffers of more than 4096 bytes count once for each such page)',
        { need: 4, limit: 2 },
      ),
    );
    const builder = new PlanBuilder();
    const sum = [1, 2].map((seed) => builder.load(builder.input('f32', noise(4, seed)), [4]));
    builder.kernel({
      kind: 'map',
      label: 'wide',
      shape: [4],
      outputs: [{ dtype: 'f32', expr: binary('add', sum[0]!, sum[1]!), buffer: builder.output('f32', 4) }],
    });
    await expect(device.preparePlan(builder.build().plan)).rejects.toThrow(
      new DeviceError('kernel "wide": too many buffers; expected at most 2; got 3', { need: 3, limit: 2 }),
    );
  });

  test('refuse f64', async () => {
    const device = await open();
    const builder = new PlanBuilder();
    const x = builder.load(builder.input('f64', [1, 2]), [2]);
    builder.kernel({
      kind: 'map',
      label: 'double',
      shape: [2],
      outputs: [{ dtype: 'f32', expr: x, buffer: builder.output('f32', 2) }],
    });
    await expect(device.preparePlan(builder.build().plan)).rejects.toThrow(
      new DTypeError('kernel "double": webgpu holds f32, f16, i32, u32, bool; got f64'),
    );
    expect(() => device.upload('f64', new Float64Array(2))).toThrow(DTypeError);
  });

  test('name the kernel whose text does not compile', async () => {
    const device = await open();
    const broken = { label: 'broken', wgsl: 'fn main() { nonsense }', bindings: [] };
    await expect(device.pipelines.get(broken)).rejects.toThrow(
      /^kernel "broken": did not compile; .*nonsense/s,
    );
    await device.idle();
  });

  test('that WebGPU reports on its own reach the next read, once', async () => {
    const device = await open();
    const storage = device.upload('f32', Float32Array.of(7));
    device.gpu.createBuffer({ label: 'impossible', size: 4, usage: 0x1 | 0x80 });
    await expect(device.read(storage)).rejects.toThrow(DeviceError);
    expect(await device.read(storage)).toEqual(Float32Array.of(7));
    device.gpu.createBuffer({ label: 'impossible', size: 4, usage: 0x1 | 0x80 });
    await expect(device.idle()).rejects.toThrow(/impossible/);
  });

  test('refuse inputs that do not fit', async () => {
    const [device, other] = [await open(), await open()];
    const program = await device.preparePlan(negation(4).plan);
    const right = device.upload('f32', new Float32Array(4));
    expect(() => program.run([])).toThrow(new DeviceError('run: expected 1 inputs; got 0'));
    expect(() => program.run([device.upload('f32', new Float32Array(5))])).toThrow(
      new DeviceError('run: input 0 does not fit; expected 4 x f32; got 5 x f32'),
    );
    expect(() => program.run([other.upload('f32', new Float32Array(4))])).toThrow(
      /run: the storage is on another device/,
    );
    right.dispose();
    expect(() => program.run([right])).toThrow(DisposedError);
  });

  test('of a lost device reach pending reads, and a new device opens', async () => {
    const device = await open();
    const storage = device.upload('f32', new Float32Array(1 << 20));
    const pending = [device.read(storage), device.idle()];
    device.gpu.destroy();
    const outcomes = await Promise.allSettled(pending);
    expect(outcomes[0]).toMatchObject({ status: 'rejected', reason: { name: 'DeviceError' } });
    await expect(device.read(storage)).rejects.toThrow(/^webgpu: the device is gone; destroyed/);
    expect(() => device.upload('f32', new Float32Array(1))).toThrow(DeviceError);
    const next = await open();
    expect(await next.read(next.upload('f32', Float32Array.of(3)))).toEqual(Float32Array.of(3));
  });

  test('of a closed device say so', async () => {
    for (let round = 0; round < 3; round += 1) {
      const device = await openWebGPUNode();
      const storage = device.upload('f32', Float32Array.of(round));
      expect(await device.read(storage)).toEqual(Float32Array.of(round));
      const pending = device.read(storage);
      await Promise.all([
        device.close(),
        expect(pending).rejects.toThrow(new DeviceError('webgpu: the device is gone; it was closed')),
      ]);
      await expect(device.idle()).rejects.toThrow(DeviceError);
    }
  });
});

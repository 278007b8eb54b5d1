import {
  add,
  DisposedError,
  div,
  mul,
  ShapeError,
  setDevice,
  sqrt,
  sub,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';
import { compile } from '../../../packages/tensor/src/compile.ts';
import { evaluate, item, read } from '../../../packages/tensor/src/evaluate.ts';
import { referenceDevice } from '../../../packages/tensor/src/reference.ts';

beforeAll(() => setDevice(referenceDevice()));

describe('compile', () => {
  it('calls the function once for each signature', async () => {
    let calls = 0;
    const double = compile((x: Tensor) => {
      calls += 1;
      return mul(x, 2);
    });
    expect(await read(await double(tensor([1, 2])))).toEqual(Float32Array.of(2, 4));
    expect(await read(await double(tensor([3, 4])))).toEqual(Float32Array.of(6, 8));
    expect(calls).toBe(1);
    expect(await read(await double(tensor([5])))).toEqual(Float32Array.of(10));
    expect([calls, double.signatures]).toEqual([2, 2]);
  });

  it('compiles ahead of the first call, and runs nothing', async () => {
    let calls = 0;
    const half = compile((x: Tensor) => {
      calls += 1;
      return mul(x, 0.5);
    });
    const lazy = add(tensor([1, 3]), 1);
    await half.prepare(lazy);
    expect([calls, half.signatures, lazy.source.kind]).toEqual([1, 1, 'applied']);
    expect(await read(await half(lazy))).toEqual(Float32Array.of(1, 2));
    expect(calls).toBe(1);
  });

  it('takes everything but tensors as part of the signature', async () => {
    const scaled = compile((options: { by: number; x: Tensor }) => mul(options.x, options.by));
    const x = tensor([1, 2]);
    expect(await read(await scaled({ by: 2, x }))).toEqual(Float32Array.of(2, 4));
    expect(await read(await scaled({ by: -0, x }))).toEqual(Float32Array.of(-0, -0));
    expect(await read(await scaled({ by: 0, x }))).toEqual(Float32Array.of(0, 0));
    expect(scaled.signatures).toBe(3);
  });

  it('captures what the function closes over, computed once', async () => {
    const weight = add(tensor([1, 2]), 1);
    const apply = compile((x: Tensor) => sum(mul(x, weight)));
    expect(await item(await apply(tensor([1, 1])))).toBe(5);
    expect(weight.source.kind).toBe('stored');
    weight.dispose();
    await expect(apply(tensor([1, 1]))).rejects.toThrow(DisposedError);
  });

  it('computes lazy arguments first', async () => {
    const square = compile((x: Tensor) => mul(x, x));
    expect(await read(await square(add(tensor([1, 2]), 1)))).toEqual(Float32Array.of(4, 9));
  });

  it('gives the same states with and without donation', async () => {
    type State = { m: Tensor; p: Tensor; v: Tensor };
    const step = (state: State, g: Tensor): { loss: Tensor; state: State } => {
      const m = add(mul(state.m, 0.9), mul(g, 0.1));
      const v = add(mul(state.v, 0.99), mul(mul(g, g), 0.01));
      const p = sub(state.p, mul(div(m, add(sqrt(v), 1e-8)), 0.1));
      return { loss: sum(mul(state.p, g)), state: { m, p, v } };
    };
    const initial = (): State => ({ m: tensor([0, 0]), p: tensor([1, 2]), v: tensor([0, 0]) });
    const donating = compile(step, { donate: { 0: 'state' } });
    const plain = compile(step);
    let [a, b] = [initial(), initial()];
    for (let i = 0; i < 20; i += 1) {
      const g = tensor([Math.sin(i), Math.cos(i)]);
      const [x, y] = [await donating(a, g), await plain(b, g)];
      expect(await item(x.loss)).toBe(await item(y.loss));
      expect(a.p.source.kind).toBe('gone');
      [a, b] = [x.state, y.state];
    }
    expect(await read(a.p)).toEqual(await read(b.p));
  });

  it('refuses a donated tensor that is gone or passed twice', async () => {
    const next = compile((x: Tensor, y: Tensor) => add(x, y), { donate: { 0: '' } });
    const x = add(tensor([0]), 1);
    await expect(next(x, x)).rejects.toThrow(
      'a donated tensor of shape [1] is also passed or captured elsewhere',
    );
    await next(x, tensor([2]));
    await expect(next(x, tensor([2]))).rejects.toThrow('it was donated to a compiled function');
  });

  it('refuses a donation that does not fit the result', async () => {
    const wrong = compile((x: { a: Tensor }) => ({ b: { a: sum(x.a) } }), { donate: { 0: 'b' } });
    await expect(wrong({ a: tensor([1, 2]) })).rejects.toThrow(ShapeError);
    await expect(wrong({ a: tensor([1, 2]) })).rejects.toThrow('tensors at "b.a" differ');
  });

  it('names the path of a value that no tree may hold', async () => {
    const identity = compile((x: { at: Tensor[] }) => x);
    const bad = { at: [tensor([1]), new Date(0)] } as unknown as { at: Tensor[] };
    await expect(identity(bad)).rejects.toThrow('at "0.at.1"');
  });

  it('returns tensors of their own for arguments passed through', async () => {
    const swap = compile((x: Tensor, y: Tensor) => [y, x, x] as const);
    const [x, y] = [tensor([1]), tensor([2])];
    const [a, b, c] = await swap(x, y);
    await evaluate([a, b, c]);
    b.dispose();
    expect([await item(a), await item(c), await item(x)]).toEqual([2, 1, 1]);
  });
});

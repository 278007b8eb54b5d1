import { describe, expect, it } from 'vitest';
import { Expressions, walk } from '../../../packages/tensor/src/compiler/expression.ts';
import type { BinaryFunction, Expr } from '../../../packages/tensor/src/kernel.ts';
import { contiguousView, padView, sliceView } from '../../../packages/tensor/src/view.ts';

const make = new Expressions();
const x = make.load(0, 'f32', [4]);
const i = make.load(1, 'i32', [4]);

const constant = (value: number, type: 'f32' | 'i32' | 'u32' = 'f32'): Expr => ({
  kind: 'constant',
  type,
  value,
});
const binary = (op: BinaryFunction, a: Expr, b: Expr): Expr =>
  make.of({ kind: 'binary', type: a.type, op, x: a, y: b });
const neg = (of: Expr): Expr => make.of({ kind: 'unary', type: of.type, op: 'neg', x: of });

describe('algebra on expressions', () => {
  it.each<[string, Expr, Expr]>([
    ['x * 1', binary('mul', x, constant(1)), x],
    ['1 * x', binary('mul', constant(1), x), x],
    ['x / 1', binary('div', x, constant(1)), x],
    ['x - 0', binary('sub', x, constant(0)), x],
    ['x + -0', binary('add', x, constant(-0)), x],
    ['i + 0', binary('add', i, constant(0, 'i32')), i],
    ['x * -1', binary('mul', x, constant(-1)), neg(x)],
    ['-(-x)', neg(neg(x)), x],
    ['x + -x', binary('add', x, neg(x)), binary('sub', x, x)],
    ['x - -x', binary('sub', x, neg(x)), binary('add', x, x)],
    ['x^2', binary('pow', x, constant(2)), binary('mul', x, x)],
    ['a cast to the same type', make.of({ kind: 'cast', type: 'f32', x }), x],
  ])('rewrites %s', (_, from, to) => {
    expect(from).toBe(to);
  });

  it.each<[string, Expr]>([
    ['x + 0, which turns -0 into 0', binary('add', x, constant(0))],
    ['x * 0, which is NaN at infinity', binary('mul', x, constant(0))],
    ['x - x, which is NaN at infinity', binary('sub', x, x)],
    ['x / x', binary('div', x, x)],
  ])('leaves %s', (_, expr) => {
    expect(expr.kind).toBe('binary');
  });

  it('folds constants as the type computes them', () => {
    const folded = (op: BinaryFunction, a: Expr, b: Expr) => {
      const expr = binary(op, a, b);
      return expr.kind === 'constant' ? expr.value : expr;
    };
    expect(folded('div', constant(1), constant(3))).toBe(Math.fround(1 / 3));
    expect(folded('mul', constant(0x10001, 'u32'), constant(0x10001, 'u32'))).toBe(0x20001);
    expect(folded('add', constant(2 ** 31 - 1, 'i32'), constant(1, 'i32'))).toBe(-(2 ** 31));
    expect(folded('div', constant(-7, 'i32'), constant(2, 'i32'))).toBe(-3);
    expect(folded('div', constant(7, 'i32'), constant(0, 'i32'))).toBe(0);
  });

  it('makes equal expressions one object', () => {
    const twice = binary('mul', binary('add', x, constant(2)), binary('add', x, constant(2)));
    expect(walk(twice)).toHaveLength(4); // x, 2, x + 2 and its square
  });
});

describe('an expression read through a view', () => {
  it('is 0 where a pad adds places, whatever it is at 0', () => {
    const moved = make.through(binary('add', x, constant(2)), [4], (view) => padView(view, [1], [0]))!;
    expect(moved).toMatchObject({ kind: 'select', no: { kind: 'constant', value: 0 } });
  });

  it('loses the parts that a slice does not reach', () => {
    const padded = make.through(binary('add', x, constant(2)), [4], (view) => padView(view, [3], [0]))!;
    const first = make.through(padded, [7], (view) => sliceView(view, [0], [2], [1]))!;
    expect(first).toEqual(constant(0));
    const last = make.through(padded, [7], (view) => sliceView(view, [3], [4], [1]))!;
    expect(last).toBe(binary('add', make.of({ ...x, view: contiguousView([4]) } as Expr), constant(2)));
  });

  it('moves the index that it computes with', () => {
    const position = make.of({ kind: 'coordinate', type: 'i32', offset: 0, strides: [1] });
    const flipped = make.through(position, [4], (view) => sliceView(view, [3], [4], [-1]));
    expect(flipped).toMatchObject({ kind: 'coordinate', offset: 3, strides: [-1] });
  });
});

/** Code for scatter kernels: zeros, then additions in the order of j by the one thread that owns the elements. */

import { bytesPerElement, type DType } from '../dtype.ts';
import type { ScatterKernel } from '../kernel.ts';
import type { Code, Local } from './assembler.ts';
import { floatToHalf, halfToFloat } from './half.ts';
import { Lanes } from './lanes.ts';
import { forRange } from './loops.ts';
import { openKernel, type Target, type WrittenKernel } from './target.ts';

/** Most elements of `inner` that a chunk owns. */
const widest = 256;

export function writeScatter(target: Target, kernel: ScatterKernel): WrittenKernel {
  const { outer, count, inner, extent } = kernel;
  const pieces = Math.ceil(inner / widest);
  const { context, fn, body, chunk, scratch, bindings, outputs } = openKernel(target, kernel);
  const [index, values] = [bindings[kernel.index.binding]!, bindings[kernel.values.binding]!];
  const output = outputs[0]!;
  const isFloat = output.dtype === 'f32' || output.dtype === 'f16';
  const m = new Lanes(context, body);
  const i32 = () => fn.local('i32');
  const [o, d0, d1, d, j, i, from, to, stop] = [
    i32(),
    i32(),
    i32(),
    i32(),
    i32(),
    i32(),
    i32(),
    i32(),
    i32(),
  ];
  const width = Math.min(inner, widest);

  body.get(chunk).i32(pieces).op('i32.div_u').set(o);
  body
    .get(chunk)
    .i32(pieces)
    .op('i32.rem_u')
    .i32(width)
    .op('i32.mul')
    .tee(d0)
    .i32(width)
    .op('i32.add')
    .set(d1);
  body.i32(inner).get(d1).i32(inner).get(d1).op('i32.lt_u').op('select').set(d1);
  // Sums are kept in 32 bits in the thread's scratch, [extent, width]; the result is rounded once.
  body
    .get(scratch)
    .i32(4 * extent * width)
    .op('i32.add')
    .set(stop)
    .get(scratch)
    .set(to);
  forRange(body, to, stop, 4, () => body.get(to).i32(0).op('i32.store', 0));
  const zero = i32();
  body.i32(0).set(zero).i32(count).set(stop).get(zero).set(j);
  forRange(body, j, stop, 1, () => {
    body.get(index.local, j).i32(4).op('i32.mul').op('i32.add').op('i32.load', 0).tee(i);
    body
      .i32(extent)
      .op('i32.lt_u')
      .if(() => {
        const size = bytesPerElement(values.dtype);
        body
          .get(o)
          .i32(count)
          .op('i32.mul')
          .get(j)
          .op('i32.add')
          .i32(inner)
          .op('i32.mul')
          .get(d0)
          .op('i32.add');
        body.i32(size).op('i32.mul').get(values.local).op('i32.add').set(from);
        body
          .get(scratch, i)
          .i32(4 * width)
          .op('i32.mul')
          .op('i32.add')
          .set(to);
        body.get(d0).set(d);
        forRange(body, d, d1, 1, () => {
          body
            .get(to)
            .get(readOne(m, values.dtype, from), readWord(m, to))
            .op(isFloat ? 'f32x4.add' : 'i32x4.add');
          body.op('i32x4.extract_lane', 0).op('i32.store', 0);
          step(body, from, size);
          step(body, to, 4);
        });
      });
  });
  const size = bytesPerElement(output.dtype);
  body.i32(extent).set(stop).get(zero).set(i);
  forRange(body, i, stop, 1, () => {
    body
      .get(scratch, i)
      .i32(4 * width)
      .op('i32.mul')
      .op('i32.add')
      .set(from);
    body.get(o).i32(extent).op('i32.mul').get(i).op('i32.add').i32(inner).op('i32.mul').get(d0).op('i32.add');
    body.i32(size).op('i32.mul').get(output.local).op('i32.add').set(to);
    body.get(d0).set(d);
    forRange(body, d, d1, 1, () => {
      if (output.dtype === 'f16') {
        const half = floatToHalf(m, readWord(m, from));
        body.get(to, half).op('v128.store16_lane', 0, 0);
      } else body.get(to, from).op('i32.load', 0).op('i32.store', 0);
      step(body, from, 4);
      step(body, to, size);
    });
  });
  const scratchBytes = 4 * extent * width;
  return { phases: [{ index: target.module.add(fn), chunks: outer * pieces }], scratchBytes, sharedBytes: 0 };
}

function step(code: Code, pointer: Local, bytes: number): void {
  code.get(pointer).i32(bytes).op('i32.add').set(pointer);
}

function readWord(m: Lanes, from: Local): Local {
  m.code.get(from).op('v128.load32_splat', 0);
  return m.keep();
}

function readOne(m: Lanes, dtype: DType, from: Local): Local {
  if (dtype !== 'f16') return readWord(m, from);
  m.code.get(from).op('i32.load16_u', 0).op('i32x4.splat');
  return halfToFloat(m, m.keep());
}

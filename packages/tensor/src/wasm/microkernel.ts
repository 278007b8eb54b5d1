/**
 * The innermost loop of contractions: C[rows x 4 vectors] (+)= A B over one block of k.
 *
 * A is packed [k][rows], B is packed [k][4 vectors]; the tile of C stays in registers. Of the 16 vector registers of
 * x86, 6 x 8 takes 12 for sums, 2 for B and 1 for A; without a fused multiply-add the compiler needs more for products.
 */
import { FunctionBuilder } from './assembler.ts';
import type { Origin } from './lanes.ts';
import { forRange } from './loops.ts';

/** Rows of the full tile. */
export function tileRowsOf({ relaxed }: Pick<Origin, 'relaxed'>): number {
  return relaxed ? 6 : 5;
}

/** Columns of the full tile. */
export const tileColumns = 8;

/** Function (a, b, k, c, bytes between rows of C, whether to add to C). */
export function microkernel(origin: Origin, rows: number, vectors: number): number {
  return origin.module.named(`micro ${rows} x ${vectors}`, () => write(origin, rows, vectors));
}

function write({ relaxed }: Origin, rows: number, vectors: number): FunctionBuilder {
  const fn = new FunctionBuilder(['i32', 'i32', 'i32', 'i32', 'i32', 'i32']);
  const [a, b, k, c, rowBytes, add] = [0, 1, 2, 3, 4, 5];
  const { body } = fn;
  const vector = () => fn.local('v128');
  const sums = Array.from({ length: rows }, () => Array.from({ length: vectors }, vector));
  const columns = Array.from({ length: vectors }, vector);
  const row = vector();
  const end = fn.local('i32');

  const step = (u: number) => {
    columns.forEach((column, v) => {
      body
        .get(b)
        .op('v128.load', 16 * (vectors * u + v))
        .set(column);
    });
    sums.forEach((line, r) => {
      body
        .get(a)
        .op('v128.load32_splat', 4 * (rows * u + r))
        .set(row);
      line.forEach((sum, v) => {
        if (relaxed) body.get(row, columns[v]!, sum).op('f32x4.relaxed_madd').set(sum);
        else body.get(row, columns[v]!).op('f32x4.mul').get(sum).op('f32x4.add').set(sum);
      });
    });
  };
  // Not unrolled: the compiler would move all loads of the body to its start, more than there are registers.
  body
    .get(k)
    .i32(4 * rows)
    .op('i32.mul')
    .get(a)
    .op('i32.add')
    .set(end);
  forRange(body, a, end, 4 * rows, () => {
    step(0);
    body
      .get(b)
      .i32(16 * vectors)
      .op('i32.add')
      .set(b);
  });

  const storeRows = (accumulate: boolean) => {
    for (const line of sums) {
      line.forEach((sum, v) => {
        body.get(c);
        if (accumulate)
          body
            .get(c)
            .op('v128.load', 16 * v)
            .get(sum)
            .op('f32x4.add');
        else body.get(sum);
        body.op('v128.store', 16 * v);
      });
      body.get(c, rowBytes).op('i32.add').set(c);
    }
  };
  body.get(add).if(
    () => storeRows(true),
    () => storeRows(false),
  );
  return fn;
}

/** Loops of generated code. */
import type { Code, FunctionBuilder, Local } from './assembler.ts';
import type { Expressions } from './expressions.ts';

/** Repeats the body while `i` < `end` (both i32 locals, not negative), adding `step` after each time. */
export function forRange(code: Code, i: Local, end: Local, step: number, body: () => void): void {
  code
    .get(i, end)
    .op('i32.lt_u')
    .if(() => {
      code.loop(() => {
        body();
        code.get(i).i32(step).op('i32.add').tee(i).get(end).op('i32.lt_u').op('br_if', 0);
      });
    });
}

/** Sets the locals to the row-major index of position `row` in a space of these extents; `row` is lost. */
export function decompose(code: Code, row: Local, axes: readonly { extent: number; local: Local }[]): void {
  for (let axis = axes.length - 1; axis >= 0; axis -= 1) {
    const { extent, local } = axes[axis]!;
    if (axis === 0) code.get(row).set(local);
    else {
      code.get(row).i32(extent).op('i32.rem_u').set(local);
      code.get(row).i32(extent).op('i32.div_u').set(row);
    }
  }
}

export interface Run {
  /** Position along the outer axes; the body may change it. */
  readonly row: Local;
  /** The run covers [i, stop) of the inner axis. */
  readonly i: Local;
  readonly stop: Local;
}

/**
 * Cuts positions [position, end), not empty, of a space with the given inner extent into runs that stay within one
 * row and have at most `limit` elements. `position` ends at `end`.
 */
export function forRuns(
  fn: FunctionBuilder,
  code: Code,
  range: { readonly position: Local; readonly end: Local; readonly inner: number; readonly limit?: number },
  body: (run: Run) => void,
): void {
  const { position, end, inner, limit } = range;
  const run = { row: fn.local('i32'), i: fn.local('i32'), stop: fn.local('i32') };
  const minimum = (a: () => void, b: () => void) => {
    a();
    code.set(run.stop);
    b();
    code.set(run.row).get(run.stop, run.row, run.stop, run.row).op('i32.lt_u').op('select').set(run.stop);
  };
  code.loop(() => {
    code.get(position).i32(inner).op('i32.rem_u').set(run.i);
    minimum(
      () => code.i32(inner),
      () => code.get(run.i, end).op('i32.add').get(position).op('i32.sub'),
    );
    if (limit !== undefined && limit < inner) {
      const cut = fn.local('i32');
      code.get(run.stop).set(cut);
      minimum(
        () => code.get(cut),
        () => code.get(run.i).i32(limit).op('i32.add'),
      );
    }
    code.get(position).i32(inner).op('i32.div_u').set(run.row);
    code.get(position, run.stop).op('i32.add').get(run.i).op('i32.sub').set(position);
    body(run);
    code.get(position, end).op('i32.lt_u').op('br_if', 0);
  });
}

/**
 * Covers [i, stop) of the vector axis: four elements at a time, then one at a time. `emit` writes what is done for
 * the lanes in use, and returns the code. `before` is written first, once all sections above are known. With more
 * ways, the body is repeated so often in the loop, each time told its number.
 */
export function vectorLoops(
  fn: FunctionBuilder,
  code: Code,
  expressions: Expressions,
  range: { readonly i: Local; readonly stop: Local; readonly extent: number },
  emit: (way: number) => Code,
  before: () => void,
  ways = 1,
): void {
  const steps = [
    { lanes: 4, ways },
    { lanes: 4, ways: 1 },
    { lanes: 1, ways: 1 },
  ] as const;
  const bodies = steps.flatMap((step, i) => {
    if (step.lanes * step.ways > range.extent || (i === 1 && ways === 1)) return [];
    expressions.lanes = step.lanes;
    return [{ ...step, parts: Array.from({ length: step.ways }, (_, way) => emit(way)) }];
  });
  before();
  for (const { lanes, ways, parts } of bodies) {
    let stop = range.stop;
    const width = lanes * ways;
    if (width > 1) {
      stop = fn.local('i32');
      code
        .get(range.stop, range.i)
        .op('i32.sub')
        .i32(-width)
        .op('i32.and')
        .get(range.i)
        .op('i32.add')
        .set(stop);
    }
    forRange(code, range.i, stop, lanes, () => {
      parts.forEach((part, way) => {
        if (way > 0) code.get(range.i).i32(lanes).op('i32.add').set(range.i);
        code.append(part);
      });
    });
  }
}

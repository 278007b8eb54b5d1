/**
 * Code for reduce kernels. The vector axis is either the innermost reduced axis (one fold spread over lanes) or the
 * innermost kept axis (four folds side by side), whichever is read in order. A long reduction with few results is cut
 * into segments of a fixed length, whose folds a second phase folds again; segments do not depend on the threads.
 */
import { foldsApart, isFolds } from '../compiler/folds.ts';
import type { Expr, Kernel, ReduceKernel, RowsKernel } from '../kernel.ts';
import { writeArgmax } from './argmax.ts';
import type { Local } from './assembler.ts';
import { Expressions } from './expressions.ts';
import { Accumulator, type FoldRule, foldRule, identityLanes } from './fold.ts';
import { Lanes } from './lanes.ts';
import { decompose, forRange, forRuns, vectorLoops } from './loops.ts';
import { type Reduction, reduction, writeResult } from './reduction.ts';
import { affineFunctions, type MergedAxis } from './space.ts';
import { type KernelFunction, openKernel, type Phase, type Target, type WrittenKernel } from './target.ts';

/** Elements summed in f32 before the sum goes to f64. */
export const runLength = 2048;
/** The same where four folds run side by side. */
const sideRunLength = 128;
/** Kept elements in a unit of work with four folds side by side. */
const pieceLength = 16;
const partialBytes = 8;

export function writeReduce(target: Target, kernel: ReduceKernel): WrittenKernel {
  const body: Expr =
    kernel.body.type === 'bool' ? { kind: 'cast', type: 'u32', x: kernel.body } : kernel.body;
  const reduce = reduction({ ...kernel, body });
  if (kernel.fold === 'argmax') return writeArgmax(target, reduce);
  return isSideBySide(reduce) ? writeSideBySide(target, reduce) : writeAcross(target, reduce);
}

/** Whether to fold four neighbouring outputs at a time. */
function isSideBySide({ kernel, outer, reduced }: Reduction): boolean {
  const [kept, folded] = [outer.at(-1), reduced.at(-1)];
  if (!kept || kept.extent < 4) return false;
  if (!folded || folded.extent < 4) return true;
  const adjacent = (axis: MergedAxis) =>
    affineFunctions([kernel.body]).filter(({ strides }) => Math.abs(strides[axis.source]!) === 1).length;
  return adjacent(kept) > adjacent(folded);
}

/** Whether a kernel does nothing but fold columns, for which each fold had better go by itself, four columns at a time. */
export function isManyColumns(kernel: Kernel): kernel is RowsKernel {
  return kernel.kind === 'rows' && isFolds(kernel) && isSideBySide(reduction(foldsApart(kernel)[0]!));
}

/** Segments that each output's fold is cut into, and their length. */
function segmentsOf(units: number, length: number): { count: number; length: number } {
  if (units >= 32 || length <= 16384) return { count: 1, length };
  const segment = Math.max(8192, Math.ceil(length / 64));
  return { count: Math.ceil(length / segment), length: segment };
}

interface Segments {
  readonly count: number;
  readonly length: number;
}

/** Opens the loop over the units of a chunk; `each` gets the unit's number without its segment, and the range. */
function forUnits(
  { fn, body, chunk }: KernelFunction,
  plan: {
    readonly units: number;
    readonly perChunk: number;
    readonly segments: Segments;
    readonly length: number;
  },
  each: (unit: Local, segment: Local, position: Local, end: Local) => void,
): void {
  const { segments } = plan;
  const [u, stop, unit, segment, position, end] = [0, 0, 0, 0, 0, 0].map(() => fn.local('i32')) as [
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
  ];
  const total = plan.units * segments.count;
  body.get(chunk).i32(plan.perChunk).op('i32.mul').tee(u).i32(plan.perChunk).op('i32.add').tee(stop);
  body.i32(total).get(stop).i32(total).op('i32.lt_u').op('select').set(stop);
  forRange(body, u, stop, 1, () => {
    body.get(u).i32(segments.count).op('i32.div_u').set(unit);
    body
      .get(u)
      .i32(segments.count)
      .op('i32.rem_u')
      .tee(segment)
      .i32(segments.length)
      .op('i32.mul')
      .tee(position);
    body.i32(segments.length).op('i32.add').tee(end).i32(plan.length).get(end).i32(plan.length);
    body.op('i32.lt_u').op('select').set(end);
    each(unit, segment, position, end);
  });
}

/** One fold at a time, spread over lanes along the innermost reduced axis. */
function writeAcross(target: Target, reduce: Reduction): WrittenKernel {
  const { kernel, outer, reduced, outputs, length } = reduce;
  const segments = segmentsOf(outputs, length);
  const opened = openKernel(target, kernel);
  const { context, fn, body, bindings } = opened;
  const rule = foldRule(kernel.fold, kernel.body.type);
  const inner = reduced.at(-1)?.extent ?? 1;
  const ways = inner >= 32 ? 4 : 1;
  const perChunk = segments.count > 1 ? 1 : Math.max(1, Math.floor(16384 / Math.max(1, length)));
  const keptAxes = outer.map((axis) => ({ ...axis, local: fn.local('i32'), level: 1, vector: false }));
  const accumulator = new Accumulator(context, body, rule, ways);
  forUnits(opened, { units: outputs, perChunk, segments, length }, (unit, segment, position, end) => {
    const output = fn.local('i32');
    body.get(unit).set(output);
    decompose(body, unit, keptAxes);
    accumulator.start();
    body
      .get(position, end)
      .op('i32.lt_u')
      .if(() => {
        forRuns(fn, body, { position, end, inner, limit: runLength }, ({ row, i, stop }) => {
          const foldedAxes = reduced.map((axis, index) => {
            const vector = index === reduced.length - 1;
            return { ...axis, local: vector ? i : fn.local('i32'), level: vector ? 3 : 2, vector };
          });
          const expressions = new Expressions(context, [...keptAxes, ...foldedAxes], bindings, 4);
          const one = new Lanes(context, body).constant([-1, 0, 0, 0]);
          const emit = (way: number) => {
            const section = expressions.restart(3);
            const { local } = expressions.value(kernel.body);
            const m = new Lanes(context, section);
            const taken = expressions.lanes === 4 ? local : m.select(one, local, identityLanes(m, rule));
            accumulator.add(section, taken, way);
            return section;
          };
          vectorLoops(
            fn,
            body,
            expressions,
            { i, stop, extent: inner },
            emit,
            () => {
              decompose(body, row, foldedAxes.slice(0, -1));
              body.append(expressions.section(1)).append(expressions.section(2));
            },
            ways,
          );
          accumulator.flush();
        });
      });
    const { value, wide } = accumulator.total();
    if (segments.count > 1)
      writePartial(opened, segments, output, segment, rule.wide ? wide[0] : value, 0, rule.wide);
    else writeResult(opened, reduce, keptAxes, value, 1);
  });
  const fold = { index: target.module.add(fn), chunks: Math.ceil((outputs * segments.count) / perChunk) };
  return { ...finish(target, reduce, rule, segments, fold), scratchBytes: 0 };
}

/** Four folds at a time, side by side along the innermost kept axis. */
function writeSideBySide(target: Target, reduce: Reduction): WrittenKernel {
  const { kernel, outer, reduced, outputs, length } = reduce;
  const opened = openKernel(target, kernel);
  const { context, fn, body, bindings } = opened;
  const rule = foldRule(kernel.fold, kernel.body.type);
  const kept = outer.at(-1)!;
  const pieces = Math.ceil(kept.extent / pieceLength);
  const units = (outputs / kept.extent) * pieces;
  const segments = segmentsOf(units * pieceLength, length);
  const perChunk =
    segments.count > 1 ? 1 : Math.max(1, Math.floor(16384 / Math.max(1, length * pieceLength)));
  const inner = reduced.at(-1)?.extent ?? 1;
  const i = fn.local('i32');
  const stop = fn.local('i32');
  const keptAxes = outer.map((axis) => {
    const vector = axis === kept;
    return { ...axis, local: vector ? i : fn.local('i32'), level: vector ? 2 : 1, vector };
  });
  forUnits(opened, { units, perChunk, segments, length }, (unit, segment, start, end) => {
    const [position, output] = [fn.local('i32'), fn.local('i32')];
    body.get(unit).i32(pieces).op('i32.rem_u').i32(pieceLength).op('i32.mul').tee(i);
    body.i32(pieceLength).op('i32.add').tee(stop).i32(kept.extent).get(stop).i32(kept.extent);
    body.op('i32.lt_u').op('select').set(stop);
    body.get(unit).i32(pieces).op('i32.div_u').tee(unit).i32(kept.extent).op('i32.mul').set(output);
    decompose(body, unit, keptAxes.slice(0, -1));
    for (const lanes of [4, 1] as const) {
      const last = fn.local('i32');
      body.get(stop);
      if (lanes === 4) body.get(i).op('i32.sub').i32(-4).op('i32.and').get(i).op('i32.add');
      body.set(last);
      forRange(body, i, last, lanes, () => {
        const accumulator = new Accumulator(context, body, rule, 1);
        accumulator.start();
        body.get(start).set(position);
        body
          .get(position, end)
          .op('i32.lt_u')
          .if(() => {
            forRuns(fn, body, { position, end, inner, limit: sideRunLength }, (run) => {
              const foldedAxes = reduced.map((axis, index) => {
                const innermost = index === reduced.length - 1;
                return {
                  ...axis,
                  local: innermost ? run.i : fn.local('i32'),
                  level: innermost ? 4 : 3,
                  vector: false,
                };
              });
              const expressions = new Expressions(context, [...keptAxes, ...foldedAxes], bindings, 5);
              expressions.lanes = lanes;
              const section = expressions.restart(4);
              accumulator.add(section, expressions.value(kernel.body).local, 0);
              decompose(body, run.row, foldedAxes.slice(0, -1));
              for (const level of [1, 2, 3]) body.append(expressions.section(level));
              forRange(body, run.i, run.stop, 1, () => body.append(section));
              accumulator.flush();
            });
          });
        const { value, wide } = accumulator.lanes();
        if (segments.count === 1) writeResult(opened, reduce, keptAxes, value, lanes);
        else {
          for (let lane = 0; lane < lanes; lane += 1) {
            const flat = fn.local('i32');
            body.get(output, i).op('i32.add').i32(lane).op('i32.add').set(flat);
            const from = rule.wide ? wide[lane >> 1]! : value;
            writePartial(opened, segments, flat, segment, from, rule.wide ? lane & 1 : lane, rule.wide);
          }
        }
      });
    }
  });
  const fold = { index: target.module.add(fn), chunks: Math.ceil((units * segments.count) / perChunk) };
  return { ...finish(target, reduce, rule, segments, fold), scratchBytes: 0 };
}

/** Stores one lane (an f64 of a wide sum, else 32 bits) as the fold of one segment. */
function writePartial(
  { body, shared }: KernelFunction,
  segments: Segments,
  output: Local,
  segment: Local,
  value: Local,
  lane: number,
  wide: boolean,
): void {
  body
    .get(output)
    .i32(segments.count)
    .op('i32.mul')
    .get(segment)
    .op('i32.add')
    .i32(partialBytes)
    .op('i32.mul');
  body
    .get(shared)
    .op('i32.add')
    .get(value)
    .op(wide ? 'v128.store64_lane' : 'v128.store32_lane', 0, lane);
}

/** The phases of a reduction: the folds, and where there are segments, the fold of their partial results. */
function finish(
  target: Target,
  reduce: Reduction,
  rule: FoldRule,
  segments: Segments,
  fold: Phase,
): Pick<WrittenKernel, 'phases' | 'sharedBytes'> {
  if (segments.count === 1) return { phases: [fold], sharedBytes: 0 };
  const { outer, outputs } = reduce;
  const opened = openKernel(target, reduce.kernel);
  const { context, fn, body, chunk, shared } = opened;
  const axes = outer.map((axis) => ({ ...axis, local: fn.local('i32'), level: 1, vector: false }));
  const m = new Lanes(context, body);
  const sum = m.op('v128.or', identityLanes(m, rule), identityLanes(m, rule));
  const [from, stop] = [fn.local('i32'), fn.local('i32')];
  const bytes = segments.count * partialBytes;
  body
    .get(chunk)
    .i32(bytes)
    .op('i32.mul')
    .get(shared)
    .op('i32.add')
    .tee(from)
    .i32(bytes)
    .op('i32.add')
    .set(stop);
  forRange(body, from, stop, partialBytes, () => {
    body
      .get(sum)
      .get(from)
      .op('v128.load64_zero', 0)
      .op(rule.wide ? 'f64x2.add' : rule.op)
      .set(sum);
  });
  if (rule.wide) body.get(m.op('f32x4.demote_f64x2_zero', sum)).set(sum);
  const value = broadcastLane(m, sum);
  const index = fn.local('i32');
  body.get(chunk).set(index);
  decompose(body, index, axes);
  writeResult(opened, reduce, axes, value, 1);
  const last = { index: target.module.add(fn), chunks: outputs };
  return { phases: [fold, last], sharedBytes: outputs * bytes };
}

function broadcastLane(m: Lanes, x: Local): Local {
  m.code.get(x, x).shuffle32(0, 0, 0, 0);
  return m.keep();
}

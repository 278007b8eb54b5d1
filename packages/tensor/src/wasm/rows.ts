/**
 * Code for rows: a chunk is some rows, and for each the folds pass over it one after the other, those that need no
 * result of one another in one pass. Then come the elements, and the row's own results. What is dear to compute and
 * met in a later pass (the exponentials of a softmax) waits for it in a row of the thread's own memory.
 */
import { arithmeticOf } from '../compiler/cost.ts';
import { isUniformAlong, substituted, walk } from '../compiler/expression.ts';
import type { Expr, RowsKernel, RowsOutput } from '../kernel.ts';
import { contiguousStrides, numel } from '../shape.ts';
import type { Affine } from '../view.ts';
import { Code } from './assembler.ts';
import { Expressions, type LoopAxis, type Value } from './expressions.ts';
import { Accumulator, foldRule, identityLanes } from './fold.ts';
import { Lanes } from './lanes.ts';
import { decompose, forRange, forRuns, type Run, vectorLoops } from './loops.ts';
import { runLength } from './reduce.ts';
import { affineFunctions, mergeGroups } from './space.ts';
import { openKernel, type Target, type WrittenKernel } from './target.ts';

/** Elements of the rows of a chunk. */
const chunkLength = 16384;
/** Bytes of kept values beyond which they would leave the cache: then they are computed again. */
const mostKeptBytes = 2 ** 18;
/** Arithmetic that is worth keeping, in elements read from memory (compiler/cost.ts). */
const dear = 1;

/** A walk along the row: the folds done in it, and what it keeps for later ones. */
interface Pass {
  readonly folds: readonly { readonly index: number; readonly body: Expr }[];
  readonly keeps: readonly { readonly expr: Expr; readonly to: Affine }[];
}

export function writeRows(target: Target, kernel: RowsKernel): WrittenKernel {
  const { shape, reduced } = kernel;
  const [rows, length] = [numel(shape), numel(reduced)];
  const { passes, outputs, kept } = plan(kernel);
  const { context, fn, body, chunk, scratch, bindings, outputs: pointers } = openKernel(target, kernel);
  const places = [...bindings, { local: scratch, dtype: 'f32' as const }];

  const full = { offset: 0, strides: contiguousStrides([...shape, ...reduced]) };
  const ofRow = { offset: 0, strides: [...contiguousStrides(shape), ...reduced.map(() => 0)] };
  const roots = [
    ...passes.flatMap(({ folds }) => folds.map((fold) => fold.body)),
    ...outputs.map((o) => o.expr),
  ];
  const stores = passes.flatMap(({ keeps }) => keeps.map(({ to }) => to));
  const merged = mergeGroups([shape, reduced], [full, ofRow, ...stores, ...affineFunctions(roots)]);
  const outerAxes = merged
    .filter(({ group }) => group === 0)
    .map((axis) => ({ ...axis, local: fn.local('i32'), level: 1, vector: false }));
  const along = merged.filter(({ group }) => group === 1);
  const inner = along.at(-1)?.extent ?? 1;
  const results: Value[] = [];

  const [row, stop, rest] = [fn.local('i32'), fn.local('i32'), fn.local('i32')];
  const perChunk = Math.max(1, Math.floor(chunkLength / length));
  body.get(chunk).i32(perChunk).op('i32.mul').tee(row).i32(perChunk).op('i32.add').tee(stop);
  body.i32(rows).get(stop).i32(rows).op('i32.lt_u').op('select').set(stop);
  forRange(body, row, stop, 1, () => {
    body.get(row).set(rest);
    decompose(body, rest, outerAxes);
    for (const pass of passes) writePass(pass);
    const elements = outputs.flatMap((output, o) => (output.per === 'element' ? [{ output, o }] : []));
    if (elements.length > 0) {
      alongRow((expressions) => {
        // An output may take the place of an input: all values are read before any is stored.
        const values = elements.map(({ output }) => expressions.value(output.expr));
        elements.forEach(({ output, o }, i) => {
          expressions.store(values[i]!.local, output.expr.type, pointers[o]!, full);
        });
      });
    }
    writeRowOutputs();
  });
  const chunks = Math.ceil(rows / perChunk);
  const phases = [{ index: target.module.add(fn), chunks }];
  return { phases, scratchBytes: 16 * Math.ceil((kept * length) / 4), sharedBytes: 0 };

  /** A loop along the row, with what stays the same in it before the loop, and before that, the start of folds. */
  function alongRow(
    each: (expressions: Expressions, way: number) => void,
    folds: { start(code: Code): void; endRun(): void } | null = null,
    code = new Code(),
  ): void {
    const ways = folds && inner >= 32 ? 4 : 1;
    const [position, end] = [fn.local('i32'), fn.local('i32')];
    folds?.start(code);
    code.i32(0).set(position).i32(length).set(end);
    let atRow: Code | null = null;
    forRuns(fn, code, { position, end, inner, ...(folds ? { limit: runLength } : {}) }, (run) => {
      const axes = [...outerAxes, ...axesOf(run)];
      const expressions = new Expressions(context, axes, places, 4);
      expressions.folded = results;
      const emit = (way: number) => {
        const section = expressions.restart(3);
        each(expressions, way);
        return section;
      };
      const range = { i: run.i, stop: run.stop, extent: inner };
      const before = () => {
        decompose(code, run.row, axes.slice(outerAxes.length, -1));
        code.append(expressions.section(2));
      };
      vectorLoops(fn, code, expressions, range, emit, before, ways);
      folds?.endRun();
      atRow = expressions.section(1);
    });
    body.append(atRow!).append(code);
  }

  function axesOf(run: Run): (LoopAxis & { extent: number })[] {
    return along.map((axis, index) => {
      const vector = index === along.length - 1;
      return { ...axis, local: vector ? run.i : fn.local('i32'), level: vector ? 3 : 2, vector };
    });
  }

  function writePass({ folds, keeps }: Pass): void {
    const code = new Code();
    const one = new Lanes(context, context.fn.entry).constant([-1, 0, 0, 0]);
    const ways = inner >= 32 ? 4 : 1;
    const running = folds.map(({ index, body: value }) => {
      const rule = foldRule(kernel.folds[index]!.fold, value.type);
      return { index, value, rule, accumulator: new Accumulator(context, code, rule, ways) };
    });
    alongRow(
      (expressions, way) => {
        const section = expressions.section(3);
        for (const { value, rule, accumulator } of running) {
          const { local } = expressions.value(value);
          const m = new Lanes(context, section);
          const taken = expressions.lanes === 4 ? local : m.select(one, local, identityLanes(m, rule));
          accumulator.add(section, taken, way);
        }
        for (const { expr, to } of keeps) {
          expressions.store(expressions.value(expr).local, expr.type, places.at(-1)!, to);
        }
      },
      {
        start: () => {
          for (const { accumulator } of running) accumulator.start();
        },
        endRun: () => {
          for (const { accumulator } of running) accumulator.flush();
        },
      },
      code,
    );
    const after = new Code();
    for (const { index, accumulator } of running) {
      results[index] = { local: accumulator.total(after).value, level: 1 };
    }
    body.append(after);
  }

  function writeRowOutputs(): void {
    const expressions = new Expressions(context, outerAxes, places, 2);
    expressions.lanes = 1;
    expressions.folded = results;
    outputs.forEach(({ expr, per }, o) => {
      if (per === 'row') expressions.store(expressions.value(expr).local, expr.type, pointers[o]!, ofRow);
    });
    body.append(expressions.section(1));
  }
}

/** The passes of a row, with what one of them keeps read back by those after it. */
function plan(kernel: RowsKernel): { passes: Pass[]; outputs: readonly RowsOutput[]; kept: number } {
  const { shape, reduced } = kernel;
  const length = numel(reduced);
  // A load that no axis changes would be done before the loops, so a row of one element keeps nothing.
  const mostKept = length === 1 ? 0 : Math.floor(mostKeptBytes / (4 * length));
  const depths: number[] = [];
  for (const { body } of kernel.folds) {
    depths.push(
      1 + Math.max(-1, ...walk(body).map((expr) => (expr.kind === 'folded' ? depths[expr.fold!]! : -1))),
    );
  }
  const elements = kernel.outputs.filter(({ per }) => per === 'element').map(({ expr }) => expr);
  const bodies = Array.from({ length: Math.max(...depths) + 1 }, (_, depth) =>
    kernel.folds.flatMap(({ body }, index) => (depths[index] === depth ? [{ index, body }] : [])),
  );
  const known = new Map<Expr, Expr>();
  const passes = bodies.map((own, depth): Pass => {
    const folds = own.map(({ index, body }) => ({ index, body: substituted(body, known) }));
    const later = [...bodies.slice(depth + 1).flatMap((pass) => pass.map(({ body }) => body)), ...elements];
    const keeps = sharedParts(
      own.map(({ body }) => body),
      later,
      shape.length,
    )
      .filter((expr) => !known.has(expr))
      .slice(0, Math.max(0, mostKept - known.size))
      .map((expr) => {
        const strides = [...shape.map(() => 0), ...contiguousStrides(reduced)];
        const to = { offset: known.size * length, strides };
        const now = substituted(expr, known);
        const view = { ...to, shape: [...shape, ...reduced], guards: [] };
        known.set(expr, { kind: 'load', type: 'f32', binding: kernel.bindings.length, view });
        return { expr: now, to };
      });
    return { folds, keeps };
  });
  const outputs = kernel.outputs.map((output) =>
    output.per === 'element' ? { ...output, expr: substituted(output.expr, known) } : output,
  );
  return { passes, outputs, kept: known.size };
}

/** The largest dear parts of some expressions that others have, too. */
function sharedParts(now: readonly Expr[], later: readonly Expr[], rank: number): Expr[] {
  const ahead = new Set(walk(...later));
  const shared = walk(...now).filter(
    (expr) =>
      ahead.has(expr) && expr.type === 'f32' && arithmeticOf(expr) >= dear && !isUniformAlong(expr, rank),
  );
  return shared.filter((expr) => !shared.some((other) => other !== expr && walk(other).includes(expr)));
}

/** Code for map kernels: one pass over the output in row-major order, four elements at a time. */
import type { MapKernel } from '../kernel.ts';
import { contiguousStrides, numel } from '../shape.ts';
import { Expressions } from './expressions.ts';
import { decompose, forRuns, vectorLoops } from './loops.ts';
import { affineFunctions, mergeGroups } from './space.ts';
import { openKernel, type Target, type WrittenKernel } from './target.ts';

export function writeMap(target: Target, kernel: MapKernel): WrittenKernel {
  const total = numel(kernel.shape);
  const chunkLength = Math.min(32768, Math.max(4096, Math.ceil(total / 256) * 4));
  const { context, fn, body, chunk, bindings, outputs } = openKernel(target, kernel);
  const stored = { offset: 0, strides: contiguousStrides(kernel.shape) };
  const functions = affineFunctions(kernel.outputs.map(({ expr }) => expr));
  const merged = mergeGroups([kernel.shape], [stored, ...functions]);
  const inner = merged.at(-1)?.extent ?? 1;

  const [position, end] = [fn.local('i32'), fn.local('i32')];
  body.get(chunk).i32(chunkLength).op('i32.mul').tee(position);
  body
    .i32(chunkLength)
    .op('i32.add')
    .tee(end)
    .i32(total)
    .get(end)
    .i32(total)
    .op('i32.lt_u')
    .op('select')
    .set(end);
  forRuns(fn, body, { position, end, inner }, ({ row, i, stop }) => {
    const axes = merged.map((axis, index) => {
      const vector = index === merged.length - 1;
      return { ...axis, local: vector ? i : fn.local('i32'), level: vector ? 2 : 1, vector };
    });
    const expressions = new Expressions(context, axes, bindings, 3);
    const emit = () => {
      const section = expressions.restart(2);
      // An output may take the place of an input: all values are read before any is stored.
      const values = kernel.outputs.map(({ expr }) => expressions.value(expr));
      kernel.outputs.forEach(({ expr }, o) => {
        expressions.store(values[o]!.local, expr.type, outputs[o]!, stored);
      });
      return section;
    };
    vectorLoops(fn, body, expressions, { i, stop, extent: inner }, emit, () => {
      decompose(body, row, axes.slice(0, -1));
      body.append(expressions.section(1));
    });
  });
  const chunks = Math.ceil(total / chunkLength);
  return { phases: [{ index: target.module.add(fn), chunks }], scratchBytes: 0, sharedBytes: 0 };
}

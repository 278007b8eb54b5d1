/** Code for argmax: the first position of the largest value, or of NaN, one value at a time. */
import { Expressions } from './expressions.ts';
import { foldRule, identityLanes } from './fold.ts';
import { Lanes } from './lanes.ts';
import { decompose, forRange } from './loops.ts';
import { type Reduction, writeResult } from './reduction.ts';
import { openKernel, type Target, type WrittenKernel } from './target.ts';

export function writeArgmax(target: Target, reduce: Reduction): WrittenKernel {
  const { kernel, outer, reduced, outputs, length } = reduce;
  const opened = openKernel(target, kernel);
  const { context, fn, body, chunk, bindings } = opened;
  const kept = outer.map((axis) => ({ ...axis, local: fn.local('i32'), level: 1, vector: false }));
  const folded = reduced.map((axis) => ({ ...axis, local: fn.local('i32'), level: 2, vector: false }));
  const m = new Lanes(context, body);
  const [output, position, rest, stop] = [fn.local('i32'), fn.local('i32'), fn.local('i32'), fn.local('i32')];
  body.get(chunk).set(output);
  decompose(body, output, kept);
  const best = m.op('v128.or', identityLanes(m, foldRule('max', kernel.body.type)), m.i32(0));
  const found = m.op('v128.xor', best, best);
  const expressions = new Expressions(context, [...kept, ...folded], bindings, 3);
  expressions.lanes = 1;
  const { local } = expressions.value(kernel.body);
  body.append(expressions.section(1));
  body.i32(length).set(stop).i32(0).set(position);
  forRange(body, position, stop, 1, () => {
    body.get(position).set(rest);
    decompose(body, rest, folded);
    body.append(expressions.section(2));
    const type = kernel.body.type;
    const greater =
      type === 'f32'
        ? m.op('v128.andnot', m.op('v128.not', m.op('f32x4.le', local, best)), m.op('f32x4.ne', best, best))
        : m.op(type === 'i32' ? 'i32x4.gt_s' : 'i32x4.gt_u', local, best);
    body.get(local, best, greater).op('v128.bitselect').set(best);
    body.get(position).op('i32x4.splat').get(found, greater).op('v128.bitselect').set(found);
  });
  writeResult(opened, reduce, kept, found, 1);
  const phase = { index: target.module.add(fn), chunks: outputs };
  return { phases: [phase], scratchBytes: 0, sharedBytes: 0 };
}

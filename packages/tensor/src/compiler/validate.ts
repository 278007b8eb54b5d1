/** What must hold of every plan; tests give each plan through here. */
import type { AttendKernel, AttendOperands, Expr, Kernel, Plan, PlanBuffer, RowsKernel } from '../kernel.ts';
import { type Shape, sameShape } from '../shape.ts';
import { isContiguous } from '../view.ts';
import { expressionsOf, lengthsOf, maxBuffers, outputsOf, shapeOf, storedBytes } from './drafts.ts';
import { isUniformAlong, readsOf, walk } from './expression.ts';

/**
 * Checks that each element of a buffer is written once and before it is read, that no storage is overwritten while
 * somebody still needs what it holds, and that kernels keep to the limits of every backend.
 * @throws Error naming the kernel and what is wrong
 */
export function validatePlan(plan: Plan): void {
  const written = new Set<number>();
  /** Ranges that have been written of buffers that kernels write apart. */
  const ranges = new Map<number, (readonly [number, number])[]>();
  /** Which buffer's values each storage holds now. */
  const holds = new Map<string, number>();
  const hold = (buffer: number): void => {
    holds.set(storageOf(plan.buffers[buffer]!), buffer);
  };
  for (const buffer of plan.inputs) hold(buffer);
  plan.buffers.forEach((buffer, i) => {
    if (buffer.length === 0 || isPassedOn(plan, buffer, i)) written.add(i);
    if (buffer.role === 'input') written.add(i);
    else if (
      buffer.role === 'temporary' &&
      storedBytes(buffer.dtype, buffer.length) > plan.slots[buffer.slot]!
    ) {
      throw new Error(`plan: buffer ${i} does not fit slot ${buffer.slot}`);
    }
  });
  plan.kernels.forEach((kernel, time) => {
    const fail = (problem: string): never => {
      throw new Error(`plan: kernel ${time} (${kernel.label}): ${problem}`);
    };
    for (const { buffer, dtype } of kernel.bindings) {
      if (!written.has(buffer)) fail(`reads buffer ${buffer} before it is written`);
      if (holds.get(storageOf(plan.buffers[buffer]!)) !== buffer)
        fail(`reads buffer ${buffer} after it was overwritten`);
      if (plan.buffers[buffer]!.dtype !== dtype) fail(`takes buffer ${buffer} for ${dtype}`);
    }
    const lengths = lengthsOf(kernel);
    for (const [i, { buffer, dtype, offset = 0 }] of outputsOf(kernel).entries()) {
      const target = plan.buffers[buffer]!;
      const before = ranges.get(buffer) ?? [];
      const end = offset + lengths[i]!;
      const isApart = before.every(([from, to]) => to <= offset || end <= from);
      if (target.role === 'input' || written.has(buffer) || !isApart) fail(`writes buffer ${buffer} again`);
      if (target.dtype !== dtype) fail(`writes ${dtype} to buffer ${buffer}`);
      const isQuads = offset % 4 === 0 && (end % 4 === 0 || end === target.length);
      if (end > target.length || !isQuads) fail(`writes [${offset}, ${end}) to buffer ${buffer}`);
      checkInPlace(plan, kernel, target, lengths[i]!, fail);
      ranges.set(buffer, [...before, [offset, end]]);
    }
    for (const { buffer } of outputsOf(kernel)) {
      const done = ranges.get(buffer)!.reduce((sum, [from, to]) => sum + to - from, 0);
      if (done === plan.buffers[buffer]!.length) written.add(buffer);
      hold(buffer);
    }
    if (new Set(kernel.bindings.map(({ buffer }) => buffer)).size < kernel.bindings.length)
      fail('binds a buffer twice');
    // What is too much at once for a backend, an attend kernel can do one output after the other.
    const atOnce = kernel.kind === 'attend' ? kernel.outputs.slice(0, 1) : outputsOf(kernel);
    const touched = [...kernel.bindings, ...atOnce].map(({ buffer }) => buffer);
    const storages = new Set(touched.map((buffer) => storageOf(plan.buffers[buffer]!)));
    if (storages.size > maxBuffers) fail('touches too many buffers');
    checkExpressions(kernel, fail);
  });
  plan.outputs.forEach((buffer, index) => {
    const target = plan.buffers[buffer]!;
    if (target.role !== 'output' || target.index !== index)
      throw new Error(`plan: output ${index} has no buffer`);
    if (!written.has(buffer)) throw new Error(`plan: output ${index} is never written`);
    if (isPassedOn(plan, target, buffer)) return;
    if (target.length > 0 && holds.get(storageOf(target)) !== buffer) {
      throw new Error(`plan: output ${index} was overwritten`);
    }
  });
}

/** An input that is donated to the output that equals it: no kernel writes there. */
function isPassedOn(plan: Plan, buffer: PlanBuffer, index: number): boolean {
  if (buffer.role !== 'output' || buffer.donated === undefined) return false;
  return !plan.kernels.some((kernel) => outputsOf(kernel).some((output) => output.buffer === index));
}

function storageOf(buffer: PlanBuffer): string {
  if (buffer.role === 'temporary') return `slot ${buffer.slot}`;
  if (buffer.role === 'input') return `input ${buffer.index}`;
  return buffer.donated === undefined ? `output ${buffer.index}` : `input ${buffer.donated}`;
}

/** A kernel that reads the storage it writes must be a map, or rows, that reads each element only where it writes it. */
function checkInPlace(
  plan: Plan,
  kernel: Kernel,
  target: PlanBuffer,
  length: number,
  fail: (problem: string) => never,
): void {
  kernel.bindings.forEach(({ buffer }, binding) => {
    if (storageOf(plan.buffers[buffer]!) !== storageOf(target)) return;
    if (kernel.kind !== 'map' && kernel.kind !== 'rows') fail(`reads buffer ${buffer} where it writes`);
    const reads = readsOf(...expressionsOf(kernel)).filter((read) => read.binding === binding);
    const inPlace = reads.every((read) => read.kind === 'load' && isContiguous(read.view));
    if (!inPlace || plan.buffers[buffer]!.length !== length || target.length !== length)
      fail(`reads other places of buffer ${buffer}`);
  });
}

/** The operands' views are over the spaces that the kernel says. */
function checkAttend(kernel: AttendKernel, fail: (problem: string) => never): void {
  const { batch, queries, keys, width, valueWidth, operands } = kernel;
  const spaces: Record<keyof AttendOperands, Shape> = {
    query: [queries, width],
    key: [keys, width],
    value: [keys, valueWidth],
    mask: [queries, keys],
    cotangent: [queries, valueWidth],
    logSum: [queries],
    rowSum: [queries],
  };
  for (const [name, { view }] of Object.entries(operands)) {
    const space = [...batch, ...spaces[name as keyof AttendOperands]];
    if (!sameShape(view.shape, space)) fail(`the ${name} is over [${view.shape}]`);
  }
}

function checkExpressions(kernel: Kernel, fail: (problem: string) => never): void {
  const check = (root: Expr, shape: Shape, epilogue: boolean): void => {
    for (const expr of walk(root)) {
      if ('view' in expr && expr.view.shape.join() !== shape.join()) {
        fail(`a view over [${expr.view.shape}] in an index space [${shape}]`);
      }
      if ('binding' in expr && kernel.bindings[expr.binding] === undefined)
        fail(`no binding ${expr.binding}`);
      if (expr.kind === 'coordinate' && expr.strides.length !== shape.length)
        fail('a coordinate of another rank');
      if (expr.kind === 'folded' && !epilogue) fail('a folded value outside an epilogue');
    }
  };
  if (kernel.kind === 'rows') checkRows(kernel, fail);
  if (kernel.kind === 'reduce') check(kernel.body, [...kernel.shape, ...kernel.reduced], false);
  if (kernel.kind === 'rows') for (const { body } of kernel.folds) check(body, shapeOf(kernel), true);
  for (const output of outputsOf(kernel)) check(output.expr, shapeOf(kernel, output), kernel.kind !== 'map');
  if (kernel.kind === 'attend') checkAttend(kernel, fail);
  if (kernel.kind !== 'contract') return;
  const { batch, m, n, k, a, b } = kernel;
  if (a.view.shape.join() !== [...batch, ...m, ...k].join())
    fail(`the left operand is over [${a.view.shape}]`);
  if (b.view.shape.join() !== [...batch, ...k, ...n].join())
    fail(`the right operand is over [${b.view.shape}]`);
}

/** Folds come before those that use them, and what is stored for a row is the same all along it. */
function checkRows(kernel: RowsKernel, fail: (problem: string) => never): void {
  const uses = (root: Expr): number[] =>
    walk(root).flatMap((expr) => (expr.kind === 'folded' ? [expr.fold ?? Number.NaN] : []));
  kernel.folds.forEach(({ body }, i) => {
    if (!uses(body).every((fold) => fold < i)) fail(`fold ${i} uses one that comes later`);
  });
  for (const { expr, per } of kernel.outputs) {
    if (!uses(expr).every((fold) => fold < kernel.folds.length))
      fail('an output of a fold that is not there');
    if (per === 'row' && !isUniformAlong(expr, kernel.shape.length))
      fail('an output that changes along a row');
  }
}

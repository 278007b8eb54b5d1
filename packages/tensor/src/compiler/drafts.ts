/**
 * Drafts: kernels while they are rearranged. Wherever a finished kernel names a binding or a buffer, a draft names a
 * value (node id), and its list of bindings is empty; `finish` numbers both.
 */
import { bytesPerElement } from '../dtype.ts';
import type { AttendKernel, AttendOperands, Expr, Kernel, MapKernel, Operand, Output } from '../kernel.ts';
import { numel, type Shape } from '../shape.ts';
import { readsOf } from './expression.ts';

/**
 * No kernel: the value whose buffer the parts are written into, one after the other. Nothing else reads a part. Starts of
 * parts are multiples of 4 elements, so that those who write four at a time touch no neighbour.
 */
export interface Whole {
  readonly kind: 'whole';
  readonly label: string;
  readonly bindings: readonly [];
  readonly shape: Shape;
  readonly parts: readonly number[];
  /** Its expression is 'folded'. */
  readonly output: Output;
}

export type Draft = Kernel | Whole;

/** Buffers that one kernel may touch: WebGPU guarantees eight storage bindings. */
export const maxBuffers = 8;

/** What the kernel writes. */
export function outputsOf(draft: Draft): readonly Output[] {
  return 'outputs' in draft ? draft.outputs : [draft.output];
}

/** The values that the kernel writes. */
export function writesOf(draft: Draft): number[] {
  return outputsOf(draft).map(({ buffer }) => buffer);
}

/** The index space of one of an attend kernel's outputs. */
function shapeOfResult(kernel: AttendKernel, output: Output): Shape {
  const { batch, queries, keys, width, valueWidth } = kernel;
  switch (kernel.outputs.find((own) => own === output)!.result) {
    case 'mean':
      return [...batch, queries, valueWidth];
    case 'logSum':
      return [...batch, queries];
    case 'query':
      return [...batch, queries, width];
    case 'key':
      return [...batch, keys, width];
    case 'value':
      return [...batch, keys, valueWidth];
  }
}

/** The index space of the kernel's outputs; those of an attend kernel differ. */
export function shapeOf(draft: Draft, output = outputsOf(draft)[0]!): Shape {
  switch (draft.kind) {
    case 'attend':
      return shapeOfResult(draft, output);
    case 'map':
    case 'reduce':
    case 'whole':
      return draft.shape;
    case 'rows':
      return [...draft.shape, ...draft.reduced];
    case 'contract':
      return [...draft.batch, ...draft.m, ...draft.n];
    case 'scatter':
      return [draft.outer, draft.extent, draft.inner];
  }
}

/** Elements that the kernel writes to each of its outputs. */
export function lengthsOf(draft: Draft): number[] {
  if (draft.kind !== 'rows') return outputsOf(draft).map((output) => numel(shapeOf(draft, output)));
  return draft.outputs.map(({ per }) => numel(per === 'row' ? draft.shape : shapeOf(draft)));
}

/** The expressions that the kernel evaluates. */
export function expressionsOf(draft: Draft): Expr[] {
  const outputs = outputsOf(draft).map(({ expr }) => expr);
  if (draft.kind === 'rows') return [...draft.folds.map(({ body }) => body), ...outputs];
  return draft.kind === 'reduce' ? [draft.body, ...outputs] : outputs;
}

/** The kernel with each of its expressions changed. */
export function withExpressions(draft: Draft, change: (expr: Expr) => Expr): Draft {
  const changed = <T extends Output>(output: T): T => ({ ...output, expr: change(output.expr) });
  if (draft.kind === 'map') return { ...draft, outputs: draft.outputs.map(changed) };
  if (draft.kind === 'rows') {
    const folds = draft.folds.map(({ fold, body }) => ({ fold, body: change(body) }));
    return { ...draft, folds, outputs: draft.outputs.map(changed) };
  }
  if (draft.kind === 'attend' || draft.kind === 'whole') return draft; // their outputs read nothing
  const output = changed(draft.output);
  return draft.kind === 'reduce' ? { ...draft, body: change(draft.body), output } : { ...draft, output };
}

/** The kernel with each of its outputs changed. */
export function withOutputs<K extends Draft>(draft: K, change: <T extends Output>(output: T) => T): K {
  const changed =
    'outputs' in draft ? { outputs: draft.outputs.map(change) } : { output: change(draft.output) };
  return { ...draft, ...changed };
}

/** The kernel with each read of its loop, those of expressions aside, changed. */
export function withLoopReads<K extends Draft>(
  draft: K,
  change: <T extends { readonly binding: number }>(read: T) => T,
): K {
  if (draft.kind === 'contract') return { ...draft, a: change(draft.a), b: change(draft.b) };
  if (draft.kind === 'attend') return { ...draft, operands: mapOperands(draft.operands, change)! };
  if (draft.kind !== 'scatter') return draft;
  return { ...draft, index: change(draft.index), values: change(draft.values) };
}

/** The bindings that a loop reads besides its expressions. */
function operandsOfLoop(draft: Draft): number[] {
  if (draft.kind === 'contract') return [draft.a.binding, draft.b.binding];
  if (draft.kind === 'attend') return Object.values(draft.operands).map(({ binding }) => binding);
  if (draft.kind === 'whole') return [...draft.parts];
  return draft.kind === 'scatter' ? [draft.index.binding, draft.values.binding] : [];
}

const knownValues = new WeakMap<Draft, readonly number[]>();

/** The values that the kernel reads, each once. */
export function valuesRead(draft: Draft): readonly number[] {
  const known = knownValues.get(draft);
  if (known) return known;
  const reads = readsOf(...expressionsOf(draft)).map(({ binding }) => binding);
  const values = [...new Set([...operandsOfLoop(draft), ...reads])];
  knownValues.set(draft, values);
  return values;
}

/** The input whose storage each output takes over. */
export type Donated = ReadonlyMap<number, number>;

/** Whether two kernels together may touch few enough buffers, whatever becomes of what one writes for the other. */
export function mayFitBindings(earlier: Draft, later: Draft, donated: Donated = new Map()): boolean {
  const between = new Set(writesOf(earlier));
  const read = [...valuesRead(earlier), ...valuesRead(later)].filter((value) => !between.has(value));
  return buffersTouched(new Set(read), writesOf(later), donated) <= maxBuffers;
}

/** An attend kernel's operands, each changed; null where one cannot be. */
export function mapOperands(
  operands: AttendOperands,
  change: (operand: Operand) => Operand | null,
): AttendOperands | null {
  const entries = Object.entries(operands).map(([name, operand]) => [name, change(operand)] as const);
  if (entries.some(([, operand]) => operand === null)) return null;
  return Object.fromEntries(entries) as unknown as AttendOperands;
}

/** Whether the kernel touches no more buffers than one may: an input and the output that takes its place are one. */
export function fitsBindings(draft: Draft, donated: Donated = new Map()): boolean {
  return buffersTouched(new Set(valuesRead(draft)), writesOf(draft), donated) <= maxBuffers;
}

function buffersTouched(read: ReadonlySet<number>, written: readonly number[], donated: Donated): number {
  return read.size + written.filter((value) => !read.has(donated.get(value) ?? -1)).length;
}

/** Bytes of `length` elements as arenas count them: whole 16-byte units. */
export function storedBytes(dtype: Output['dtype'], length: number): number {
  return Math.ceil((length * bytesPerElement(dtype)) / 16) * 16;
}

/** A kernel that copies values element by element. */
export function copyDraft(load: Expr, shape: Shape, to: number, dtype: Output['dtype']): MapKernel {
  return { kind: 'map', label: 'copy', bindings: [], shape, outputs: [{ buffer: to, dtype, expr: load }] };
}

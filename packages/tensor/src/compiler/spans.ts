/**
 * The part of each buffer that a kernel touches.
 *
 * Layers whose parameters lie one after the other in one vector compute the same but for where those begin. With the
 * beginnings taken out of the views and given to the bindings instead, one piece of code serves all of them.
 */
import { bytesPerElement, type DType } from '../dtype.ts';
import type { Kernel, Operand } from '../kernel.ts';
import { rangeOf, type View } from '../view.ts';
import {
  expressionsOf,
  lengthsOf,
  outputsOf,
  withExpressions,
  withLoopReads,
  withOutputs,
} from './drafts.ts';
import { mapReads, readsOf } from './expression.ts';

/** Where bindings may begin: what WebGPU guarantees to take. */
const alignedBytes = 256;

/** Elements [start, end) of what lives at one place. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** A kernel whose views and outputs count from the start of the span of the place that they are in. */
export interface Spanned {
  readonly kernel: Kernel;
  /** The span of each place that the kernel touches. */
  readonly spans: ReadonlyMap<number, Span>;
}

interface Touch extends Span {
  readonly place: number;
  readonly dtype: DType;
}

/**
 * The kernel on spans. A place of which the kernel touches elements of several sizes has one that begins at 0.
 * @param placeOf where a buffer lives; what lives at one place is bound once
 */
export function spanned(kernel: Kernel, placeOf: (buffer: number) => number): Spanned {
  const touched = touchesOf(kernel, placeOf);
  const spans = new Map<number, Span>();
  for (const place of new Set(touched.map((touch) => touch.place))) {
    const own = touched.filter((touch) => touch.place === place);
    const sizes = new Set(own.map(({ dtype }) => bytesPerElement(dtype)));
    const unit = alignedBytes / [...sizes][0]!;
    const first = Math.max(0, Math.min(...own.map(({ start }) => start)));
    const start = sizes.size > 1 ? 0 : Math.floor(first / unit) * unit;
    spans.set(place, { start, end: Math.max(...own.map(({ end }) => end)) });
  }
  if ([...spans.values()].every(({ start }) => start === 0)) return { kernel, spans };

  const startOf = (buffer: number): number => spans.get(placeOf(buffer))!.start;
  const moved = <T extends { readonly binding: number }>(read: T & { readonly view?: View }): T => {
    const { binding, view } = read;
    if (view === undefined) return read; // a scatter's, from the start of its place
    return { ...read, view: { ...view, offset: view.offset - startOf(kernel.bindings[binding]!.buffer) } };
  };
  const inside = withLoopReads(withExpressions(kernel, mapReads(moved)) as Kernel, moved);
  return {
    kernel: withOutputs(inside, (output) => ({
      ...output,
      offset: (output.offset ?? 0) - startOf(output.buffer),
    })),
    spans,
  };
}

/** What the kernel reads and writes; reads that guards exclude count, too. */
function touchesOf(kernel: Kernel, placeOf: (buffer: number) => number): Touch[] {
  const lengths = lengthsOf(kernel);
  const written = outputsOf(kernel).map(
    ({ buffer, dtype, offset = 0 }, i): Touch => ({
      place: placeOf(buffer),
      dtype,
      start: offset,
      end: offset + lengths[i]!,
    }),
  );
  const touch = (binding: number, view: View, beyond = 0): Touch => {
    const { buffer, dtype } = kernel.bindings[binding]!;
    const { low, high } = rangeOf(view, view.shape);
    return {
      place: placeOf(buffer),
      dtype,
      start: low + Math.min(0, beyond),
      end: high + Math.max(0, beyond) + 1,
    };
  };
  const reads = readsOf(...expressionsOf(kernel)).map((expr) =>
    touch(expr.binding, expr.view, expr.kind === 'gather' ? (expr.extent - 1) * expr.stride : 0),
  );
  const operands = operandViews(kernel).map(({ binding, view }) => touch(binding, view));
  return [...written, ...reads, ...operands, ...wholes(kernel, placeOf)];
}

function operandViews(kernel: Kernel): readonly Operand[] {
  if (kernel.kind === 'contract') return [kernel.a, kernel.b];
  return kernel.kind === 'attend' ? Object.values(kernel.operands) : [];
}

/** What a scatter reads, from its start. */
function wholes(kernel: Kernel, placeOf: (buffer: number) => number): Touch[] {
  if (kernel.kind !== 'scatter') return [];
  const { outer, count, inner, index, values } = kernel;
  const whole = (binding: number, end: number): Touch => {
    const { buffer, dtype } = kernel.bindings[binding]!;
    return { place: placeOf(buffer), dtype, start: 0, end };
  };
  return [whole(index.binding, count), whole(values.binding, outer * count * inner)];
}

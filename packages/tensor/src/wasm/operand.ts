/**
 * An operand of a contraction as tables. Its address splits into parts that depend on the batch, on the panel axis
 * (m or n) and on k, and so does every guard:
 *
 *     address = batch[b] + panel[v] + k[j],    0 <= guardBatch[b] + guardPanel[v] + guardK[j] < limit
 *
 * Tables make any view (broadcast, strided, overlapping windows, padding) as simple as a matrix.
 */
import { bytesPerElement, type DType } from '../dtype.ts';
import type { Shape } from '../shape.ts';
import { type Affine, rangeOf, type View } from '../view.ts';

export interface Part {
  /** Byte offsets. */
  readonly address: Int32Array;
  /** For each guard, its share of the guarded index. */
  readonly guards: readonly Int32Array[];
}

export interface Operand {
  /** Equal for operands with equal tables. */
  readonly key: string;
  readonly dtype: DType;
  readonly batch: Part;
  readonly panel: Part;
  readonly k: Part;
  readonly limits: readonly number[];
  /** Whether every address, those outside the guards too, lies in the buffer or near enough to it to be read. */
  readonly isNear: boolean;
}

/** How far outside its buffer a load may begin: less than the margins of the memory. */
const nearBytes = 32768;

/** The operand's tables: which axes of its view make up the batch, the panel axis and k. */
export function operandTables(
  view: View,
  buffer: { readonly dtype: DType; readonly length: number },
  axes: {
    readonly batch: readonly number[];
    readonly panel: readonly number[];
    readonly k: readonly number[];
  },
): Operand {
  const size = bytesPerElement(buffer.dtype);
  const part = (own: readonly number[], withOffset: boolean): Part => ({
    address: values(view, view.shape, own, size, withOffset),
    guards: view.guards.map((guard) => values(guard, view.shape, own, 1, withOffset)),
  });
  const { low, high } = rangeOf(view, view.shape);
  return {
    key: JSON.stringify([view, buffer, axes]),
    dtype: buffer.dtype,
    batch: part(axes.batch, true),
    panel: part(axes.panel, false),
    k: part(axes.k, false),
    limits: view.guards.map(({ limit }) => limit),
    isNear: low * size >= -nearBytes && (high - buffer.length) * size <= nearBytes,
  };
}

/** scale (offset + sum_i strides_i x_i) for all x over the given axes, row-major. */
function values(
  f: Affine,
  shape: Shape,
  axes: readonly number[],
  scale: number,
  withOffset: boolean,
): Int32Array {
  let table = Int32Array.of(withOffset ? f.offset * scale : 0);
  for (const axis of axes) {
    const extent = shape[axis]!;
    const stride = f.strides[axis]! * scale;
    const next = new Int32Array(table.length * extent);
    for (let i = 0; i < table.length; i += 1) {
      for (let x = 0; x < extent; x += 1) next[i * extent + x] = table[i]! + stride * x;
    }
    table = next;
  }
  return table;
}

/** Steps of the last axis that has extent, in bytes and for each guard: what neighbours differ by in a regular run. */
export interface Steps {
  readonly address: number;
  readonly guards: readonly number[];
}

/** How most neighbours of a part differ: the steps of its first two entries. */
export function innerSteps(part: Part): Steps {
  const step = (table: Int32Array) => (table.length > 1 ? table[1]! - table[0]! : 0);
  return { address: step(part.address), guards: part.guards.map(step) };
}

/** Whether the entries from `start` up to `end` (or the last) are evenly spaced by these steps. */
export function isRegular(part: Part, start: number, end: number, steps: Steps): boolean {
  const even = (table: Int32Array, step: number) => {
    for (let i = start + 1; i < Math.min(end, table.length); i += 1) {
      if (table[i]! - table[i - 1]! !== step) return false;
    }
    return true;
  };
  return even(part.address, steps.address) && part.guards.every((table, g) => even(table, steps.guards[g]!));
}

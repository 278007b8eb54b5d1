/**
 * Products on adapters that compute on the CPU, whose rows of B lie a power of two apart: copied first with a cache line
 * between rows. Otherwise the rows of a column meet in few sets of the caches and push each other out (measured on lavapipe:
 * 27 rather than 40 GFLOP/s at 2048, 40 rather than 45 at 1024, where the copies take 3 ms and 1 ms).
 */
import type { ContractKernel, Kernel, MapKernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import { contiguousView, padView } from '../view.ts';
import type { Capabilities } from './capabilities.ts';
import type { Scratch } from './rewrite.ts';

/** Bytes between rows of B from which they meet in few sets of a cache, and rows of A that make a copy worth it then. */
const CROWDED = [
  { stride: 8192, rows: 256 },
  { stride: 4096, rows: 1024 },
] as const;
/** Elements put between rows: a cache line. */
const SPACE = 16;
/** Rows of B that a cache holds even so. */
const FEW_ROWS = 512;

/** The kernel, after a copy where that is worth it. */
export function spaceRows(
  kernel: ContractKernel,
  places: Scratch,
  { software, keptScores }: Capabilities,
): Kernel[] {
  const { batch, m, n, k, b } = kernel;
  const { view } = b;
  const [rows, columns] = [k[0] ?? 1, n[0] ?? 1];
  const spaced = [...batch, rows, columns + SPACE];
  const bytes = 4 * Math.abs(view.strides[batch.length] ?? 0);
  const isCrowded = CROWDED.some(({ stride, rows: least }) => bytes % stride === 0 && numel(m) >= least);
  const isPlain = k.length === 1 && n.length === 1 && view.strides.at(-1) === 1 && view.guards.length === 0;
  const isShared = batch.some((extent, i) => extent > 1 && view.strides[i] === 0);
  const { dtype } = kernel.bindings[b.binding]!;
  const suits =
    software && isPlain && !isShared && isCrowded && rows >= FEW_ROWS && bytes > 0 && dtype === 'f32';
  if (!suits || numel(spaced) > keptScores) return [kernel];
  const buffer = places.scratch('f32', numel(spaced));
  const none = batch.map(() => 0);
  const copied = padView(view, [...none, 0, 0], [...none, 0, SPACE]);
  const copy: MapKernel = {
    kind: 'map',
    label: `${kernel.label} rows apart`,
    shape: spaced,
    bindings: [kernel.bindings[b.binding]!],
    outputs: [{ buffer, dtype: 'f32', expr: { kind: 'load', type: 'f32', binding: 0, view: copied } }],
  };
  const bindings = [...kernel.bindings, { buffer, dtype: 'f32' as const }];
  const stored = { ...contiguousView(spaced), shape: view.shape };
  return [copy, { ...kernel, bindings, b: { binding: bindings.length - 1, view: stored } }];
}

/**
 * Kernels as the device can run them: one kernel of a plan to one or several, in the same language.
 *
 * A long fold with few outputs, and a deep contraction with a small result, are split so that they fill the device:
 * parts into scratch, then a fold of the parts. Scatters start from zeros. Where shaders cannot store single halves,
 * results other than maps are kept in f32 and then packed. Software adapters copy what would not stay in a CPU's caches.
 */
import { shapeOf } from '../compiler/drafts.ts';
import { operandsOf, readsOf, walk, withOperands } from '../compiler/expression.ts';
import type { DType } from '../dtype.ts';
import { DeviceError } from '../errors.ts';
import type {
  AttendKernel,
  ContractKernel,
  Expr,
  Kernel,
  MapKernel,
  Output,
  ReduceKernel,
  RowsKernel,
  Scalar,
  ScatterKernel,
} from '../kernel.ts';
import { numel, type Shape } from '../shape.ts';
import {
  type Affine,
  axisOf,
  contiguousView,
  type Guard,
  permuteView,
  substitute,
  type View,
} from '../view.ts';
import { attendApart, fitsApart } from './attendApart.ts';
import type { Buffers } from './bindings.ts';
import type { Capabilities } from './capabilities.ts';
import { tilesOf } from './contract.ts';
import { paddedBytes, pageCount } from './module.ts';
import { spaceRows } from './spaceRows.ts';

/** Buffers that live within one kernel of the plan. */
export interface Scratch {
  /** A new buffer, named like one of the plan. */
  scratch(dtype: DType, length: number): number;
}

/** The kernels that do the work of one, in order. */
export function rewrite(kernel: Kernel, places: Buffers & Scratch, capabilities: Capabilities): Kernel[] {
  switch (kernel.kind) {
    case 'map':
      return splitOutputs(kernel, places, capabilities);
    case 'reduce':
      return packLast(splitFold(kernel, places, capabilities), places, capabilities);
    case 'rows':
      return splitRows(kernel, places, capabilities);
    case 'contract':
      return packLast(
        splitDepth(kernel, places, capabilities).flatMap((part) =>
          part.kind === 'contract' ? spaceRows(part, places, capabilities) : [part],
        ),
        places,
        capabilities,
      );
    case 'scatter':
      return addToZeros(kernel, places);
    case 'attend':
      if (fitsApart(kernel, capabilities.keptScores)) {
        return attendApart(kernel, places).flatMap((part) => rewrite(part, places, capabilities));
      }
      return splitGradients(kernel, places, capabilities).flatMap((part) =>
        packHalves(part, places, capabilities),
      );
  }
}

const folded = (type: Scalar): Expr => ({ kind: 'folded', type });

function copyOf(label: string, from: number, fromDType: DType, shape: Shape, to: Output): MapKernel {
  const expr: Expr = { kind: 'load', type: 'f32', binding: 0, view: contiguousView(shape) };
  return {
    kind: 'map',
    label,
    shape,
    bindings: [{ buffer: from, dtype: fromDType }],
    outputs: [{ ...to, expr }],
  };
}

/** The kernels with a last one that packs halves, where the output's kernel cannot store them. */
function packLast(kernels: Kernel[], places: Scratch, { f16 }: Capabilities): Kernel[] {
  const last = kernels.at(-1)!;
  if (f16 || 'outputs' in last || last.output.dtype !== 'f16') return kernels;
  const shape = outputShape(last);
  const buffer = places.scratch('f32', numel(shape));
  const unpacked = { ...last, output: { ...last.output, buffer, offset: 0, dtype: 'f32' as const } };
  return [...kernels.slice(0, -1), unpacked, copyOf(last.label, buffer, 'f32', shape, last.output)];
}

function outputShape(kernel: ReduceKernel | ContractKernel | ScatterKernel): Shape {
  switch (kernel.kind) {
    case 'reduce':
      return kernel.shape;
    case 'contract':
      return [...kernel.batch, ...kernel.m, ...kernel.n];
    case 'scatter':
      return [kernel.outer, kernel.extent, kernel.inner];
  }
}

/** One kernel for dQ, whose invocations hold queries, and one for dK and dV, or each, if one may not bind so many. */
function splitGradients(
  kernel: AttendKernel,
  places: Buffers,
  { maxStorageBuffers }: Capabilities,
): AttendKernel[] {
  const ofKeys = kernel.outputs.filter(({ result }) => result === 'key' || result === 'value');
  const others = kernel.outputs.filter((output) => !ofKeys.includes(output));
  const read = new Set(kernel.bindings.map(({ buffer }) => places.place(buffer)));
  const together = read.size + ofKeys.length <= maxStorageBuffers;
  const groups = [others, ...(together ? [ofKeys] : ofKeys.map((output) => [output]))];
  return groups.filter(({ length }) => length > 0).map((outputs) => ({ ...kernel, outputs }));
}

/** The kernel, and one more to pack each output of halves, where shaders cannot store them alone. */
function packHalves(kernel: AttendKernel, places: Scratch, { f16 }: Capabilities): Kernel[] {
  const packing: Kernel[] = [];
  const outputs = kernel.outputs.map((output) => {
    if (f16 || output.dtype !== 'f16') return output;
    const shape = shapeOf(kernel, output);
    const buffer = places.scratch('f32', numel(shape));
    packing.push(copyOf(kernel.label, buffer, 'f32', shape, output));
    return { ...output, buffer, dtype: 'f32' as const };
  });
  return [{ ...kernel, outputs }, ...packing];
}

/** Sums need a place to grow in: the output, zeroed, or f32 scratch where it holds halves. */
function addToZeros(kernel: ScatterKernel, places: Scratch): Kernel[] {
  const shape = outputShape(kernel);
  const { output, label } = kernel;
  const half = output.dtype === 'f16';
  const buffer = half ? places.scratch('f32', numel(shape)) : output.buffer;
  const sums: Output = { ...output, buffer, dtype: half ? 'f32' : output.dtype };
  const type = sums.expr.type;
  const zeros: MapKernel = {
    kind: 'map',
    label: `${label} zeros`,
    shape,
    bindings: [],
    outputs: [{ ...sums, expr: { kind: 'constant', type, value: 0 } }],
  };
  const added = { ...kernel, output: sums };
  return half ? [zeros, added, copyOf(label, buffer, 'f32', shape, output)] : [zeros, added];
}

/** Kernels with as many of the outputs each as the device can bind with what they read. */
function splitOutputs(kernel: MapKernel, places: Buffers, capabilities: Capabilities): Kernel[] {
  const fits = (outputs: readonly Output[]) =>
    pagesOf(kernel, outputs, places, capabilities) <= capabilities.maxStorageBuffers;
  if (fits(kernel.outputs)) return [kernel];
  const groups: Output[][] = [];
  for (const output of inSafeOrder(kernel, places)) {
    const group = groups.at(-1);
    if (group && fits([...group, output])) group.push(output);
    else groups.push([output]);
  }
  return groups.map((outputs) => ({ ...kernel, outputs }));
}

/** What the outputs are computed from. */
function inputsOf(kernel: MapKernel, outputs: readonly Output[]): MapKernel['bindings'][number][] {
  return readsOf(...outputs.map(({ expr }) => expr)).map(({ binding }) => kernel.bindings[binding]!);
}

function readPlaces(kernel: MapKernel, outputs: readonly Output[], places: Buffers): Set<number> {
  return new Set(inputsOf(kernel, outputs).map(({ buffer }) => places.place(buffer)));
}

/** Buffers that a kernel of these outputs binds. */
function pagesOf(
  kernel: MapKernel,
  outputs: readonly Output[],
  places: Buffers,
  capabilities: Capabilities,
): number {
  const bytes = new Map<number, number>();
  for (const { buffer, dtype } of [...outputs, ...inputsOf(kernel, outputs)]) {
    const place = places.place(buffer);
    bytes.set(place, Math.max(bytes.get(place) ?? 0, paddedBytes(dtype, places.length(buffer))));
  }
  return [...bytes.values()].reduce((sum, own) => sum + pageCount(own, capabilities), 0);
}

/**
 * Outputs such that none overwrites what a later one reads.
 * @throws DeviceError when each overwrites what another reads
 */
function inSafeOrder(kernel: MapKernel, places: Buffers): Output[] {
  const left = [...kernel.outputs];
  const ordered: Output[] = [];
  while (left.length > 0) {
    const free = left.findIndex((output) => {
      const own = places.place(output.buffer);
      return left.every((other) => other === output || !readPlaces(kernel, [other], places).has(own));
    });
    if (free < 0) {
      throw new DeviceError(
        `kernel "${kernel.label}": too many buffers; its outputs overwrite each other's inputs`,
      );
    }
    ordered.push(...left.splice(free, 1));
  }
  return ordered;
}

/** Changes every expression under a root, operands first, each once. */
function rewriter(change: (expr: Expr) => Expr): (root: Expr) => Expr {
  const done = new Map<Expr, Expr>();
  return (root) => {
    for (const expr of walk(root)) {
      if (done.has(expr)) continue;
      done.set(
        expr,
        change(
          withOperands(
            expr,
            operandsOf(expr).map((operand) => done.get(operand)!),
          ),
        ),
      );
    }
    return done.get(root)!;
  };
}

/** What an expression over `shape` reads, read through a change of index space; its operands have been moved. */
function moveExpr(expr: Expr, shape: Shape, move: (view: View) => View): Expr {
  switch (expr.kind) {
    case 'load':
    case 'gather':
      return { ...expr, view: move(expr.view) };
    case 'coordinate': {
      const { offset, strides } = move({ shape, offset: expr.offset, strides: expr.strides, guards: [] });
      return { ...expr, offset, strides };
    }
    case 'inside': {
      const { guards } = move({ shape, offset: 0, strides: shape.map(() => 0), guards: expr.guards });
      return { ...expr, guards };
    }
    default:
      return expr;
  }
}

/** Divides an axis: x_axis = size * part + place, where parts may end beyond the axis. */
interface Division {
  readonly parts: number;
  readonly size: number;
}

/** A division of an axis into about so many parts, even if one is near; parts of the last axis are whole quads. */
function divide(shape: Shape, axis: number, wanted: number): Division | null {
  const extent = shape[axis] ?? 1;
  const quad = axis === shape.length - 1 ? 4 : 1;
  if (wanted < 2 || extent < 2) return null;
  for (let parts = Math.min(extent, wanted * 2); parts >= Math.max(2, wanted / 2); parts -= 1) {
    if (extent % parts === 0 && (extent / parts) % quad === 0) return { parts, size: extent / parts };
  }
  const size = Math.ceil(extent / Math.min(wanted, extent) / quad) * quad;
  const parts = Math.ceil(extent / size);
  return parts < 2 ? null : { parts, size };
}

/**
 * The rows that put the division of `axis` into an index space: the part becomes axis `partAxis` of the new space, the
 * place takes the old axis's position, and the other axes keep their order.
 */
function divisionRows(shape: Shape, axis: number, { parts, size }: Division, partAxis: number) {
  const rank = shape.length + 1;
  const target = (old: number) => (old < partAxis ? old : old + 1);
  const rows = shape.map((_, old): Affine => {
    const row = axisOf(rank, target(old));
    return old === axis ? { offset: 0, strides: row.strides.with(partAxis, size) } : row;
  });
  const divided = shape.with(axis, size).toSpliced(partAxis, 0, parts);
  const beyond: Guard[] = parts * size > shape[axis]! ? [{ ...rows[axis]!, limit: shape[axis]! }] : [];
  return { rows, shape: divided, beyond };
}

function divideView(view: View, division: ReturnType<typeof divisionRows>): View {
  const moved = substitute(view, division.shape, division.rows);
  return { ...moved, guards: [...moved.guards, ...division.beyond] };
}

function longest(shape: Shape): number {
  return shape.indexOf(Math.max(...shape));
}

/** A fold of few outputs over many terms, in two stages. An argmax stays whole: its parts would be two buffers. */
function splitFold(kernel: ReduceKernel, places: Scratch, { software }: Capabilities): Kernel[] {
  const [outputs, terms] = [numel(kernel.shape), numel(kernel.reduced)];
  const [enough, least] = software ? [128, 512] : [512, 8192];
  const wanted = Math.min(Math.ceil(enough / outputs), Math.floor(terms / least));
  const axis = longest(kernel.reduced);
  const { fold } = kernel;
  if (fold === 'argmax' || outputs === 0) return [kernel];
  const parts = divide(kernel.reduced, axis, wanted);
  if (parts === null) return [kernel];
  const rank = kernel.shape.length;
  const space = [...kernel.shape, ...kernel.reduced];
  const division = divisionRows(space, rank + axis, parts, rank);
  const { type } = kernel.body;
  const moved = rewriter((expr) => moveExpr(expr, space, (view) => divideView(view, division)))(kernel.body);
  const neutral: Expr = { kind: 'constant', type, value: fold === 'sum' ? 0 : lowest(type) };
  const condition: Expr = { kind: 'inside', type: 'bool', guards: division.beyond };
  const body: Expr =
    division.beyond.length === 0 ? moved : { kind: 'select', type, condition, yes: moved, no: neutral };
  const shape = [...kernel.shape, parts.parts];
  const buffer = places.scratch(type, numel(shape));
  const first: ReduceKernel = {
    ...kernel,
    label: `${kernel.label} parts`,
    shape,
    reduced: division.shape.slice(rank + 1),
    body,
    output: { buffer, dtype: type, expr: folded(type) },
  };
  return [first, foldOfParts(kernel, fold, kernel.shape, parts.parts, buffer, type, contiguousView(shape))];
}

/** Where rows have halves to store that shaders cannot store alone: each fold, then maps, with folds in scratch. */
function splitRows(kernel: RowsKernel, places: Buffers & Scratch, capabilities: Capabilities): Kernel[] {
  if (capabilities.f16 || kernel.outputs.every(({ dtype }) => dtype !== 'f16')) return [kernel];
  const { label, shape, reduced } = kernel;
  const full = [...shape, ...reduced];
  const bindings = [...kernel.bindings];
  const loads: Expr[] = [];
  const withLoads = rewriter((expr) => (expr.kind === 'folded' ? loads[expr.fold!]! : expr));
  const ofRow = (view: View): View => ({
    ...view,
    shape,
    strides: view.strides.slice(0, shape.length),
    guards: view.guards.map((guard) => ({ ...guard, strides: guard.strides.slice(0, shape.length) })),
  });
  const kernels: Kernel[] = kernel.folds.map(({ fold, body }): ReduceKernel => {
    const { type } = body;
    const buffer = places.scratch(type, numel(shape));
    const whole = withLoads(body);
    const own = [...bindings];
    const rows = contiguousView(shape);
    const view = { ...rows, shape: full, strides: [...rows.strides, ...reduced.map(() => 0)] };
    loads.push({ kind: 'load', type, binding: bindings.push({ buffer, dtype: type }) - 1, view });
    return {
      kind: 'reduce',
      label,
      bindings: own,
      shape,
      reduced,
      fold,
      body: whole,
      output: { buffer, dtype: type, expr: folded(type) },
    };
  });
  const alongRows = rewriter((expr) => moveExpr(expr, full, ofRow));
  for (const per of ['element', 'row'] as const) {
    const outputs = kernel.outputs
      .filter((output) => output.per === per)
      .map((output): Output => {
        const expr = withLoads(output.expr);
        return { ...output, expr: per === 'row' ? alongRows(expr) : expr };
      });
    if (outputs.length === 0) continue;
    const map: MapKernel = { kind: 'map', label, bindings, shape: per === 'row' ? shape : full, outputs };
    kernels.push(...splitOutputs(map, places, capabilities));
  }
  return kernels;
}

function lowest(type: Scalar): number {
  return type === 'f32' ? Number.NEGATIVE_INFINITY : type === 'i32' ? -(2 ** 31) : 0;
}

/** Folds the parts in scratch, the last axis of the view, and does what the whole kernel does with its result. */
function foldOfParts(
  kernel: ReduceKernel | ContractKernel,
  fold: 'sum' | 'max',
  shape: Shape,
  parts: number,
  buffer: number,
  type: Scalar,
  view: View,
): ReduceKernel {
  return {
    kind: 'reduce',
    label: kernel.label,
    bindings: [...kernel.bindings, { buffer, dtype: type }],
    shape,
    reduced: [parts],
    fold,
    body: { kind: 'load', type, binding: kernel.bindings.length, view },
    output: kernel.output,
  };
}

/** A deep contraction with few tiles, in two stages: slices of k as a batch, then their sum. */
function splitDepth(kernel: ContractKernel, places: Scratch, { software }: Capabilities): Kernel[] {
  const [m, n, k] = [kernel.m, kernel.n, kernel.k].map(numel) as [number, number, number];
  const outer = [...kernel.batch, ...kernel.m, ...kernel.n];
  const tiles = software ? numel(kernel.batch) * Math.ceil(m / 16) * Math.ceil(n / 32) : tilesOf(kernel);
  const [enough, least] = software ? [8, 256] : [192, 384];
  const axis = longest(kernel.k);
  const wanted = Math.min(Math.floor(enough / Math.max(1, tiles)), Math.floor(k / least));
  const parts = divide(kernel.k, axis, wanted);
  if (parts === null || numel(outer) === 0) return [kernel];
  const rank = kernel.batch.length;
  const a = divisionRows(kernel.a.view.shape, rank + kernel.m.length + axis, parts, rank);
  const b = divisionRows(kernel.b.view.shape, rank + axis, parts, rank);
  const buffer = places.scratch('f32', numel(outer) * parts.parts);
  const slices: ContractKernel = {
    ...kernel,
    label: `${kernel.label} slices`,
    batch: [...kernel.batch, parts.parts],
    k: kernel.k.with(axis, parts.size),
    a: { ...kernel.a, view: divideView(kernel.a.view, a) },
    b: { ...kernel.b, view: divideView(kernel.b.view, b) },
    output: { buffer, dtype: 'f32', expr: folded('f32') },
  };
  // Scratch is [batch, parts, m, n]; the fold reads it as [batch, m, n, parts].
  const stored = contiguousView([...kernel.batch, parts.parts, ...kernel.m, ...kernel.n]);
  const axes = [...stored.shape.keys()];
  const view = permuteView(stored, [...axes.toSpliced(rank, 1), rank]);
  return [slices, foldOfParts(kernel, 'sum', outer, parts.parts, buffer, 'f32', view)];
}

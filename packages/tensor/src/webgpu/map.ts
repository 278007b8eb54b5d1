/**
 * Map kernels: each invocation computes one element, or several quads of four neighbours where the innermost
 * coordinate allows.
 */
import { walk } from '../compiler/expression.ts';
import type { Expr, MapKernel, Output } from '../kernel.ts';
import { contiguousStrides, numel } from '../shape.ts';
import type { Affine } from '../view.ts';
import { storeOne, storePair, storeQuad } from './access.ts';
import { type Buffers, KernelBindings } from './bindings.ts';
import type { Capabilities } from './capabilities.ts';
import { Emitter, type Value } from './emitter.ts';
import { GROUP, LANE, type Launch, launch, loopStart, spaces, workgroupSizeFor } from './launch.ts';
import { Module, Statements } from './module.ts';
import { type Coordinate, coordinatesOf, decompose, decomposeRuns, Point, quadsIn } from './point.ts';

/** The affine functions of the index that expressions read through. */
export function functionsOf(...roots: readonly Expr[]): Affine[] {
  return walk(...roots).flatMap((expr): readonly Affine[] => {
    switch (expr.kind) {
      case 'load':
      case 'gather':
        return [expr.view, ...expr.view.guards];
      case 'coordinate':
        return [expr];
      case 'inside':
        return expr.guards;
      default:
        return [];
    }
  });
}

/** The launch of a map kernel. */
export function emitMap(kernel: MapKernel, buffers: Buffers, capabilities: Capabilities): Launch {
  const module = new Module(capabilities);
  const bindings = new KernelBindings(module, buffers, kernel, kernel.outputs);
  const roots = kernel.outputs.map(({ expr }) => expr);
  const coordinates = coordinatesOf(kernel.shape, functionsOf(...roots));
  const last = coordinates.at(-1);
  // An unfinished quad ends in the buffers' padding, which only the end of a single coordinate may touch.
  const wide = last !== undefined && (last.extent % 4 === 0 || coordinates.length === 1);
  const common = { kernel, module, bindings, coordinates };
  if (wide) return emitQuads({ ...common, last });
  const packed = kernel.outputs.some(({ dtype }) => dtype === 'f16') && !capabilities.f16;
  return packed ? emitPairs(common) : emitSingles(common);
}

interface Parts {
  readonly kernel: MapKernel;
  readonly module: Module;
  readonly bindings: KernelBindings;
  readonly coordinates: readonly Coordinate[];
}

function finish({ kernel, module }: Parts, invocations: number, body: Statements, size: number): Launch {
  return launch(module, {
    label: kernel.label,
    description: `map ${spaces(kernel.shape)}`,
    workgroupSize: size,
    workgroups: Math.ceil(invocations / size),
    body,
  });
}

/** The quads of an invocation: `length` of them side by side, in each of `tall` rows. */
interface Block {
  readonly length: number;
  readonly tall: number;
}

/** Rows of a block: what does not change from row to row is read once for them. */
const TALL = 4;

/**
 * A lane of a software adapter does a cache line at a time, in several rows where they share what they read (reads are
 * what costs there: a bias costs as much as the rest); lanes of a GPU read side by side.
 */
function blockOf(
  coordinates: readonly Coordinate[],
  functions: readonly Affine[],
  { software }: Capabilities,
): Block {
  const quads = quadsIn(coordinates);
  if (!software || quads < 1024) return { length: 1, tall: 1 };
  const inRow = coordinates.length === 1 ? 4 : coordinates.at(-1)!.extent / 4;
  const length = [4, 2].find((own) => inRow % own === 0) ?? 1;
  const [row, last] = [coordinates.at(-2), coordinates.at(-1)!];
  const isShared = functions.some(
    ({ strides }) => row !== undefined && strides[row.axis] === 0 && strides[last.axis] !== 0,
  );
  const tall = isShared && row!.extent % TALL === 0 && quads >= 1024 * TALL ? TALL : 1;
  return { length, tall };
}

function emitQuads(parts: Parts & { readonly last: Coordinate }): Launch {
  const { kernel, module, bindings, coordinates, last } = parts;
  const roots = kernel.outputs.map(({ expr }) => expr);
  bindings.declareQuads(roots, kernel.outputs, coordinates, last);
  const quads = quadsIn(coordinates);
  const { length, tall } = blockOf(coordinates, functionsOf(...roots), module.capabilities);
  const runs = Math.ceil(quads / (length * tall));
  const size = workgroupSizeFor(runs, module.capabilities);
  const body = new Statements(module);
  body.line(`let run = ${GROUP} * ${size}u + ${LANE};`);
  body.line(`if (run >= ${runs}u) { return; }`);
  const bands = [...coordinates];
  if (tall > 1) {
    const row = bands.at(-2)!;
    bands[bands.length - 2] = { ...row, extent: row.extent / tall };
  }
  const starts = decomposeRuns(body, 0, bands, 'run', 4 * length);
  const named = coordinates.map((coordinate, i) => ({ ...starts[i]!, extent: coordinate.extent }));
  const blocks = [body];
  if (length > 1) {
    const start = named.at(-1)!;
    const side = new Statements(module, body);
    blocks.push(side);
    named[named.length - 1] = { ...start, level: 1, name: side.let('i32', `${start.name} + i32(step) * 4`) };
  }
  if (tall > 1) {
    const start = named.at(-2)!;
    const row = new Statements(module, blocks.at(-1)!);
    blocks.push(row);
    const name = row.let('i32', `${start.name} * ${tall} + i32(r)`);
    named[named.length - 2] = { ...start, level: blocks.length - 1, name };
  }
  const inner = blocks.at(-1)!;
  const quad = named.at(-1)!;
  if (quads % (length * tall) !== 0) inner.line(`if (${quad.name} >= ${last.extent}) { break; }`);
  const point = new Point(blocks, named, quad);
  const emitter = new Emitter(module, bindings, point);
  // Every value before any store: an output may overwrite what the same element reads.
  const values = roots.map((root) => emitter.wide(emitter.value(root)));
  const position = inner.let(
    'u32',
    `u32(${point.affine({ offset: 0, strides: contiguousStrides(kernel.shape) }).text})`,
  );
  kernel.outputs.forEach((output, i) => {
    storeFour(parts, output, inner, position, values[i]!);
  });
  const from = loopStart(module.capabilities);
  if (tall > 1) blocks.at(-2)!.nest(`for (var r = ${from}; r < ${tall}u; r += 1u)`, inner);
  if (length > 1) body.nest(`for (var step = ${from}; step < ${length}u; step += 1u)`, blocks[1]!);
  return finish(parts, runs, body, size);
}

function storeFour(
  { kernel, module, bindings }: Parts,
  output: Output,
  block: Statements,
  position: string,
  value: string,
): void {
  const access = bindings.output(output);
  if (access.binding.quads) {
    block.line(storeQuad(module, access, position, value));
    return;
  }
  const length = numel(kernel.shape);
  ['x', 'y', 'z', 'w'].forEach((component, j) => {
    const store = storeOne(module, access, `${position} + ${j}u`, `${value}.${component}`);
    block.line(length % 4 === 0 ? store : `if (${position} + ${j}u < ${length}u) { ${store} }`);
  });
}

function emitSingles(parts: Parts): Launch {
  const { kernel, module, bindings } = parts;
  const length = numel(kernel.shape);
  const size = workgroupSizeFor(length, module.capabilities);
  const body = new Statements(module);
  body.line(`let position = ${GROUP} * ${size}u + ${LANE};`);
  body.line(`if (position >= ${length}u) { return; }`);
  const values = valuesAt(parts, body, 'position');
  kernel.outputs.forEach((output, i) => {
    const access = bindings.output(output);
    body.line(storeOne(module, access, 'position', values[i]!.name));
  });
  return finish(parts, length, body, size);
}

/** Halves that are packed in pairs: an invocation computes two elements, whatever rows they are in. */
function emitPairs(parts: Parts): Launch {
  const { kernel, module, bindings } = parts;
  const length = numel(kernel.shape);
  const pairs = Math.ceil(length / 2);
  const size = workgroupSizeFor(pairs, module.capabilities);
  const body = new Statements(module);
  body.line(`let pair = ${GROUP} * ${size}u + ${LANE};`);
  body.line(`if (pair >= ${pairs}u) { return; }`);
  const second = body.let('u32', length % 2 === 0 ? 'pair * 2u + 1u' : `min(pair * 2u + 1u, ${length - 1}u)`);
  const values = [
    valuesAt(parts, body, body.let('u32', 'pair * 2u')),
    valuesAt(parts, body, second),
  ] as const;
  kernel.outputs.forEach((output, i) => {
    const access = bindings.output(output);
    const [a, b] = [values[0][i]!.name, values[1][i]!.name];
    if (access.dtype === 'f16') {
      body.line(storePair(module, access, 'pair', a, b));
      return;
    }
    body.line(storeOne(module, access, 'pair * 2u', a));
    body.line(storeOne(module, access, second, b));
  });
  return finish(parts, pairs, body, size);
}

function valuesAt(
  { kernel, module, bindings, coordinates }: Parts,
  body: Statements,
  position: string,
): Value[] {
  const point = new Point([body], decompose(body, 0, coordinates, position));
  const emitter = new Emitter(module, bindings, point);
  return kernel.outputs.map(({ expr }) => emitter.value(expr));
}

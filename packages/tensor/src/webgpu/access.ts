/** WGSL for reading and writing elements of bindings: storage types to registers and back. */
import type { DType } from '../dtype.ts';
import type { OutputAccess } from './bindings.ts';
import { type Binding, type Module, registerType, scalarOf } from './module.ts';

/** Zero of the dtype's register type. */
export function zero(dtype: DType, wide: boolean): string {
  return `${registerType(scalarOf(dtype), wide)}()`;
}

/** The element at an address (i32), in a register. */
export function loadOne(module: Module, binding: Binding, dtype: DType, address: string): string {
  requireDeclared(binding, false);
  if (isPacked(module, dtype)) {
    return `unpack2x16float(${module.cell(binding, `u32(${address}) >> 1u`)})[u32(${address}) & 1u]`;
  }
  return fromStorage(binding, dtype, module.cell(binding, address), false);
}

/** The four elements from an address that is a multiple of 4. */
export function loadQuad(module: Module, binding: Binding, dtype: DType, address: string): string {
  return fromCell(module, binding, dtype, cellAt(module, binding, dtype, address, true), true);
}

/** Whether halves lie in pairs that shaders take apart. */
function isPacked(module: Module, dtype: DType): boolean {
  return dtype === 'f16' && !module.capabilities.f16;
}

/**
 * The cell of storage at an address (i32), as it is: a kernel that has other work to do while the cell is on its way
 * makes numbers of it later, by `fromCell`. Not for single halves packed in pairs, whose cell is not all theirs.
 */
export function cellAt(
  module: Module,
  binding: Binding,
  dtype: DType,
  address: string,
  quad: boolean,
): string {
  requireDeclared(binding, quad);
  if (!quad && isPacked(module, dtype)) throw new Error('internal: the cell of a packed half');
  return module.cell(binding, quad ? `u32(${address}) >> 2u` : address);
}

/** What a cell holds, in a register. */
export function fromCell(
  module: Module,
  binding: Binding,
  dtype: DType,
  cell: string,
  quad: boolean,
): string {
  if (isPacked(module, dtype)) return `${module.call('unpackHalves')}(${cell})`;
  return fromStorage(binding, dtype, cell, quad);
}

function fromStorage(binding: Binding, dtype: DType, cell: string, wide: boolean): string {
  if (dtype === 'bool') return `(${cell} != ${wide ? 'vec4u()' : '0u'})`;
  const type = registerType(scalarOf(dtype), wide);
  if (binding.words && dtype !== 'u32') return `bitcast<${type}>(${cell})`;
  return dtype === 'f16' ? `${type}(${cell})` : cell;
}

/** A statement that writes element `at` of an output. Halves packed in pairs cannot be written so (see `storePair`). */
export function storeOne(
  module: Module,
  { binding, dtype, offset }: OutputAccess,
  at: string,
  value: string,
): string {
  requireDeclared(binding, false);
  if (dtype === 'f16' && !module.capabilities.f16) throw new Error('internal: a packed half stored alone');
  return module.assign(binding, from(offset, at), toStorage(binding, dtype, value, false));
}

/** A statement that writes elements 2i and 2i + 1 of halves packed in pairs. */
export function storePair(
  module: Module,
  { binding, offset }: OutputAccess,
  pair: string,
  first: string,
  second: string,
): string {
  return module.assign(binding, from(offset / 2, pair), `pack2x16float(vec2f(${first}, ${second}))`);
}

/** A statement that writes four elements of an output, from element `at`, a multiple of 4. */
export function storeQuad(
  module: Module,
  { binding, dtype, offset }: OutputAccess,
  at: string,
  value: string,
): string {
  requireDeclared(binding, true);
  const packed = dtype === 'f16' && !module.capabilities.f16;
  const stored = packed ? `${module.call('packHalves')}(${value})` : toStorage(binding, dtype, value, true);
  return module.assign(binding, from(offset / 4, `u32(${at}) >> 2u`), stored);
}

/** A place counted from where an output begins in its buffer. */
function from(start: number, place: string): string {
  return start === 0 ? place : `${start}u + (${place})`;
}

function toStorage(binding: Binding, dtype: DType, value: string, wide: boolean): string {
  if (dtype === 'f16') return wide ? `vec4<f16>(${value})` : `f16(${value})`;
  if (dtype === 'bool') return wide ? `vec4u(${value})` : `u32(${value})`;
  if (binding.words && dtype !== 'u32') return `bitcast<${wide ? 'vec4u' : 'u32'}>(${value})`;
  return value;
}

function requireDeclared(binding: Binding, quads: boolean): void {
  if (binding.quads !== quads) throw new Error(`internal: ${binding.name} is declared for other accesses`);
}

/** A WGSL module of one kernel while it is written: its buffers, helper functions and statements. */
import type { Span } from '../compiler/spans.ts';
import { bytesPerElement, type DType } from '../dtype.ts';
import type { Scalar } from '../kernel.ts';
import { type Capabilities, pageBytes } from './capabilities.ts';
import { type FunctionName, functionName, functionSources } from './functions.ts';

/** A buffer as one kernel sees it. The same place is bound once, however many of the kernel's bindings name it. */
export interface Binding {
  readonly name: string;
  /** Which of the program's buffers (see program.ts). */
  readonly place: number;
  /** Of the first access; others may differ, see `words`. */
  readonly dtype: DType;
  /** Bytes before what the kernel's addresses count from. */
  readonly startBytes: number;
  /** Bytes that the kernel may touch from there on. */
  bytes: number;
  written: boolean;
  /** Declared as quads: every access is to four aligned neighbours. */
  quads: boolean;
  /** Declared as plain words, because the kernel reads one type and writes another in place. */
  words: boolean;
}

/** One of the buffers that hold what a binding names. */
export interface Page {
  readonly binding: Binding;
  readonly page: number;
  /** Its WGSL variable. */
  readonly name: string;
  readonly bytes: number;
}

/** Bytes that a buffer's elements take, in whole quads of words, so that code may touch the last quad whole. */
export function paddedBytes(dtype: DType, length: number): number {
  return Math.max(16, Math.ceil((length * bytesPerElement(dtype)) / 16) * 16);
}

/** How many buffers hold so many bytes. */
export function pageCount(bytes: number, capabilities: Capabilities): number {
  return Math.ceil(bytes / pageBytes(capabilities));
}

const registerTypes: Readonly<Record<Scalar, readonly [string, string]>> = {
  f32: ['f32', 'vec4f'],
  i32: ['i32', 'vec4i'],
  u32: ['u32', 'vec4u'],
  bool: ['bool', 'vec4<bool>'],
};

/** The WGSL type of one value in a register, or of four. */
export function registerType(type: Scalar, wide: boolean): string {
  return registerTypes[type][wide ? 1 : 0];
}

/** What a buffer's elements become in registers. */
export function scalarOf(dtype: DType): Scalar {
  return dtype === 'f16' || dtype === 'f64' ? 'f32' : dtype;
}

export class Module {
  readonly capabilities: Capabilities;
  readonly bindings: Binding[] = [];
  readonly #functions = new Map<string, string>();
  readonly #globals: string[] = [];
  #names = 0;
  #usesSubgroups = false;
  #usesMatrices = false;

  constructor(capabilities: Capabilities) {
    this.capabilities = capabilities;
  }

  /** A name that nothing else in the module has. */
  fresh(prefix: string): string {
    this.#names += 1;
    return `${prefix}${this.#names}`;
  }

  /** The module's binding for a place, made at the first call. */
  bind(place: number, dtype: DType, { start, end }: Span, written: boolean): Binding {
    const startBytes = start * bytesPerElement(dtype);
    const bytes = paddedBytes(dtype, end) - startBytes;
    const known = this.bindings.find((binding) => binding.place === place);
    if (known !== undefined) {
      known.bytes = Math.max(known.bytes, bytes);
      known.written ||= written;
      known.words ||= known.dtype !== dtype;
      return known;
    }
    const name = `b${this.bindings.length}`;
    const binding: Binding = { name, place, dtype, startBytes, bytes, written, quads: false, words: false };
    this.bindings.push(binding);
    return binding;
  }

  /** What the module binds, in order of the binding numbers: every page of every binding. */
  get pages(): readonly Page[] {
    const size = pageBytes(this.capabilities);
    return this.bindings.flatMap((binding) => {
      const count = this.#pages(binding);
      return Array.from({ length: count }, (_, page) => ({
        binding,
        page,
        name: count === 1 ? binding.name : `${binding.name}_${page}`,
        bytes: Math.min(size, binding.bytes - page * size),
      }));
    });
  }

  /** Functions that find a cell in the pages of a binding that has several. */
  #pagedAccess(binding: Binding): string[] {
    const pages = this.pages.filter((page) => page.binding === binding);
    if (pages.length === 1) return [];
    const type = storageType(binding, this.capabilities.f16);
    const cells = pageBytes(this.capabilities) / cellBytes(type);
    const choose = (access: (cell: string) => string) =>
      pages.map(({ name, page }, i) => {
        const label = i === pages.length - 1 ? 'default' : `case ${page}u`;
        return `${label}: { ${access(`${name}[at % ${cells}u]`)} }`;
      });
    const read = choose((cell) => `return ${cell};`).join(' ');
    const write = choose((cell) => `${cell} = value;`).join(' ');
    return [
      `fn read_${binding.name}(at: u32) -> ${type} { switch at / ${cells}u { ${read} } }`,
      ...(binding.written
        ? [`fn write_${binding.name}(at: u32, value: ${type}) { switch at / ${cells}u { ${write} } }`]
        : []),
    ];
  }

  /** The name to call a helper function by. */
  call(name: FunctionName, wide = false): string {
    for (const [own, text] of functionSources(name, wide)) this.#functions.set(own, text);
    return functionName(name, wide);
  }

  /** Adds a declaration outside functions, once. */
  declare(text: string): void {
    if (!this.#globals.includes(text)) this.#globals.push(text);
  }

  /** The WGSL of a cell of the binding: an element, a quad or a pair of halves, as it is declared. */
  cell(binding: Binding, index: string): string {
    return this.#pages(binding) === 1 ? `${binding.name}[${index}]` : `read_${binding.name}(u32(${index}))`;
  }

  /** The WGSL type of a cell of the binding. */
  cellType(binding: Binding): string {
    return storageType(binding, this.capabilities.f16);
  }

  /** A statement that writes a cell. */
  assign(binding: Binding, index: string, value: string): string {
    return this.#pages(binding) === 1
      ? `${binding.name}[${index}] = ${value};`
      : `write_${binding.name}(u32(${index}), ${value});`;
  }

  #pages({ bytes }: Binding): number {
    return pageCount(bytes, this.capabilities);
  }

  useSubgroups(): void {
    this.#usesSubgroups = true;
  }

  /** Subgroup matrices, and the invocation's subgroup as SUBGROUP (see launch.ts). */
  useMatrices(): void {
    this.#usesSubgroups = true;
    this.#usesMatrices = true;
  }

  get usesMatrices(): boolean {
    return this.#usesMatrices;
  }

  /** The whole text, with `main` doing the statements. */
  render(workgroupSize: number, parameters: readonly string[], statements: readonly string[]): string {
    const halves = this.capabilities.f16 && this.bindings.some(({ dtype }) => dtype === 'f16');
    return [
      ...(halves ? ['enable f16;'] : []),
      ...(this.#usesSubgroups ? ['enable subgroups;'] : []),
      ...(this.#usesMatrices ? ['enable chromium_experimental_subgroup_matrix;'] : []),
      ...this.pages.map(({ binding, name }, i) => {
        const access = binding.written ? 'read_write' : 'read';
        const type = storageType(binding, this.capabilities.f16);
        return `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`;
      }),
      ...this.bindings.flatMap((binding) => this.#pagedAccess(binding)),
      ...this.#globals,
      ...this.#functions.values(),
      `@compute @workgroup_size(${workgroupSize})`,
      `fn main(${parameters.join(', ')}) {`,
      ...statements.map((line) => `  ${line}`),
      '}',
      '',
    ].join('\n');
  }
}

function storageType({ dtype, quads, words }: Binding, f16: boolean): string {
  if (dtype === 'f16') {
    if (f16) return quads ? 'vec4<f16>' : 'f16';
    return quads ? 'vec2u' : 'u32'; // pairs of halves
  }
  const type = words || dtype === 'bool' ? 'u32' : dtype;
  return quads ? `vec4<${type}>` : type;
}

/** Bytes of a value of a storage type. */
function cellBytes(type: string): number {
  if (type === 'f16') return 2;
  return type === 'vec2u' || type === 'vec4<f16>' ? 8 : type.startsWith('vec4') ? 16 : 4;
}

/** Statements of one WGSL block, where equal expressions share a name. */
export class Statements {
  readonly lines: string[] = [];
  readonly #module: Module;
  readonly #outer: Statements | null;
  readonly #known = new Map<string, string>();

  constructor(module: Module, outer: Statements | null = null) {
    this.#module = module;
    this.#outer = outer;
  }

  /** The name of an immutable value, computed here or in a block around this one. */
  let(type: string, text: string): string {
    const known = this.#lookup(text);
    if (known !== undefined) return known;
    const name = this.#module.fresh('v');
    this.lines.push(`let ${name}: ${type} = ${text};`);
    this.#known.set(text, name);
    return name;
  }

  #lookup(text: string): string | undefined {
    return this.#known.get(text) ?? (this.#outer === null ? undefined : this.#outer.#lookup(text));
  }

  line(text: string): void {
    this.lines.push(text);
  }

  /** Appends a block of its own: `head { ... }`. */
  nest(head: string, inner: Statements): void {
    this.lines.push(`${head} {`, ...inner.lines.map((line) => `  ${line}`), '}');
  }
}

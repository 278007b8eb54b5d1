/** A WebAssembly assembler: functions are written instruction by instruction, modules are encoded to bytes. */
import { hashWords } from './hash.ts';
import { type OpName, opcodes } from './opcodes.ts';

export type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

const typeBytes: Readonly<Record<ValueType, number>> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

/** An unsigned LEB128 number. */
function unsigned(value: number): number[] {
  if (value >>> 0 < 0x80) return [value];
  const bytes: number[] = [];
  let rest = value >>> 0;
  do {
    bytes.push(rest >= 0x80 ? (rest & 0x7f) | 0x80 : rest);
    rest >>>= 7;
  } while (rest !== 0);
  return bytes;
}

/** A signed LEB128 number of 32 bits. */
function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = value | 0;
  for (;;) {
    const byte = rest & 0x7f;
    rest >>= 7;
    const done = (rest === 0 && (byte & 0x40) === 0) || (rest === -1 && (byte & 0x40) !== 0);
    bytes.push(done ? byte : byte | 0x80);
    if (done) return bytes;
  }
}

function utf8(text: string): number[] {
  const bytes = new TextEncoder().encode(text);
  return [...unsigned(bytes.length), ...bytes];
}

/** A local variable of a function. */
export type Local = number;

/** Instructions of one function, in order. Sections are written apart and joined with `append`. */
export class Code {
  readonly bytes: number[] = [];

  /** An instruction with its immediates: an index, a memory offset, lanes, or offset and lane. */
  op(name: OpName, ...immediates: readonly number[]): this {
    const { bytes, immediate, align } = opcodes[name];
    for (const byte of bytes) this.bytes.push(byte);
    const [first = 0, second = 0] = immediates;
    switch (immediate) {
      case 'plain':
        break;
      case 'index':
        this.bytes.push(...unsigned(first));
        break;
      case 'memory':
        this.bytes.push(align, ...unsigned(first));
        break;
      case 'lane':
        this.bytes.push(first);
        break;
      case 'memoryLane':
        this.bytes.push(align, ...unsigned(first), second);
        break;
      case 'shuffle':
        this.bytes.push(...immediates);
    }
    return this;
  }

  get(...locals: readonly Local[]): this {
    for (const local of locals) this.op('local.get', local);
    return this;
  }

  set(local: Local): this {
    return this.op('local.set', local);
  }

  tee(local: Local): this {
    return this.op('local.tee', local);
  }

  i32(value: number): this {
    this.bytes.push(0x41, ...signed(value));
    return this;
  }

  i64(value: bigint): this {
    this.bytes.push(0x42);
    let rest = BigInt.asIntN(64, value);
    for (;;) {
      const byte = Number(rest & 0x7fn);
      rest >>= 7n;
      const done = (rest === 0n && (byte & 0x40) === 0) || (rest === -1n && (byte & 0x40) !== 0);
      this.bytes.push(done ? byte : byte | 0x80);
      if (done) return this;
    }
  }

  f64(value: number): this {
    this.bytes.push(0x44, ...new Uint8Array(new Float64Array([value]).buffer));
    return this;
  }

  /** Four 32-bit words, lane 0 first. */
  v128(words: readonly number[]): this {
    this.bytes.push(0xfd, 0x0c, ...new Uint8Array(Uint32Array.from(words, (word) => word >>> 0).buffer));
    return this;
  }

  /** Shuffles 32-bit lanes of two vectors: lanes 0-3 are the first vector's, 4-7 the second's. */
  shuffle32(...lanes: readonly number[]): this {
    return this.op('i8x16.shuffle', ...lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)));
  }

  block(body: () => void): this {
    return this.structured(0x02, body);
  }

  loop(body: () => void): this {
    return this.structured(0x03, body);
  }

  /** Takes the condition from the stack. */
  if(then: () => void, otherwise?: () => void): this {
    this.bytes.push(0x04, 0x40);
    then();
    if (otherwise) {
      this.bytes.push(0x05);
      otherwise();
    }
    this.bytes.push(0x0b);
    return this;
  }

  callIndirect(type: number): this {
    this.bytes.push(0x11, ...unsigned(type), 0);
    return this;
  }

  append(section: Code): this {
    for (const byte of section.bytes) this.bytes.push(byte);
    return this;
  }

  private structured(opcode: number, body: () => void): this {
    this.bytes.push(opcode, 0x40);
    body();
    this.bytes.push(0x0b);
    return this;
  }
}

/** A function being written: `entry` runs once, before `body`. */
export class FunctionBuilder {
  readonly entry = new Code();
  readonly body = new Code();
  private readonly locals: ValueType[] = [];
  readonly params: readonly ValueType[];
  readonly results: readonly ValueType[];

  constructor(params: readonly ValueType[], results: readonly ValueType[] = []) {
    this.params = params;
    this.results = results;
  }

  local(type: ValueType): Local {
    this.locals.push(type);
    return this.params.length + this.locals.length - 1;
  }

  /** Locals, instructions and end, with their length before them. */
  encode(): number[] {
    const groups: { type: ValueType; count: number }[] = [];
    for (const type of this.locals) {
      const last = groups.at(-1);
      if (last?.type === type) last.count += 1;
      else groups.push({ type, count: 1 });
    }
    const declarations = groups.flatMap(({ type, count }) => [...unsigned(count), typeBytes[type]]);
    const size = declarations.length + this.entry.bytes.length + this.body.bytes.length + 1;
    return unsigned(size + unsigned(groups.length).length).concat(
      unsigned(groups.length),
      declarations,
      this.entry.bytes,
      this.body.bytes,
      [0x0b],
    );
  }
}

/**
 * A module being written. It imports its memory as "env" "memory" and the address of its constants as "env" "tables"
 * (an i32), and has one table of all its functions.
 */
export class ModuleBuilder {
  private readonly types = new Map<string, number>();
  private readonly functions: { type: number; code: number[] }[] = [];
  private readonly known = new Map<string, number>();
  private readonly exports: { name: string; index: number }[] = [];
  private readonly sharedMemory: boolean;

  constructor(sharedMemory: boolean) {
    this.sharedMemory = sharedMemory;
  }

  /** Index of a function type. */
  type(params: readonly ValueType[], results: readonly ValueType[] = []): number {
    const key = `${params.join()}>${results.join()}`;
    const known = this.types.get(key);
    if (known !== undefined) return known;
    this.types.set(key, this.types.size);
    return this.types.size - 1;
  }

  /** Index of the function; equal functions are kept once, since layers of one shape need the same code. */
  add(fn: FunctionBuilder): number {
    const type = this.type(fn.params, fn.results);
    const code = fn.encode();
    const key = `${type}:${String.fromCharCode(...code.slice(0, 64))}:${hashWords(code)}:${code.length}`;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    this.functions.push({ type, code });
    this.known.set(key, this.functions.length - 1);
    return this.functions.length - 1;
  }

  /** Index of the function of that name, written on its first use. */
  named(name: string, write: () => FunctionBuilder): number {
    const known = this.known.get(name);
    if (known !== undefined) return known;
    const index = this.add(write());
    this.known.set(name, index);
    return index;
  }

  export(name: string, index: number): void {
    this.exports.push({ name, index });
  }

  get functionCount(): number {
    return this.functions.length;
  }

  encode(): Uint8Array<ArrayBuffer> {
    const functionCount = this.functions.length;
    const types = [...this.types.keys()].map((key) => {
      const [params, results] = key.split('>').map((side) => (side === '' ? [] : side.split(','))) as [
        ValueType[],
        ValueType[],
      ];
      const bytes = (list: readonly ValueType[]) => [
        ...unsigned(list.length),
        ...list.map((type) => typeBytes[type]),
      ];
      return [0x60, ...bytes(params), ...bytes(results)];
    });
    const limits = this.sharedMemory ? [0x03, 0, ...unsigned(maxPages)] : [0x01, 0, ...unsigned(maxPages)];
    const indices = Array.from({ length: functionCount }, (_, index) => index);
    return concatBytes([
      [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      section(1, [types.length], types),
      section(
        2,
        [2],
        [
          [...utf8('env'), ...utf8('memory'), 0x02, ...limits],
          [...utf8('env'), ...utf8('tables'), 0x03, typeBytes.i32, 0],
        ],
      ),
      section(3, unsigned(functionCount), [this.functions.flatMap(({ type }) => unsigned(type))]),
      section(4, [1], [[0x70, 0x00, ...unsigned(functionCount)]]),
      section(
        7,
        unsigned(this.exports.length),
        this.exports.map(({ name, index }) => [...utf8(name), 0x00, ...unsigned(index)]),
      ),
      section(9, [1], [[0x00, 0x41, 0, 0x0b, ...unsigned(functionCount), ...indices.flatMap(unsigned)]]),
      section(
        10,
        unsigned(functionCount),
        this.functions.map(({ code }) => code),
      ),
    ]);
  }
}

/** Pages of 64 KiB that a 32-bit memory can grow to: 4 GiB. */
export const maxPages = 65536;

function section(id: number, count: readonly number[], parts: readonly (readonly number[])[]): number[] {
  const size = parts.reduce((sum, part) => sum + part.length, count.length);
  const bytes = [id, ...unsigned(size), ...count];
  for (const part of parts) for (const byte of part) bytes.push(byte);
  return bytes;
}

function concatBytes(parts: readonly (readonly number[])[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

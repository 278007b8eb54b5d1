/** The constant tables of a module, one after the other: memory that each program has of its own, at an address it is told. */
import type { Code } from './assembler.ts';
import { hashWords } from './hash.ts';

/** The global that holds the tables' address, the module's only one. */
const TABLES = 0;

export class Tables {
  readonly #byArray = new Map<Int32Array, number>();
  readonly #byContent = new Map<string, number>();
  readonly #parts: Int32Array[] = [];
  #length = 0;

  /** Puts (table + offset bytes) on the stack. */
  address(body: Code, table: Int32Array): void {
    body.op('global.get', TABLES).i32(this.#offset(table)).op('i32.add');
  }

  /** Replaces a number of bytes on the stack with the word so far, and `offset` bytes more, into the table. */
  read(body: Code, table: Int32Array, offset = 0): Code {
    return body
      .op('global.get', TABLES)
      .op('i32.add')
      .op('i32.load', this.#offset(table) + offset);
  }

  /** All of them, to be copied to where they are read. */
  words(): Int32Array {
    const words = new Int32Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      words.set(part, at);
      at += part.length;
    }
    return words;
  }

  /** Where a table begins, in bytes; equal tables are kept once. */
  #offset(table: Int32Array): number {
    const known = this.#byArray.get(table);
    if (known !== undefined) return known;
    const content = `${table.length}:${hashWords(table)}`;
    const offset = this.#byContent.get(content) ?? 4 * this.#length;
    if (offset === 4 * this.#length) {
      this.#parts.push(table);
      this.#length += table.length;
    }
    this.#byArray.set(table, offset);
    this.#byContent.set(content, offset);
    return offset;
  }
}

/** The constant tables of a module, one after the other: memory that each program has of its own, at an address it is told. */
import type { Code } from './assembler.ts';
import { hashWords } from './hash.ts';

/** The global that holds the tables' address, the module's only one. */
const TABLES = 0;

export class Tables {
  readonly #byArray = new Map<Int32Array, number>();
  readonly #byHash = new Map<string, Int32Array>();
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
    const hash = `${table.length}:${hashWords(table)}`;
    const twin = this.#byHash.get(hash);
    const isTwin = twin?.every((word, i) => word === table[i]) ?? false;
    const offset = isTwin ? this.#byArray.get(twin!)! : 4 * this.#length;
    this.#byArray.set(table, offset);
    if (isTwin) return offset;
    this.#byHash.set(hash, table);
    this.#parts.push(table);
    this.#length += table.length;
    return offset;
  }
}

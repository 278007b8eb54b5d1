/**
 * Pickles from files that nobody vouches for, as data.
 *
 * A pickle is a program for a small stack machine, and Python's own reader imports and calls whatever the program names.
 * This one has no such power: it knows the instructions that build numbers, strings, lists, tuples and dicts, and calls
 * nothing but the constructors that it is handed by name. Everything else is refused by name.
 */

/** A pickle that is malformed, too large, or asks for what is not allowed; `at` is the byte of the instruction. */
export class PickleError extends Error {
  override readonly name = 'PickleError';
  readonly at: number;

  constructor(problem: string, at: number) {
    super(problem);
    this.at = at;
  }
}

/** What a pickle holds: tuples are lists, `V` is what the constructors make. */
export type PickleValue<V> =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly PickleValue<V>[]
  | PickleDict<V>
  | V;

export type PickleDict<V> = ReadonlyMap<string | number, PickleValue<V>>;

/** Makes a value from arguments, or returns a problem as an Error. */
export type PickleConstructor<V> = (args: readonly PickleValue<V>[]) => PickleValue<V> | Error;

export interface PickleRules<V> {
  /** What may be called, as "module name". */
  readonly constructors: ReadonlyMap<string, PickleConstructor<V>>;
  /** What may be named and not called, with what it stands for: types of storages. */
  readonly names: ReadonlyMap<string, V>;
  /** The object that the pickle refers to outside of itself. */
  persistent(id: PickleValue<V>): PickleValue<V> | Error;
}

const maxBytes = 64 * 1024 * 1024;
const maxStack = 100_000;
const maxMemo = 1_000_000;
/** Of the value, counted as a tree: a few bytes can share lists until the tree fills every memory. */
const maxValues = 1_000_000;
const maxDepth = 32;

/** Something named that can be called, on the stack only. */
class Callable<V> {
  readonly call: PickleConstructor<V>;
  constructor(call: PickleConstructor<V>) {
    this.call = call;
  }
}

class Mark {}

const mark = new Mark();

/** Instructions of the format that are not carried out here, for messages. */
const refused: Readonly<Record<string, string>> = {
  i: 'INST (it makes an object)',
  o: 'OBJ (it makes an object)',
  '\x81': 'NEWOBJ (it makes an object)',
  '\x92': 'NEWOBJ_EX (it makes an object)',
  '\x82': 'EXT1',
  '\x83': 'EXT2',
  '\x84': 'EXT4',
  P: 'PERSID',
  '\x97': 'NEXT_BUFFER',
};

/**
 * The value of the pickle (protocols 2 to 5, as far as plain data needs them).
 * @throws PickleError
 */
export function readPickle<V>(bytes: Uint8Array, rules: PickleRules<V>): PickleValue<V> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let start = 0; // of the instruction
  type Item = PickleValue<V> | Callable<V> | Mark;
  const stack: Item[] = [];
  const memo = new Map<number, Item>();

  function fail(problem: string): never {
    throw new PickleError(`${problem} (byte ${start} of the pickle)`, start);
  }
  if (bytes.length > maxBytes) fail(`${bytes.length} bytes of pickle; the limit is ${maxBytes}`);

  /** The place of that many next bytes. */
  function take(count: number): number {
    if (count > bytes.length - at) fail('it ends in the middle of an instruction');
    at += count;
    return at - count;
  }
  const u8 = () => view.getUint8(take(1));
  const u32 = () => view.getUint32(take(4), true);
  const raw = (count: number): Uint8Array => bytes.slice(take(count), at);
  function text(count: number): string {
    const encoded = raw(count);
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(encoded);
    } catch {
      return fail('a string is not UTF-8');
    }
  }
  function line(): string {
    const end = bytes.indexOf(10, at);
    if (end < 0) fail('it ends in the middle of an instruction');
    const value = text(end - at);
    at += 1;
    return value;
  }

  function push(item: Item): void {
    if (stack.length === maxStack) fail(`more than ${maxStack} values on the stack`);
    stack.push(item);
  }
  function pop(): PickleValue<V> {
    const item = stack.pop();
    if (item === undefined || item instanceof Mark) return fail('a value is missing on the stack');
    if (item instanceof Callable) return fail('a function is used as a value');
    return item;
  }
  /** The values above the last mark. */
  function popToMark(): PickleValue<V>[] {
    const from = stack.lastIndexOf(mark);
    if (from < 0) fail('a mark is missing on the stack');
    const items = stack.splice(from).slice(1);
    if (items.some((item) => item instanceof Callable)) fail('a function is used as a value');
    return items as PickleValue<V>[];
  }
  function list(): PickleValue<V>[] {
    const top = stack.at(-1);
    return Array.isArray(top) ? top : fail('it appends to what is not a list');
  }
  function set(items: readonly PickleValue<V>[]): void {
    const top = stack.at(-1);
    if (!(top instanceof Map)) fail('it sets an item of what is not a dict');
    if (items.length % 2 !== 0) fail('a key has no value');
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (typeof key !== 'string' && typeof key !== 'number')
        fail('a key of a dict is neither string nor number');
      (top as Map<unknown, unknown>).set(key, items[i + 1]);
    }
  }
  function remember(index: number): void {
    if (memo.size === maxMemo) fail(`more than ${maxMemo} values remembered`);
    if (stack.length === 0) fail('a value is missing on the stack');
    memo.set(index, stack.at(-1)!);
  }
  function recall(index: number): void {
    if (!memo.has(index)) fail(`it recalls value ${index}, which was not remembered`);
    push(memo.get(index)!);
  }
  function named(module: string, name: string): Item {
    const key = `${module} ${name}`;
    const make = rules.constructors.get(key);
    if (make) return new Callable(make);
    const value = rules.names.get(key);
    return value ?? fail(`it names ${JSON.stringify(`${module}.${name}`)}, which is not allowed`);
  }
  function made(value: PickleValue<V> | Error): PickleValue<V> {
    return value instanceof Error ? fail(value.message) : value;
  }
  function called(): PickleValue<V> {
    const args = pop();
    const callable = stack.pop();
    if (!(callable instanceof Callable) || !Array.isArray(args))
      return fail('it calls what is not a function');
    return made(callable.call(args));
  }
  function integer(count: number): number {
    let value = 0n;
    const digits = raw(count);
    for (let i = count - 1; i >= 0; i -= 1) value = (value << 8n) | BigInt(digits[i]!);
    return exact(BigInt.asIntN(8 * count, value));
  }
  function exact(value: bigint): number {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : fail('a number is too large to be exact');
  }

  for (;;) {
    start = at;
    const code = String.fromCharCode(u8());
    switch (code) {
      case '\x80': {
        const protocol = u8();
        if (protocol < 2 || protocol > 5) fail(`expected protocol 2 to 5; got ${protocol}`);
        break;
      }
      case '\x95': // FRAME: how many bytes follow, which we do not need to know
        take(8);
        break;
      case '.': {
        const value = pop();
        if (stack.length > 0) fail('values are left on the stack');
        checkSize(value, fail);
        return value;
      }
      case '(':
        push(mark);
        break;
      case 'N':
        push(null);
        break;
      case '\x88':
        push(true);
        break;
      case '\x89':
        push(false);
        break;
      case 'K':
        push(u8());
        break;
      case 'M':
        push(view.getUint16(take(2), true));
        break;
      case 'J':
        push(view.getInt32(take(4), true));
        break;
      case '\x8a': {
        const count = u8();
        if (count > 8) fail('a number is too large to be exact');
        push(integer(count));
        break;
      }
      case 'G':
        push(view.getFloat64(take(8), false));
        break;
      case 'X':
        push(text(u32()));
        break;
      case '\x8c':
        push(text(u8()));
        break;
      case '\x8d':
        push(text(exact(view.getBigUint64(take(8), true))));
        break;
      case 'T':
        push(text(u32()));
        break;
      case 'U':
        push(text(u8()));
        break;
      case 'B':
        push(raw(u32()));
        break;
      case 'C':
        push(raw(u8()));
        break;
      case ']':
        push([]);
        break;
      case 'a': {
        const item = pop();
        list().push(item);
        break;
      }
      case 'e': {
        const items = popToMark();
        const target = list();
        for (const item of items) target.push(item);
        break;
      }
      case '}':
        push(new Map());
        break;
      case 's': {
        const value = pop();
        set([pop(), value]);
        break;
      }
      case 'u':
        set(popToMark());
        break;
      case ')':
        push([]);
        break;
      case '\x85':
        push([pop()]);
        break;
      case '\x86': {
        const second = pop();
        push([pop(), second]);
        break;
      }
      case '\x87': {
        const [third, second] = [pop(), pop()];
        push([pop(), second, third]);
        break;
      }
      case 't':
        push(popToMark());
        break;
      case 'q':
        remember(u8());
        break;
      case 'r':
        remember(u32());
        break;
      case '\x94':
        remember(memo.size);
        break;
      case 'h':
        recall(u8());
        break;
      case 'j':
        recall(u32());
        break;
      case 'c': {
        const module = line();
        push(named(module, line()));
        break;
      }
      case '\x93': {
        const [name, module] = [pop(), pop()];
        if (typeof name !== 'string' || typeof module !== 'string') fail('a name is not a string');
        push(named(module as string, name as string));
        break;
      }
      case 'R':
        push(called());
        break;
      case 'Q':
        push(made(rules.persistent(pop())));
        break;
      case 'b': // BUILD: attributes of an object. A state dict has notes about versions, which nobody reads.
        pop();
        if (!(stack.at(-1) instanceof Map)) fail('instruction BUILD is not allowed but for a dict');
        break;
      default: {
        const name = refused[code] ?? `0x${code.charCodeAt(0).toString(16).padStart(2, '0')}`;
        fail(`instruction ${name} is not allowed`);
      }
    }
  }
}

/** The value as a tree is finite, and neither deep nor large. */
function checkSize(root: unknown, fail: (problem: string) => never): void {
  let values = 0;
  const visit = (value: unknown, depth: number): void => {
    values += 1;
    if (values > maxValues) fail(`more than ${maxValues} values, counted as a tree`);
    if (!Array.isArray(value) && !(value instanceof Map)) return;
    if (depth === maxDepth) fail(`nested deeper than ${maxDepth}`);
    for (const item of value.values()) visit(item, depth + 1);
  };
  visit(root, 0);
}

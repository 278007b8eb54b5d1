/**
 * JSON from files that nobody vouches for.
 *
 * JSON.parse hides what matters in such files: it keeps the last of two equal keys, rounds 2^53 + 1, reads 4.0 as 4,
 * passes lone surrogates and takes any nesting. Here every object is a Map (a key may be `__proto__`), keys are
 * unique, nesting is bounded, and the caller decides what a number literal becomes.
 */

/** A JSON value whose numbers have become `N`. */
export type Json<N> = null | boolean | string | N | readonly Json<N>[] | JsonObject<N>;

export type JsonObject<N> = ReadonlyMap<string, Json<N>>;

/** Text that is not the JSON asked for; `at` is the index of the offending character. */
export class JsonError extends Error {
  override readonly name = 'JsonError';
  readonly at: number;

  constructor(problem: string, at: number) {
    super(problem);
    this.at = at;
  }
}

export interface JsonRules<N> {
  /** How deep objects and arrays may nest; 1 allows a flat object. */
  readonly maxDepth: number;
  /** How many members one object may have. */
  readonly maxMembers: number;
  /** The value of a number literal; Python's NaN, Infinity and -Infinity come here too. Undefined: not a number. */
  number(literal: string): N | undefined;
}

/** Numbers as JavaScript has them, with the NaN and Infinity that Python's json module writes. */
export const pythonNumbers = { number: Number };

const space = /[ \t\n\r]*/y;
const numberLiteral = /-?(?:NaN|Infinity|(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)/y;
const loneSurrogate = /\p{Surrogate}/u;
const words: ReadonlyMap<string, null | boolean> = new Map([
  ['null', null],
  ['true', true],
  ['false', false],
]);

/**
 * The value that the text holds, spaces around it allowed.
 * @throws JsonError
 */
export function parseJson<N>(text: string, rules: JsonRules<N>): Json<N> {
  let at = 0;

  function fail(problem: string): never {
    throw new JsonError(problem, at);
  }

  function match(pattern: RegExp): string | undefined {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  }

  function take(character: string): boolean {
    match(space);
    if (text[at] !== character) return false;
    at += 1;
    return true;
  }

  function string(): string {
    const start = at;
    do {
      at += text[at] === '\\' ? 2 : 1;
      if (at >= text.length) return fail('invalid JSON: unterminated string');
    } while (text[at] !== '"');
    at += 1;
    const literal = text.slice(start, at);
    let value: string;
    try {
      value = JSON.parse(literal) as string;
    } catch {
      at = start;
      return fail('invalid JSON: bad escape or control character in a string');
    }
    if (loneSurrogate.test(value)) return fail('invalid string: half of a surrogate pair');
    return value;
  }

  function object(depth: number): JsonObject<N> {
    const members = new Map<string, Json<N>>();
    if (take('}')) return members;
    do {
      match(space);
      if (text[at] !== '"') fail('invalid JSON: expected a key');
      const key = string();
      if (members.has(key)) fail(`duplicate key ${JSON.stringify(key)}`);
      if (members.size === rules.maxMembers) fail(`more than ${rules.maxMembers} members in one object`);
      if (!take(':')) fail('invalid JSON: expected ":"');
      members.set(key, value(depth));
    } while (take(','));
    if (!take('}')) fail('invalid JSON: expected "," or "}"');
    return members;
  }

  function array(depth: number): Json<N>[] {
    const items: Json<N>[] = [];
    if (take(']')) return items;
    do items.push(value(depth));
    while (take(','));
    if (!take(']')) fail('invalid JSON: expected "," or "]"');
    return items;
  }

  function value(depth: number): Json<N> {
    match(space);
    const first = text[at];
    if (first === '"') return string();
    if (first === '{' || first === '[') {
      if (depth === rules.maxDepth) fail(`nested deeper than ${rules.maxDepth}`);
      at += 1;
      return first === '{' ? object(depth + 1) : array(depth + 1);
    }
    for (const [word, meaning] of words) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return meaning;
      }
    }
    const start = at;
    const literal = match(numberLiteral);
    const number = literal === undefined ? undefined : rules.number(literal);
    if (number !== undefined) return number;
    at = start;
    return fail(at >= text.length ? 'invalid JSON: it ends too early' : 'invalid JSON: expected a value');
  }

  const root = value(0);
  match(space);
  if (at < text.length) fail('invalid JSON: text after the value');
  return root;
}

/**
 * YAML as data only: mappings with plain word keys, sequences and scalars.
 *
 * What could run code, grow without bound or mean something else than it seems is refused: explicit tags, anchors and
 * aliases, directives, several documents, duplicate keys, `__proto__`, `<<`, integers that a double cannot hold,
 * control characters, more than 1 MiB, more than 64 levels. The parser of `yaml` recurses (100,000 brackets end the
 * process), so the tokens are checked before it runs.
 */
import {
  CST,
  type Document,
  isMap,
  isScalar,
  Lexer,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml';
import { UserError } from '../userError.ts';

const maxBytes = 2 ** 20;
const maxDepth = 64;

/** Keys and indices from the root to a value. */
export type Path = readonly (string | number)[];

/** A document that was read, with where things stand in it. */
export interface YamlSource {
  readonly value: unknown;
  /** "line:column" of the value at a path, or of its key; of its nearest ancestor when the path is not there. */
  locate(path: Path, part: 'key' | 'value'): string;
}

/**
 * The data of one YAML document.
 *
 * @param source what the text is called in messages, such as a file's path
 * @throws {UserError} exit status 2, with line and column, when the text is refused
 */
export function readYaml(bytes: Uint8Array, source: string): YamlSource {
  const text = decode(bytes, source);
  const lines = new LineCounter();
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines.addNewLine(at + 1);
  lines.lineStarts.unshift(0);
  const place = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${line}:${col}`;
  };
  const refuse = (offset: number, problem: string): never => {
    throw new UserError(`${source}:${place(offset)}: ${problem}`, 2);
  };

  checkTokens(text, refuse);
  const document = parseDocument(text, { prettyErrors: false, logLevel: 'error' });
  const error = document.errors[0];
  if (error) refuse(error.pos[0], firstLine(describeError(error.code, error.message)));
  if (document.contents === null)
    throw new UserError(`${source}: the file is empty; expected keys and values`, 2);
  checkNodes(document, refuse);
  return {
    value: document.toJS(),
    locate: (path, part) => place(offsetOf(document, path, part)),
  };
}

function decode(bytes: Uint8Array, source: string): string {
  if (bytes.length > maxBytes) {
    throw new UserError(
      `${source}: the file is too big; expected at most 1 MiB; got ${bytes.length} bytes`,
      2,
    );
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new UserError(`${source}: the file is not UTF-8 text`, 2);
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to refuse
  const control = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u202a-\u202e\u2066-\u2069]/.exec(text);
  if (control) {
    const code = control[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, '0');
    const line = text.slice(0, control.index).split('\n').length;
    throw new UserError(`${source}:${line}: the control character U+${code} is not allowed`, 2);
  }
  return text;
}

type Refuse = (offset: number, problem: string) => never;

/** Refuses tokens that are not plain data, and nesting that shows in brackets or in a row of dashes. */
function checkTokens(text: string, refuse: Refuse): void {
  let offset = 0;
  let brackets = 0;
  let dashes = 0; // block indicators on this line, each of which opens a level
  let isScalar = false;
  for (const token of new Lexer().lex(text)) {
    const type: CST.TokenType | 'scalar' | null = isScalar ? 'scalar' : CST.tokenType(token);
    isScalar = !isScalar && type === 'scalar'; // the lexer puts a marker before the text of a plain scalar
    if (isScalar) continue;
    if (type === 'doc-mode' || type === 'flow-error-end') continue; // not characters of the text
    if (type === 'tag') refuse(offset, `the tag ${token} is not allowed`);
    if (type === 'anchor' || type === 'alias')
      refuse(offset, `anchors and aliases are not allowed; got ${token}`);
    if (type === 'directive-line') refuse(offset, 'directives are not allowed');
    if (type === 'flow-seq-start' || type === 'flow-map-start') brackets += 1;
    if (type === 'flow-seq-end' || type === 'flow-map-end') brackets -= 1;
    if (brackets === 0 && opensLevel(type)) dashes += 1;
    if (type === 'newline') dashes = 0;
    if (brackets + dashes > maxDepth)
      refuse(offset, `values are nested too deep; expected at most ${maxDepth} levels`);
    offset += token.length;
  }
}

/** Whether what follows the token on its line is a level deeper, outside brackets. */
function opensLevel(type: string | null): boolean {
  return type === 'seq-item-ind' || type === 'explicit-key-ind' || type === 'map-value-ind';
}

/** Refuses what is well-formed YAML but not plain data. */
function checkNodes(document: Document, refuse: Refuse): void {
  visit(document, {
    Node: (_key, node, ancestors) => {
      if (ancestors.length > 2 * maxDepth) {
        refuse(node.range![0], `values are nested too deep; expected at most ${maxDepth} levels`);
      }
    },
    Pair: (_key, { key }) => {
      if (!isScalar(key))
        return refuse((key as Node).range![0], 'a key must be a word; got a list or mapping');
      const name = key.value;
      if (typeof name !== 'string')
        refuse(key.range![0], `a key must be a word; got ${String(key.source ?? name)}`);
      if (name === '__proto__' || name === '<<') refuse(key.range![0], `the key ${name} is not allowed`);
      return undefined;
    },
    Scalar: (_key, { value, source, range }) => {
      if (typeof value === 'number' && /^[-+]?\d+$/.test(source ?? '') && !Number.isSafeInteger(value)) {
        refuse(range![0], `${source} is too big to be an exact integer`);
      }
    },
  });
}

function describeError(code: string, message: string): string {
  if (code === 'DUPLICATE_KEY') return 'this key is given twice; keep one of them';
  if (code === 'MULTIPLE_DOCS') return 'a second document begins here; expected one';
  if (code === 'TAB_AS_INDENT') return 'a tab cannot indent; use spaces';
  return message;
}

function firstLine(text: string): string {
  return text.split('\n')[0]!;
}

/** Where the value (or key) at a path begins; its nearest ancestor's where the path leads nowhere. */
function offsetOf(document: Document, path: Path, part: 'key' | 'value'): number {
  let node: unknown = document.contents;
  let offset = 0;
  path.forEach((step, depth) => {
    const pair = isMap(node) ? node.items.find(({ key }) => isScalar(key) && key.value === step) : undefined;
    const next = pair ?? {
      key: null,
      value: (node as { items?: readonly unknown[] } | null)?.items?.[step as number],
    };
    const last = depth === path.length - 1;
    const marked = last && part === 'key' ? next.key : (next.value ?? next.key);
    offset = (marked as { range?: readonly number[] } | null)?.range?.[0] ?? offset;
    node = next.value;
  });
  return offset;
}

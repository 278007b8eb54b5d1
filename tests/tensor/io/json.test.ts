import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Json,
  JsonError,
  type JsonObject,
  parseJson,
  pythonNumbers,
} from '../../../packages/tensor/src/io/json.ts';

const rules = { maxDepth: 8, maxMembers: 100, ...pythonNumbers };

function plain(value: Json<number>): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (!(value instanceof Map)) return value;
  return Object.fromEntries([...(value as JsonObject<number>)].map(([key, member]) => [key, plain(member)]));
}

describe('parseJson', () => {
  it('gives what JSON.parse gives for everything that JSON.stringify writes', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(undefined, 2), (value, indent) => {
        // Keys and strings with half surrogate pairs are refused by design; JSON.stringify escapes them.
        const text = JSON.stringify(value, null, indent);
        fc.pre(!/\\ud[89a-f]/.test(text) && !text.includes('__proto__'));
        expect(plain(parseJson(text, rules))).toEqual(JSON.parse(text));
      }),
    );
  });

  it.each([
    ['{"a":1,"a":1}', 'duplicate key "a"', 10],
    ['[[[[[[[[[', 'nested deeper than 8', 8],
    ['[1,]', 'invalid JSON: expected a value', 3],
    ['{"a" 1}', 'invalid JSON: expected ":"', 5],
    ['{a:1}', 'invalid JSON: expected a key', 1],
    ['{"a":1', 'invalid JSON: expected "," or "}"', 6],
    ['[1 2]', 'invalid JSON: expected "," or "]"', 3],
    ['"abc', 'invalid JSON: unterminated string', 4],
    ['"\\x"', 'invalid JSON: bad escape or control character in a string', 0],
    ['"\n"', 'invalid JSON: bad escape or control character in a string', 0],
    ['"\\ud800"', 'invalid string: half of a surrogate pair', 8],
    ['01', 'invalid JSON: text after the value', 1],
    ['1.', 'invalid JSON: text after the value', 1],
    ['+1', 'invalid JSON: expected a value', 0],
    ['', 'invalid JSON: it ends too early', 0],
    ['1 // one', 'invalid JSON: text after the value', 2],
  ])('refuses %s and says where', (text, problem, at) => {
    const parse = () => parseJson(text, rules);
    expect(parse).toThrow(JsonError);
    expect(parse).toThrow(expect.objectContaining({ message: problem, at }));
  });

  it('refuses an object of too many members', () => {
    expect(() => parseJson('{"a":1,"b":2}', { ...rules, maxMembers: 1 })).toThrow('more than 1 members');
  });

  it("reads Python's words for what JSON lacks", () => {
    expect(parseJson('[NaN, Infinity, -Infinity]', rules)).toEqual([Number.NaN, Infinity, -Infinity]);
  });
});

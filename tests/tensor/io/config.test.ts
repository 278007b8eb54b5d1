import { ConfigError, configReader, parseConfig } from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';

describe('parseConfig', () => {
  it('gives the object', () => {
    expect(parseConfig('c', '{"a": [1, {"b": null}], "c": -Infinity}')).toEqual({
      a: [1, { b: null }],
      c: Number.NEGATIVE_INFINITY,
    });
  });

  it.each([
    ['[]', 'c.json: expected a JSON object'],
    ['{"a": 1,\n "a": 2}', 'c.json: duplicate key "a" (line 2, column 5)'],
    ['{"a": {"__proto__": {"polluted": 1}}}', 'c.json: a key cannot be named __proto__'],
  ])('refuses %s', (text, message) => {
    expect(() => parseConfig('c.json', text)).toThrow(new ConfigError(message));
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });
});

describe('a config reader', () => {
  const read = (config: Parameters<typeof configReader>[1]) => configReader('Model', config);

  it('gives fields, and defaults for what is absent or null', () => {
    const reader = read({
      width: 8,
      ratio: 0.5,
      bias: true,
      act: 'silu',
      heads: [1, 2],
      layers: 3,
      none: null,
    });
    expect(reader.count('width')).toBe(8);
    expect(reader.number('ratio')).toBe(0.5);
    expect(reader.boolean('bias', false)).toBe(true);
    expect(reader.choice('act', ['silu', 'gelu'])).toBe('silu');
    expect(reader.counts('heads', 2)).toEqual([1, 2]);
    expect(reader.counts('layers', 2)).toEqual([3, 3]);
    expect(reader.count('none', 4)).toBe(4);
    expect(reader.has('none')).toBe(false);
    expect(() => reader.nothingBut([])).not.toThrow();
  });

  it.each<[string, (reader: ReturnType<typeof configReader>) => unknown]>([
    ['Model: width is missing; expected a whole number >= 0', (r) => r.count('width')],
    ['Model: ratio: expected a whole number >= 0; got 0.5', (r) => r.count('ratio')],
    ['Model: act: expected a finite number; got "silu"', (r) => r.number('act')],
    ['Model: act: expected true or false; got "silu"', (r) => r.boolean('act', true)],
    ['Model: act: expected one of relu, gelu; got "silu"', (r) => r.choice('act', ['relu', 'gelu'])],
    [
      'Model: heads: expected a whole number >= 0, or a list of 3 of them; got [1,-2]',
      (r) => r.counts('heads', 3),
    ],
    [
      'Model: heads: expected a whole number >= 0, or a list of 2 of them; got [1,-2]',
      (r) => r.counts('heads', 2),
    ],
    ['Model: act: not supported; expected null; got "silu"', (r) => r.only({ act: null })],
    ['Model: ratio: unknown field; got 0.5', (r) => r.nothingBut(['act', 'heads'])],
  ])('says %s', (message, use) => {
    const reader = read({ ratio: 0.5, act: 'silu', heads: [1, -2], _class_name: 'Model', nothing: null });
    expect(() => use(reader)).toThrow(new ConfigError(message));
  });
});

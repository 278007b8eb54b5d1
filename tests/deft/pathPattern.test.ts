import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { pathPattern } from '../../packages/deft/src/pathPattern.ts';

/** Expressions of the supported language, over the letters a and b, dots and digits. */
const pattern: fc.Arbitrary<string> = fc.letrec<{ part: string }>((tie) => ({
  part: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(
      'a',
      'b',
      '.',
      String.raw`\.`,
      String.raw`\d`,
      String.raw`\w`,
      '[ab]',
      '[^a]',
      '[a-c0-9]',
      '1',
    ),
    fc.tuple(tie('part'), tie('part')).map(([x, y]) => x + y),
    fc.tuple(tie('part'), tie('part')).map(([x, y]) => `(${x}|${y})`),
    fc
      .tuple(tie('part'), fc.constantFrom('*', '+', '?', '{2}', '{1,}', '{0,2}', '*?'))
      .map(([x, q]) => `(?:${x})${q}`),
  ),
})).part;

const path = fc.string({ unit: fc.constantFrom('a', 'b', '.', '1'), maxLength: 8 });

describe('pathPattern', () => {
  it('matches what a regular expression matches, whole', () => {
    fc.assert(
      fc.property(pattern, path, (expression, text) => {
        expect(pathPattern(expression)(text)).toBe(new RegExp(`^(?:${expression})$`).test(text));
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    [String.raw`.*\.attn[12]\.to_(q|k|v|out\.0)`, 'down_blocks.0.attentions.1.attn2.to_out.0', true],
    [String.raw`.*\.attn[12]\.to_(q|k|v|out\.0)`, 'down_blocks.0.attentions.1.attn2.to_out.1', false],
    ['^to_q$', 'to_q', true],
    ['^a$|^b$', 'b', true],
    ['to_q', 'blocks.to_q', false],
    ['[^.]+', 'conv_in', true],
    ['[]a]', ']', true],
    ['a{2', 'a{2', true],
    ['', '', true],
  ])('%s on %s: %s', (expression, text, matches) => {
    expect(pathPattern(expression)(text)).toBe(matches);
  });

  it.each(['(a+)+b', '(a|a)*b', '(.*)*x', '(a*)*(a*)*c'])(
    'reads %s, on which backtracking takes exponential time, in few steps',
    (expression) => {
      // Exponential time would not end here, so that the test cannot pass by waiting.
      expect(pathPattern(expression)('a'.repeat(5000))).toBe(false);
    },
  );

  it.each([
    ['(?=a)b', 'pattern "(?=a)b": unsupported group at character 3'],
    [String.raw`(a)\1`, String.raw`pattern "(a)\\1": unsupported escape at character 5`],
    [String.raw`\bto_q`, String.raw`pattern "\\bto_q": unsupported escape at character 2`],
    ['(a', 'pattern "(a": unclosed group at character 3'],
    ['a)', 'pattern "a)": unmatched ")" at character 2'],
    ['[a', 'pattern "[a": unterminated set at character 3'],
    ['*a', 'pattern "*a": nothing to repeat at character 1'],
    ['a**', 'pattern "a**": unsupported repetition of a repetition at character 3'],
    ['a$b', 'pattern "a$b": unsupported anchor inside a pattern at character 2'],
    ['a{3,2}', 'pattern "a{3,2}": bad repetition at character 7'],
    ['((a{900}){900}){900}', 'pattern "((a{900}){900}){900}": more than 10000 states at character 21'],
  ])('refuses %s', (expression, message) => {
    expect(() => pathPattern(expression)).toThrow(new SyntaxError(message));
  });
});

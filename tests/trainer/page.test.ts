import { layersTable, renderPage } from '@deftjs/trainer';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { escapeHtml, markdownHtml } from '../../packages/trainer/src/report/markdownHtml.ts';
import { escapeMarkdown } from '../../packages/trainer/src/report/report.ts';

const html = (markdown: string): string =>
  markdownHtml(markdown, (path, words) => escapeHtml(`[${path}: ${words}]`));

/** What a browser shows of HTML without elements. */
const shown = (text: string): string =>
  text
    .replace(/&lt;/g, '<')
    .replace(/&gt;/g, '>')
    .replace(/&quot;/g, '"')
    .replace(/&amp;/g, '&');

describe('the Markdown of a report', () => {
  it.each([
    ['# a', '<h1>a</h1>'],
    ['a **b** `c<d`', '<p>a <b>b</b> <code>c&lt;d</code></p>'],
    ['a\nb\n\nc', '<p>a b</p>\n<p>c</p>'],
    ['- a\n- b', '<ul><li>a</li><li>b</li></ul>'],
    ['```sh\nnpm "x" & y\nz\n```', '<pre>npm &quot;x&quot; &amp; y\nz</pre>'],
    ['[`a`](b%28.json)', '<p><a href="b%28.json"><code>a</code></a></p>'],
    ['![a \\_ &lt;](b%20c.png)', '<figure>[b c.png: a _ &lt;]</figure>'],
    [
      '| | x |\n| --- | --- |\n| a\\|b | 1 |',
      '<table><thead><tr><th></th><th>x</th></tr></thead><tbody><tr><td>a|b</td><td>1</td></tr></tbody></table>',
    ],
    [
      '<details>\n<summary>a</summary>\n\nb\n\n</details>',
      '<details><summary>a</summary>\n<p>b</p>\n</details>',
    ],
  ])('%j', (markdown, expected) => {
    expect(html(markdown)).toBe(expected);
  });

  it('shows escaped text of any kind as it is, in a paragraph and in a table', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (text) => {
        const line = text.replace(/\s+/g, ' ').trim();
        fc.pre(line !== '' && !/^(#{1,3}|-) /.test(line));
        const words = escapeMarkdown(`x${line}x`);
        expect(shown(html(words).slice('<p>'.length, -'</p>'.length))).toBe(`x${line}x`);
        const row = html(`| a |\n| --- |\n| ${words} |`);
        expect(shown(/<td>(.*)<\/td>/.exec(row)![1]!)).toBe(`x${line}x`);
      }),
    );
  });

  it('never makes an element of raw text', () => {
    const known = /<\/?(h[1-3]|p|b|a|ul|li|pre|code|figure|table|thead|tbody|tr|th|td)( href="[^"<>]*")?>/g;
    const piece = fc.constantFrom(
      '<img src=x onerror=y>',
      '`',
      '**',
      '[',
      '](',
      ')',
      '|',
      '\n',
      '- ',
      '&lt;',
      'a',
      '"',
      '\\',
      '![',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        expect(html(pieces.join('')).replace(known, '')).not.toMatch(/[<>]/);
      }),
      { numRuns: 500 },
    );
  });
});

describe('report.html', () => {
  const layer = {
    path: 'unet.<b>',
    projectorDefect: 1e-7,
    removedEnergy: 0.3,
    injectedEnergy: 0.2,
    changeEnergy: 0.1,
    effectiveRank: 3.5,
    keptSpectrum: [1, 0],
    warnings: ['I - K amplifies by up to 2'],
  };
  const parts = {
    name: 'a </title><script>',
    markdown: '# a\n\n![pictures](samples.png)\n\n![loss](loss.png)',
    pictures: new Map([['samples.png', Uint8Array.of(1, 2, 3)]]),
    charts: new Map([['loss.png', ['<svg id="one"></svg>', '<svg id="two"></svg>']]]),
    layers: layersTable([layer]),
    config: 'name: <x>\n',
  };

  it('holds its pictures, charts, layers and configuration, and loads and runs nothing', () => {
    const page = renderPage(parts);
    expect(page).toContain('src="data:image/png;base64,AQID"');
    expect(page).toContain('<svg id="one"></svg>\n<svg id="two"></svg>');
    for (const text of ['unet.&lt;b&gt;', 'I - K amplifies by up to 2', '1.0e-7', '3.500', 'name: &lt;x&gt;'])
      expect(page).toContain(text);
    expect(page).not.toMatch(/<script|<link|src="(?!data:)|url\(/);
  });

  it('draws bars relative to the largest value, and none of nothing', () => {
    const bars = [
      ...layersTable([layer, { ...layer, changeEnergy: 0.05 }]).matchAll(/<rect width="([\d.]+)"/g),
    ];
    expect(Number(bars[0]![1])).toBe(2 * Number(bars[4]![1]));
    expect(layersTable([{ ...layer, changeEnergy: 0 }])).toContain('<rect width="0.0"');
  });

  it('refuses a picture that it was not given', () => {
    expect(() => renderPage({ ...parts, pictures: new Map() })).toThrow(/no picture "samples.png"/);
  });
});

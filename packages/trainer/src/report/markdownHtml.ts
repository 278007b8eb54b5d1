/**
 * The Markdown of our own reports as HTML, so that report.html says what report.md says: headings, paragraphs, lists,
 * tables, fenced code (without empty lines), details, and within a line bold, code, links and images. Anything else is text. No text of the
 * report can become an element: what is not one of these is escaped.
 */

/** HTML for the image of a path, in place of an element that would load it. */
export type ImageSource = (path: string, words: string) => string;

/** The HTML of the whole text, without <html> and <body>. */
export function markdownHtml(markdown: string, image: ImageSource): string {
  const inline = (text: string): string => inlineHtml(text, image);
  return markdown
    .trim()
    .split(/\n{2,}/)
    .map((block) => blockHtml(block, inline))
    .join('\n');
}

function blockHtml(block: string, inline: (text: string) => string): string {
  const lines = block.split('\n');
  const heading = /^(#{1,3}) (.*)$/.exec(block);
  if (heading) return `<h${heading[1]!.length}>${inline(heading[2]!)}</h${heading[1]!.length}>`;
  const code = /^```\w*\n([\s\S]*)\n```$/.exec(block);
  if (code) return `<pre>${escapeHtml(code[1]!)}</pre>`;
  const summary = /^<details>\n<summary>(.*)<\/summary>$/.exec(block);
  if (summary) return `<details><summary>${inline(summary[1]!)}</summary>`;
  if (block === '</details>') return block;
  if (lines.every((line) => line.startsWith('- '))) {
    return `<ul>${lines.map((line) => `<li>${inline(line.slice(2))}</li>`).join('')}</ul>`;
  }
  if (lines.length > 1 && lines.every((line) => /^\|.*\|$/.test(line))) return tableHtml(lines, inline);
  if (/^!\[[^\]]*\]\([^)]*\)$/.test(block)) return `<figure>${inline(block)}</figure>`;
  return `<p>${inline(lines.join(' '))}</p>`;
}

function tableHtml(lines: readonly string[], inline: (text: string) => string): string {
  const row = (line: string, tag: 'th' | 'td'): string => {
    const cells = line.slice(1, -1).split(/(?<!\\)\|/);
    return `<tr>${cells.map((cell) => `<${tag}>${inline(cell.trim())}</${tag}>`).join('')}</tr>`;
  };
  const [headings, , ...rows] = lines;
  const head = /[^|\s]/.test(headings!) ? `<thead>${row(headings!, 'th')}</thead>` : '';
  return `<table>${head}<tbody>${rows.map((line) => row(line, 'td')).join('')}</tbody></table>`;
}

const spans =
  /\\([!-/:-@[-`{-~])|\[(`[^`]*`|[^\]]*)\]\(([^)]*)\)|!\[((?:\\.|[^\]])*)\]\(([^)]*)\)|`([^`]*)`|\*\*((?:\\.|[^*])+)\*\*/g;

function inlineHtml(text: string, image: ImageSource): string {
  let html = '';
  let at = 0;
  for (const match of text.matchAll(spans)) {
    const [whole, escaped, words, address, alternative, path, code, bold] = match;
    html += textHtml(text.slice(at, match.index));
    at = match.index + whole.length;
    if (escaped !== undefined) html += escapeHtml(escaped);
    else if (address !== undefined) html += `<a href="${textHtml(address)}">${inlineHtml(words!, image)}</a>`;
    else if (path !== undefined) html += image(decodeURI(path), plainText(alternative!));
    else if (code !== undefined) html += `<code>${escapeHtml(code)}</code>`;
    else html += `<b>${inlineHtml(bold!, image)}</b>`;
  }
  return html + textHtml(text.slice(at));
}

/** Text that may hold the entities of `escapeMarkdown`. */
function textHtml(text: string): string {
  return escapeHtml(text).replace(/&amp;(amp|lt|gt);/g, '&$1;');
}

function plainText(text: string): string {
  return text.replace(/\\(.)/g, '$1').replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&amp;/g, '&');
}

/** Text that HTML shows as it is, also within an attribute in double quotes. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** report.html: what report.md says, with everything inside one file: pictures, curves, the layers, the configuration. */
import { escapeHtml, markdownHtml } from './markdownHtml.ts';

export interface PageParts {
  readonly name: string;
  /** report.md. */
  readonly markdown: string;
  /** PNG files by the paths that the Markdown calls them by. */
  readonly pictures: ReadonlyMap<string, Uint8Array>;
  /** SVG documents, in the place of the picture of that path. */
  readonly charts: ReadonlyMap<string, readonly string[]>;
  /** Of {@link layersTable}; null where no layer has an adapter. */
  readonly layers: string | null;
  /** config.yaml. */
  readonly config: string;
}

const style = `
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .3rem; }
figure { margin: 1rem 0; overflow-x: auto; } figure img, figure svg { max-width: 100%; height: auto; display: block; margin-bottom: 1rem; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #eee; vertical-align: top; }
.wide { overflow-x: auto; } .layers { font-size: 12.5px; white-space: nowrap; } .layers small { font-weight: normal; color: #666; }
.layers strong { color: #a33; white-space: normal; } .layers svg { vertical-align: -2px; }
pre { background: #f5f5f5; padding: .75rem; overflow-x: auto; font-size: 13px; } code { background: #f5f5f5; padding: 0 .2rem; }
`;

/** The page. It loads nothing and runs nothing: a policy within it forbids both. */
export function renderPage({ name, markdown, pictures, charts, layers, config }: PageParts): string {
  const body = markdownHtml(markdown, (path, words) => {
    const drawn = charts.get(path);
    if (drawn) return drawn.join('\n');
    const png = pictures.get(path);
    if (!png) throw new RangeError(`report: no picture "${path}"`);
    return `<img alt="${escapeHtml(words)}" src="data:image/png;base64,${Buffer.from(png).toString('base64')}">`;
  });
  const perLayer = layers === null ? '' : `<h2>Layer by layer</h2>\n<div class="wide">${layers}</div>\n`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(name)}</title>
<style>${style}</style>
</head>
<body>
${body}
${perLayer}<h2>Configuration</h2>
<pre>${escapeHtml(config)}</pre>
</body>
</html>
`;
}

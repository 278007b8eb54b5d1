/** What an adapter does to each layer, as a table of numbers and bars. */
import type { LayerDiagnostics } from '@deftjs/deft';
import { escapeHtml } from './markdownHtml.ts';

type Column = readonly [heading: string, meaning: string, value: (layer: LayerDiagnostics) => number | null];

const columns: readonly Column[] = [
  ['change', '|ΔW| / |W₀|', ({ changeEnergy }) => changeEnergy],
  ['removed', '|K W₀| / |W₀|', ({ removedEnergy }) => removedEnergy],
  ['injected', '|Q A| / |W₀|', ({ injectedEnergy }) => injectedEnergy],
  ['effective rank', 'of ΔW', ({ effectiveRank }) => effectiveRank],
];

const barWidth = 56;
const barHeight = 12;

/**
 * The table as HTML: Frobenius norms relative to the weight's, the effective rank (exp of the entropy of the
 * singular values of ΔW), and the distance of K from a projector. Bars are
 * relative to the largest value of their column.
 */
export function layersTable(layers: readonly LayerDiagnostics[]): string {
  const most = columns.map(([, , value]) => Math.max(...layers.map((layer) => value(layer) ?? 0)));
  const head = [
    '<th>layer</th>',
    ...columns.map(([heading, meaning]) => `<th>${heading}<br><small>${meaning}</small></th>`),
    '<th>defect<br><small>|K² − K|</small></th><th>I − K<br><small>singular values</small></th>',
  ];
  const rows = layers.map((layer) => {
    const cells = columns.map(([, , value], i) => `<td>${bar(value(layer) ?? 0, most[i]!)}</td>`);
    const warnings = layer.warnings.map((warning) => `<br><strong>${escapeHtml(warning)}</strong>`).join('');
    return `<tr><td>${escapeHtml(layer.path)}${warnings}</td>${cells.join('')}${projectorCells(layer)}</tr>`;
  });
  return `<table class="layers"><thead><tr>${head.join('')}</tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

function bar(value: number, most: number): string {
  const width = most === 0 ? 0 : (barWidth * value) / most;
  return (
    `<svg width="${barWidth}" height="${barHeight}" aria-hidden="true">` +
    `<rect width="${width.toFixed(1)}" height="${barHeight}" fill="#9bb7d4"/></svg> ${number(value)}`
  );
}

function projectorCells({ projectorDefect, keptSpectrum }: LayerDiagnostics): string {
  if (projectorDefect === null) return '<td>–</td><td>–</td>';
  const [largest, smallest] = [keptSpectrum[0] ?? 1, keptSpectrum.at(-1) ?? 1];
  return `<td>${projectorDefect.toExponential(1)}</td><td>${number(smallest)} … ${number(largest)}</td>`;
}

function number(value: number): string {
  return value !== 0 && value < 1e-3 ? value.toExponential(1) : value.toFixed(3);
}

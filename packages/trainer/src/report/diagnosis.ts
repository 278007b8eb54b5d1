/** What an adapter does to each layer, and where its directions lie, as one drawing: a row for each layer. */
import type { LayerDiagnostics } from '@deftjs/deft';
import { openPlot } from './plot.ts';
import { escapeXml, fontFamily } from './svg.ts';

/** The numbers of a layer. Angles in degrees, smallest first; null where they were not measured. */
export interface LayerDiagnosis extends LayerDiagnostics {
  /** Between the adapter's directions and the largest left singular vectors of W0. */
  readonly toWeight: readonly number[];
  /** Between the directions and those that training started from. */
  readonly toStart: readonly number[] | null;
  /** Between the directions and those of another adapter. */
  readonly toOther: readonly number[] | null;
  /** Part of the change that moving singular values alone makes. */
  readonly singularValueShare: number | null;
}

/** A quantity in a panel: its name, and the dots of a layer. */
type Series = readonly [name: string, dots: (layer: LayerDiagnosis) => readonly number[]];

interface Panel {
  readonly title: string;
  readonly scale?: {
    readonly type?: 'log';
    readonly domain?: readonly [number, number];
    readonly zero?: boolean;
  };
  readonly series: readonly Series[];
  /** Where a line is drawn. */
  readonly mark?: number;
}

const panels: readonly Panel[] = [
  {
    title: 'norms relative to |W₀|',
    scale: { type: 'log' },
    series: [
      ['removed |K W₀|', ({ removedEnergy }) => [removedEnergy]],
      ['injected |Q A|', ({ injectedEnergy }) => [injectedEnergy]],
      ['change |ΔW|', ({ changeEnergy }) => [changeEnergy]],
    ],
  },
  {
    title: 'principal angles of P, degrees',
    scale: { domain: [0, 90] },
    series: [
      ['to W₀', ({ toWeight }) => toWeight],
      ['to its start', ({ toStart }) => toStart ?? []],
      ['to the other', ({ toOther }) => toOther ?? []],
    ],
  },
  {
    title: 'singular values of I − K',
    series: [['within the span of K', ({ keptSpectrum }) => keptSpectrum]],
    mark: 1,
  },
  {
    title: 'effective rank of ΔW',
    scale: { zero: true },
    series: [['rank', ({ effectiveRank }) => [effectiveRank]]],
  },
  {
    title: 'share of singular values',
    scale: { domain: [0, 1] },
    series: [['of |ΔW|²', ({ singularValueShare: share }) => (share === null ? [] : [share])]],
  },
];

const colors = ['#c0392b', '#1f4e79', '#7f8c8d'];
const rowHeight = 14;
const panelWidth = 230;
const headHeight = 78;
const footHeight = 36;
const letter = 6.3; // of the layers' names, at 10 units

/**
 * The drawing as an SVG document. Norms of zero have no place on their logarithmic axis and are left out, as is what a
 * layer does not have.
 */
export async function diagnosisChart(layers: readonly LayerDiagnosis[], title: string): Promise<string> {
  const { Plot, drawn } = await openPlot();
  const paths = layers.map(({ path }) => path);
  const names = Math.ceil(letter * Math.max(...paths.map(({ length }) => length))) + 16;
  const height = headHeight + rowHeight * layers.length + footHeight;
  const charts = panels.map(({ title: heading, scale = {}, series, mark }, i) => {
    const dots = series.flatMap(([name, values]) =>
      layers.flatMap((layer) => values(layer).map((value) => ({ name, value, path: layer.path }))),
    );
    const kept = scale.type === 'log' ? dots.filter(({ value }) => value > 0) : dots;
    const left = i === 0 ? names : 12;
    const options = {
      width: left + panelWidth,
      height,
      marginLeft: left,
      marginRight: 12,
      marginTop: headHeight,
      marginBottom: footHeight,
      style: { fontFamily, fontSize: '10px', background: 'white' },
      x: { label: null, grid: true, ticks: 4, tickFormat: String, ...scale },
      y: { type: 'point', domain: paths, label: null, axis: i === 0 ? 'left' : null, tickSize: 0 },
      color: { domain: series.map(([name]) => name), range: colors },
      marks: [
        Plot.ruleY(paths, { stroke: '#eeeeee' }),
        ...(mark === undefined ? [] : [Plot.ruleX([mark], { stroke: '#999999' })]),
        Plot.dot(kept, { x: 'value', y: 'path', fill: 'name', r: 2.6, fillOpacity: 0.8 }),
      ],
    };
    const legend = series.map(([name], k) => {
      const y = 46 + 12 * k;
      return `<circle cx="${left + 4}" cy="${y - 3}" r="3" fill="${colors[k]}"/>${label(left + 12, y, name, 10)}`;
    });
    const head = label(left, 30, heading, 12, true) + legend.join('');
    return { svg: drawn(options, head), width: left + panelWidth };
  });
  let x = 0;
  const placed = charts.map(({ svg, width }) => {
    const at = svg.replace('<svg ', `<svg x="${x}" y="24" `);
    x += width;
    return at;
  });
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${x}" height="${height + 24}" font-family="${fontFamily}">` +
    `<rect width="100%" height="100%" fill="white"/>${label(12, 24, title, 15, true)}${placed.join('')}</svg>`
  );
}

function label(x: number, y: number, text: string, size: number, bold = false): string {
  const weight = bold ? ' font-weight="bold"' : '';
  return `<text x="${x}" y="${y}" font-size="${size}" fill="black" text-anchor="start"${weight}>${escapeXml(text)}</text>`;
}

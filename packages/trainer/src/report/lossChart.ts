/** The loss over a run, as a drawing. */
import { escapeXml, fontFamily } from './svg.ts';

/** The loss of one optimizer step. */
export interface LossPoint {
  /** Counted from 1. */
  readonly step: number;
  readonly loss: number;
}

/** More dots than this only thicken the cloud. */
const maxDots = 2000;
/** Points of the average: half a pixel apart. */
const linePoints = 1500;

/** The mean of each point's neighbourhood, `reach` points to either side where there are so many. */
export function runningMean(points: readonly LossPoint[], reach: number): LossPoint[] {
  const sums = new Float64Array(points.length + 1);
  points.forEach(({ loss }, i) => {
    sums[i + 1] = sums[i]! + loss;
  });
  return points.map(({ step }, i) => {
    const from = Math.max(0, i - reach);
    const to = Math.min(points.length, i + reach + 1);
    return { step, loss: (sums[to]! - sums[from]!) / (to - from) };
  });
}

/**
 * The loss curve as an SVG document: a dot per step, and the mean over a twentieth of the run around it as a line.
 * The axis is logarithmic where the mean falls or rises by more than a factor of five. Losses that are not finite or
 * not positive are left out.
 */
export async function lossChart(points: readonly LossPoint[], title: string): Promise<string> {
  const [Plot, { parseHTML }] = await Promise.all([import('@observablehq/plot'), import('linkedom')]);
  const shown = points.filter(({ loss }) => Number.isFinite(loss) && loss > 0);
  const average = runningMean(shown, Math.max(1, Math.round(shown.length / 40)));
  const isWide = average.length > 0 && ratio(average.map(({ loss }) => loss)) > 5;
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const options = {
    document,
    width: 800,
    height: 400,
    marginLeft: 60,
    marginBottom: 44,
    marginTop: 48,
    style: { fontFamily, fontSize: '13px', background: 'white' },
    x: { label: 'optimizer step', ticks: 8 },
    y: {
      label: null, // the heading says it
      type: isWide ? 'log' : 'linear',
      tickFormat: '~g', // or Plot writes 0.3 as 300m
      grid: true,
      ticks: 6,
    },
    marks: [
      Plot.dot(thin(shown, maxDots), { x: 'step', y: 'loss', r: 1.5, fill: '#9bb7d4', fillOpacity: 0.7 }),
      Plot.line(thin(average, linePoints), { x: 'step', y: 'loss', stroke: '#1f4e79', strokeWidth: 2.2 }),
    ],
  };
  // linkedom's document has what Plot uses, but not the type.
  const chart = Plot.plot(options as unknown as Parameters<typeof Plot.plot>[0]);
  chart.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  const heading = `<text x="12" y="26" font-size="16" font-weight="bold" text-anchor="start">${escapeXml(title)}<tspan font-weight="normal" font-size="13">${isWide ? '  loss, logarithmic axis' : '  loss'}</tspan></text>`;
  return chart.outerHTML.replace(/<\/svg>$/, `${heading}</svg>`);
}

function ratio(values: readonly number[]): number {
  return values.reduce((a, b) => Math.max(a, b)) / values.reduce((a, b) => Math.min(a, b));
}

/** About `most` of the points, evenly spaced, the last among them. */
function thin(points: readonly LossPoint[], most: number): LossPoint[] {
  const stride = Math.max(1, Math.ceil(points.length / most));
  return points.filter((_, i) => i % stride === 0 || i === points.length - 1);
}

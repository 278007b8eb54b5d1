/** One quantity over a run, as a drawing. */
import { openPlot } from './plot.ts';
import { escapeXml, fontFamily } from './svg.ts';

/** The value after one optimizer step. */
export interface CurvePoint {
  /** Counted from 1. */
  readonly step: number;
  readonly value: number;
}

export interface CurveOptions {
  readonly title: string;
  /** What is drawn, such as "loss"; nothing where the title says it. */
  readonly quantity?: string;
  /** Whether the line is a mean over neighbours, as noisy values need; true by default. */
  readonly smooth?: boolean;
  /** Units of the drawing; 400 by default. */
  readonly height?: number;
  /** Dots drawn at most; 2000 by default: more only thicken the cloud. */
  readonly dots?: number;
}

/** Points of the average: half a pixel apart. */
const linePoints = 1500;

/** The mean of each point's neighbourhood, `reach` points to either side where there are so many. */
export function runningMean(points: readonly CurvePoint[], reach: number): CurvePoint[] {
  const sums = new Float64Array(points.length + 1);
  points.forEach(({ value }, i) => {
    sums[i + 1] = sums[i]! + value;
  });
  return points.map(({ step }, i) => {
    const from = Math.max(0, i - reach);
    const to = Math.min(points.length, i + reach + 1);
    return { step, value: (sums[to]! - sums[from]!) / (to - from) };
  });
}

/**
 * The curve as an SVG document: a dot per step, and a line: the mean over a twentieth of the run around it, unless the
 * values are not to be smoothed.
 * The axis is logarithmic where the mean falls or rises by more than a factor of five. Values that are not finite or
 * not positive are left out.
 */
export async function curveChart(
  points: readonly CurvePoint[],
  { title, quantity, smooth = true, height = 400, dots = 2000 }: CurveOptions,
): Promise<string> {
  const { Plot, drawn } = await openPlot();
  const shown = points.filter(({ value }) => Number.isFinite(value) && value > 0);
  const average = smooth ? runningMean(shown, Math.max(1, Math.round(shown.length / 40))) : shown;
  const isWide = average.length > 0 && ratio(average.map(({ value }) => value)) > 5;
  const options = {
    width: 800,
    height,
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
      Plot.dot(thin(shown, dots), { x: 'step', y: 'value', r: 1.5, fill: '#9bb7d4', fillOpacity: 0.9 }),
      Plot.line(thin(average, linePoints), { x: 'step', y: 'value', stroke: '#1f4e79', strokeWidth: 2.2 }),
    ],
  };
  const small = [quantity, isWide ? 'logarithmic axis' : undefined].filter(Boolean).join(', ');
  const heading = `<text x="12" y="26" font-size="16" font-weight="bold" text-anchor="start">${escapeXml(title)}<tspan font-weight="normal" font-size="13">  ${escapeXml(small)}</tspan></text>`;
  return drawn(options, heading);
}

/** The loss of one optimizer step. */
export interface LossPoint {
  /** Counted from 1. */
  readonly step: number;
  readonly loss: number;
}

/** The {@link curveChart} of the loss. */
export function lossChart(points: readonly LossPoint[], title: string): Promise<string> {
  const curve = points.map(({ step, loss }) => ({ step, value: loss }));
  return curveChart(curve, { title, quantity: 'loss' });
}

function ratio(values: readonly number[]): number {
  return values.reduce((a, b) => Math.max(a, b)) / values.reduce((a, b) => Math.min(a, b));
}

/** About `most` of the points, evenly spaced, the last among them. */
function thin(points: readonly CurvePoint[], most: number): CurvePoint[] {
  const stride = Math.max(1, Math.ceil(points.length / most));
  return points.filter((_, i) => i % stride === 0 || i === points.length - 1);
}

/** Pictures, charts and pages that show what a run did. */
import { encodePng, rasterize } from './svg.ts';

export { type GridOptions, gridPng, type Heading } from './grid.ts';
export { type LossPoint, lossChart } from './lossChart.ts';
export { type ReportData, renderMetrics, renderReport } from './report.ts';

/** A drawing as a PNG file, `scale` pixels per unit. */
export async function chartPng(svg: string, scale = 2): Promise<Uint8Array> {
  return encodePng(await rasterize(svg, scale));
}

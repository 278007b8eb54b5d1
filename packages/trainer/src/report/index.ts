/** Pictures, charts and pages that show what a run did. */
import { encodePng, rasterize } from './svg.ts';

export { type CurvePoint, curveChart, type LossPoint, lossChart } from './curve.ts';
export { diagnosisChart, type LayerDiagnosis } from './diagnosis.ts';
export { framed, type GridOptions, gridPng, type Heading, picturePng, readStrip, stripPng } from './grid.ts';
export { layersTable } from './layers.ts';
export { type PageParts, renderPage } from './page.ts';
export { pngText, withPngText } from './pngText.ts';
export { type ReportData, renderMetrics, renderReport } from './report.ts';

/** A drawing as a PNG file, `scale` pixels per unit. */
export async function chartPng(svg: string, scale = 2): Promise<Uint8Array> {
  return encodePng(await rasterize(svg, scale));
}

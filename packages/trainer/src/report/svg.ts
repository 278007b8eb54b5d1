/** SVG to pixels with the font that comes with this package: a bare machine has none, and text would not show. */
import { createRequire } from 'node:module';

/** Pixels, four bytes each (red, green, blue, alpha not premultiplied). */
export interface Raster {
  readonly width: number;
  readonly height: number;
  readonly rgba: Uint8Array;
}

/** The font family of everything drawn here. */
export const fontFamily = 'DejaVu Sans';

/** Width of an average letter of {@link fontFamily}, in font sizes; a long line of text stays within 1.1 times it. */
export const letterWidth = 0.6;

/** The drawing at `scale` pixels per unit, on white. */
export async function rasterize(svg: string, scale = 1): Promise<Raster> {
  const { Resvg } = await import('@resvg/resvg-js');
  const fonts = createRequire(import.meta.url);
  const image = new Resvg(svg, {
    background: '#ffffff',
    fitTo: { mode: 'zoom', value: scale },
    font: {
      loadSystemFonts: false, // the same picture on every machine
      fontFiles: ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'].map((file) =>
        fonts.resolve(`dejavu-fonts-ttf/ttf/${file}`),
      ),
      defaultFontFamily: fontFamily,
    },
  }).render();
  return { width: image.width, height: image.height, rgba: new Uint8Array(image.pixels) };
}

/** The pixels as a PNG file. */
export async function encodePng({ width, height, rgba }: Raster): Promise<Uint8Array> {
  const { default: sharp } = await import('sharp');
  return sharp(rgba, { raw: { width, height, channels: 4 } })
    .removeAlpha()
    .png({ compressionLevel: 9 })
    .toBuffer();
}

/** Text inside an SVG element or attribute. Characters that XML cannot hold are left out. */
export function escapeXml(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: XML forbids them
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '')
      .replaceAll('&', '&amp;')
      .replaceAll('<', '&lt;')
      .replaceAll('>', '&gt;')
      .replaceAll('"', '&quot;')
  );
}

/** The text in lines of at most `width` units at a font size; a word longer than a line stands alone, cut. */
export function wrapText(text: string, width: number, fontSize: number): string[] {
  const most = Math.max(1, Math.floor(width / (fontSize * letterWidth)));
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const last = lines.at(-1);
    const short = word.length > most ? `${word.slice(0, most - 1)}…` : word;
    if (last !== undefined && last.length + 1 + short.length <= most)
      lines[lines.length - 1] = `${last} ${short}`;
    else lines.push(short);
  }
  return lines;
}

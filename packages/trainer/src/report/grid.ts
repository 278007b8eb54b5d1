/** Sheets of pictures with their captions: the training pictures, base beside adapted. */
import type { Picture } from '../world/render.ts';
import { encodePng, escapeXml, fontFamily, type Raster, rasterize, wrapText } from './svg.ts';

/** Words that stand over one or more columns. */
export interface Heading {
  readonly text: string;
  readonly columns: number;
}

export interface GridOptions {
  readonly columns: number;
  /** Over everything. */
  readonly title?: string;
  /** Over the columns, from the left. */
  readonly headings?: readonly Heading[];
  /** Left of each row. */
  readonly rowLabels?: readonly string[];
  /** Below each picture. */
  readonly labels?: readonly string[];
  /** Screen pixels per picture pixel, each a sharp square; 4 by default. */
  readonly magnification?: number;
}

const gap = 8;
const margin = 16;
const rowLabelWidth = 190;
const titleSize = 20;
const headingSize = 15;
const labelSize = 12;
const lineHeight = 1.3;

/** Where everything of a sheet stands, in pixels. */
export interface GridLayout {
  readonly width: number;
  readonly height: number;
  /** The left top corner of each picture, in order. */
  readonly corners: readonly { readonly x: number; readonly y: number }[];
  /** The text, as an SVG document of the sheet's size. */
  readonly svg: string;
}

/**
 * A sheet with the pictures row by row, as a PNG file.
 * @throws {RangeError} when the pictures differ in size, or labels and headings do not match the pictures
 */
export async function gridPng(pictures: readonly Picture[], options: GridOptions): Promise<Uint8Array> {
  const { corners, svg } = gridLayout(pictures, options);
  const sheet = await rasterize(svg);
  pictures.forEach((picture, i) => {
    paste(sheet, picture, corners[i]!, options.magnification ?? 4);
  });
  return encodePng(sheet);
}

/** The pictures in frames of one size, the smaller ones in the middle of white. */
export function framed(pictures: readonly Picture[]): Picture[] {
  const width = Math.max(...pictures.map((picture) => picture.width));
  const height = Math.max(...pictures.map((picture) => picture.height));
  return pictures.map((picture) => {
    if (picture.width === width && picture.height === height) return picture;
    const data = new Float32Array(3 * width * height).fill(1);
    const [left, top] = [(width - picture.width) >> 1, (height - picture.height) >> 1];
    for (let row = 0; row < picture.height; row += 1) {
      const from = 3 * row * picture.width;
      data.set(picture.data.subarray(from, from + 3 * picture.width), 3 * ((top + row) * width + left));
    }
    return { width, height, data };
  });
}

/** One picture pixel for pixel, as a PNG file. */
export function picturePng(picture: Picture): Promise<Uint8Array> {
  return stripPng([picture]);
}

/** Pictures of one size one below the other, pixel for pixel, as a PNG file. */
export function stripPng(pictures: readonly Picture[]): Promise<Uint8Array> {
  const { width, height } = pictures[0]!;
  const rgba = new Uint8Array(4 * width * height * pictures.length);
  const strip = { width, height: height * pictures.length, rgba };
  pictures.forEach((picture, i) => {
    paste(strip, picture, { x: 0, y: i * height }, 1);
  });
  return encodePng(strip);
}

/** The `count` pictures of a file of {@link stripPng}, rounded to 8 bits as it holds them. */
export async function readStrip(png: Uint8Array, count: number): Promise<Picture[]> {
  const { default: sharp } = await import('sharp');
  const { data, info } = await sharp(png).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const height = info.height / count;
  const size = 3 * info.width * height;
  return Array.from({ length: count }, (_, i) => ({
    width: info.width,
    height,
    data: Float32Array.from(data.subarray(i * size, (i + 1) * size), (byte) => byte / 255),
  }));
}

/** The layout of {@link gridPng}. @throws {RangeError} as there */
export function gridLayout(pictures: readonly Picture[], options: GridOptions): GridLayout {
  const { columns, title, headings = [], rowLabels = [], labels = [], magnification = 4 } = options;
  const rows = Math.ceil(pictures.length / columns);
  checkGrid(pictures, rows, options);
  const [first] = pictures;
  const cellWidth = first!.width * magnification;
  const cellHeight = first!.height * magnification;

  const texts: string[] = [];
  const left = margin + (rowLabels.length > 0 ? rowLabelWidth + gap : 0);
  const width = left + columns * cellWidth + (columns - 1) * gap + margin;
  let top = margin;
  if (title !== undefined) {
    const lines = wrapText(title, width - 2 * margin, titleSize);
    texts.push(textBlock(lines, margin, top, titleSize, 'start', 'bold'));
    top += lines.length * titleSize * lineHeight + gap;
  }
  if (headings.length > 0) {
    let column = 0;
    let deepest = 0;
    for (const heading of headings) {
      const span = heading.columns * (cellWidth + gap) - gap;
      const lines = wrapText(heading.text, span, headingSize);
      const middle = left + column * (cellWidth + gap) + span / 2;
      texts.push(textBlock(lines, middle, top, headingSize, 'middle', 'bold'));
      deepest = Math.max(deepest, lines.length);
      column += heading.columns;
    }
    top += deepest * headingSize * lineHeight + gap;
  }

  const corners: { x: number; y: number }[] = [];
  for (let row = 0; row < rows; row += 1) {
    const label = wrapText(rowLabels[row] ?? '', rowLabelWidth, labelSize);
    texts.push(textBlock(label, margin, top, labelSize, 'start', 'normal'));
    let below = 0;
    for (let column = 0; column < columns && corners.length < pictures.length; column += 1) {
      const x = left + column * (cellWidth + gap);
      const lines = wrapText(labels[corners.length] ?? '', cellWidth, labelSize);
      texts.push(textBlock(lines, x + cellWidth / 2, top + cellHeight + 4, labelSize, 'middle', 'normal'));
      below = Math.max(below, lines.length);
      corners.push({ x, y: Math.round(top) });
    }
    const labelled = below === 0 ? 0 : below * labelSize * lineHeight + 4;
    top += Math.max(cellHeight + labelled, label.length * labelSize * lineHeight) + gap;
  }
  const height = Math.ceil(top - gap + margin);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="${fontFamily}" fill="#222222">${texts.join('')}</svg>`;
  return { width, height, corners, svg };
}

function checkGrid(pictures: readonly Picture[], rows: number, options: GridOptions): void {
  const { columns, headings, rowLabels, labels } = options;
  const [first] = pictures;
  if (first === undefined) throw new RangeError('grid: expected at least one picture; got none');
  const odd = pictures.find(({ width, height }) => width !== first.width || height !== first.height);
  if (odd) {
    throw new RangeError(
      `grid: pictures differ in size; expected ${first.width} x ${first.height}; got ${odd.width} x ${odd.height}`,
    );
  }
  const counts: readonly (readonly [string, number | undefined, number])[] = [
    ['columns under headings', headings?.reduce((sum, heading) => sum + heading.columns, 0), columns],
    ['row labels', rowLabels?.length, rows],
    ['labels', labels?.length, pictures.length],
  ];
  for (const [what, got, expected] of counts) {
    if (got !== undefined && got !== expected) {
      throw new RangeError(`grid: wrong number of ${what}; expected ${expected}; got ${got}`);
    }
  }
}

function textBlock(
  lines: readonly string[],
  x: number,
  top: number,
  size: number,
  anchor: 'start' | 'middle',
  weight: 'normal' | 'bold',
): string {
  return lines
    .map((line, i) => {
      const y = top + i * size * lineHeight + size;
      return `<text x="${x}" y="${y.toFixed(1)}" font-size="${size}" font-weight="${weight}" text-anchor="${anchor}">${escapeXml(line)}</text>`;
    })
    .join('');
}

/** Draws the picture into the sheet, each of its pixels as a square. */
function paste(
  sheet: Raster,
  picture: Picture,
  { x, y }: { x: number; y: number },
  magnification: number,
): void {
  for (let row = 0; row < picture.height * magnification; row += 1) {
    for (let column = 0; column < picture.width * magnification; column += 1) {
      const from = 3 * (Math.floor(row / magnification) * picture.width + Math.floor(column / magnification));
      const to = 4 * ((y + row) * sheet.width + x + column);
      for (let c = 0; c < 3; c += 1) sheet.rgba[to + c] = Math.round(255 * picture.data[from + c]!);
      sheet.rgba[to + 3] = 255;
    }
  }
}

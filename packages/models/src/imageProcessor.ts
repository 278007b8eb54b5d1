/**
 * Pictures as an encoder wants them: what preprocessor_config.json says, with the arithmetic of Pillow, which
 * transformers' processors resize with. A resized value is a weighted mean of the pixels under a kernel k that
 * widens with the reduction, first along rows, then along columns, each rounded to 8 bits:
 *
 *   y_i = sum_x w_ix p_x / sum_x w_ix,   w_ix = k((x + 1/2 - (i + 1/2) s) / max(s, 1)),   s = from / to       (1)
 */
import { configReader, type JsonConfig, type Tensor, tensor } from '@deftjs/tensor';

/** 8-bit RGB, row by row. */
export interface RgbPicture {
  readonly width: number;
  readonly height: number;
  /** height x width x 3 values. */
  readonly pixels: Uint8Array;
}

export type Resampling = 'bilinear' | 'bicubic';

const kernels: Readonly<Record<Resampling, { support: number; value: (x: number) => number }>> = {
  bilinear: { support: 1, value: (x) => Math.max(0, 1 - Math.abs(x)) },
  // Keys' kernel at a = -1/2.
  bicubic: {
    support: 2,
    value(signed) {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    },
  },
};

/** Fraction bits of a weight; sums of 8-bit values times weights fit 32 bits. */
const fractionBits = 22;

interface Row {
  readonly start: number;
  /** Weights of the pixels from `start` on, times 2^22. */
  readonly weights: readonly number[];
}

/** The weights of (1), for every place of the result. */
function resamplingRows(from: number, to: number, resampling: Resampling): Row[] {
  const { support, value } = kernels[resampling];
  const stretch = Math.max(from / to, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = ((i + 0.5) * from) / to;
    const start = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const end = Math.min(from, Math.trunc(centre + support * stretch + 0.5));
    const raw = Array.from({ length: end - start }, (_, x) => value((x + start - centre + 0.5) / stretch));
    const total = raw.reduce((sum, weight) => sum + weight, 0);
    const weights = raw.map((weight) => {
      const scaled = (weight / total) * 2 ** fractionBits;
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    return { start, weights };
  });
}

/** Each line of pixels resampled; lines begin `lineStep` values apart, pixels of one `pixelStep`. */
function resample(
  source: Uint8Array,
  rows: readonly Row[],
  { lines, from, alongRows }: { readonly lines: number; readonly from: number; readonly alongRows: boolean },
): Uint8Array {
  const to = rows.length;
  const result = new Uint8Array(lines * to * 3);
  const at = (line: number, place: number, length: number) =>
    3 * (alongRows ? line * length + place : place * lines + line);
  for (let line = 0; line < lines; line += 1) {
    for (let i = 0; i < to; i += 1) {
      const { start, weights } = rows[i]!;
      for (let channel = 0; channel < 3; channel += 1) {
        let sum = 2 ** (fractionBits - 1);
        for (let x = 0; x < weights.length; x += 1) {
          sum += source[at(line, start + x, from) + channel]! * weights[x]!;
        }
        result[at(line, i, to) + channel] = Math.min(255, Math.max(0, sum >> fractionBits));
      }
    }
  }
  return result;
}

/** The picture at another size, as Pillow's Image.resize computes it. */
export function resizePicture(
  { width, height, pixels }: RgbPicture,
  to: { readonly width: number; readonly height: number },
  resampling: Resampling,
): RgbPicture {
  let values = pixels;
  if (to.width !== width) {
    const rows = resamplingRows(width, to.width, resampling);
    values = resample(values, rows, { lines: height, from: width, alongRows: true });
  }
  if (to.height !== height) {
    const rows = resamplingRows(height, to.height, resampling);
    values = resample(values, rows, { lines: to.width, from: height, alongRows: false });
  }
  return { ...to, pixels: values };
}

/** The middle of the picture; what lies beyond its border is black. */
export function cropCentre(
  { width, height, pixels }: RgbPicture,
  to: { readonly width: number; readonly height: number },
): RgbPicture {
  const [left, top] = [Math.floor((width - to.width) / 2), Math.floor((height - to.height) / 2)];
  const cropped = new Uint8Array(to.width * to.height * 3);
  const [first, last] = [Math.max(0, left), Math.min(width, left + to.width)];
  for (let y = Math.max(0, -top); y < Math.min(to.height, height - top); y += 1) {
    const row = (top + y) * width;
    cropped.set(pixels.subarray(3 * (row + first), 3 * (row + last)), 3 * (y * to.width + first - left));
  }
  return { ...to, pixels: cropped };
}

/** Pictures to the input of an encoder: [N, 3, H, W]. */
export type ImageProcessor = (pictures: readonly RgbPicture[]) => Tensor;

/** Pillow's numbers of its kernels. */
const resamplings: ReadonlyMap<number, Resampling> = new Map([
  [2, 'bilinear'],
  [3, 'bicubic'],
]);

/**
 * The processor that a preprocessor_config.json describes: CLIPImageProcessor, BitImageProcessor (DINOv2) and
 * ViTImageProcessor.
 * @throws ConfigError; the processor throws RangeError for pictures that come out at different sizes
 */
export function imageProcessor(json: JsonConfig): ImageProcessor {
  const read = configReader('image processor', json);
  read.only({ do_pad: false });
  const target = read.boolean('do_resize', true) ? readSize(json, 'size') : null;
  const crop = read.boolean('do_center_crop', false) ? readSize(json, 'crop_size') : null;
  if (crop !== null && 'shortest' in crop) read.refuse('crop_size', 'expected height and width');
  const resampling = resamplings.get(target === null ? 3 : read.count('resample'));
  if (resampling === undefined) read.refuse('resample', 'expected 2 (bilinear) or 3 (bicubic)');
  const factor = read.boolean('do_rescale', true) ? read.number('rescale_factor', 1 / 255) : 1;
  const normalizes = read.boolean('do_normalize', true);
  const perChannel = (key: string, otherwise: number) => {
    if (!normalizes) return [otherwise, otherwise, otherwise];
    return read.numbers(key, 3) ?? read.refuse(key, 'expected a list of 3 numbers');
  };
  const [mean, std] = [perChannel('image_mean', 0), perChannel('image_std', 1)];
  if (std.includes(0)) read.refuse('image_std', 'expected numbers other than 0');

  function fitted(picture: RgbPicture): RgbPicture {
    const { width, height, pixels } = picture;
    if (pixels.length !== 3 * width * height) {
      throw new RangeError(`image processor: expected ${width} x ${height} x 3 values; got ${pixels.length}`);
    }
    const resized = target === null ? picture : resizePicture(picture, sizeFor(picture, target), resampling!);
    return crop === null ? resized : cropCentre(resized, crop as ExactSize);
  }

  return (pictures) => {
    const all = pictures.map(fitted);
    const { width, height } = all[0] ?? { width: 0, height: 0 };
    if (all.some((picture) => picture.width !== width || picture.height !== height)) {
      const sizes = all.map((picture) => `${picture.width} x ${picture.height}`);
      throw new RangeError(`image processor: expected pictures of one size; got ${sizes.join(', ')}`);
    }
    const plane = width * height;
    const values = new Float32Array(all.length * 3 * plane);
    all.forEach(({ pixels }, n) => {
      for (let c = 0; c < 3; c += 1) {
        for (let i = 0; i < plane; i += 1) {
          values[(3 * n + c) * plane + i] = (pixels[3 * i + c]! * factor - mean[c]!) / std[c]!;
        }
      }
    });
    return tensor(values, [all.length, 3, height, width]);
  };
}

type ExactSize = { readonly width: number; readonly height: number };
type Size = ExactSize | { readonly shortest: number };

/** A size as the libraries write it: one number, height and width, or the shortest edge. @throws ConfigError */
function readSize(json: JsonConfig, key: string): Size {
  const size = writtenSize(json, key);
  if (Object.values(size).includes(0))
    configReader('image processor', json).refuse(key, 'expected numbers >= 1');
  return size;
}

function writtenSize(json: JsonConfig, key: string): Size {
  const value = json[key];
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    // Older files: crops are square, sizes are of the shortest edge.
    const extent = configReader('image processor', json).count(key);
    return key === 'size' ? { shortest: extent } : { width: extent, height: extent };
  }
  const read = configReader(`image processor: ${key}`, value as JsonConfig);
  return read.has('shortest_edge')
    ? { shortest: read.count('shortest_edge') }
    : { height: read.count('height'), width: read.count('width') };
}

function sizeFor({ width, height }: RgbPicture, size: Size): ExactSize {
  if (!('shortest' in size)) return size;
  const longest = Math.trunc((size.shortest * Math.max(width, height)) / Math.min(width, height));
  return width <= height
    ? { width: size.shortest, height: longest }
    : { width: longest, height: size.shortest };
}

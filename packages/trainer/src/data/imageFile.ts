/** PNG, JPEG and WebP files as pictures of the size a model sees. */
import type { RgbPicture } from '@deftjs/models';
import type { Metadata, Sharp } from 'sharp';
import { nearestSize, type PictureSize } from './buckets.ts';

/** Refused above this many pixels: a file of a few hundred kilobytes can claim gigabytes. */
const maxPixels = 50_000_000;

/** The format of an image by its first bytes, whatever its name says; null for anything else. */
export function imageFormat(bytes: Uint8Array): 'png' | 'jpeg' | 'webp' | null {
  const ascii = (from: number, to: number): string => String.fromCharCode(...bytes.subarray(from, to));
  if (ascii(0, 8) === '\x89PNG\r\n\x1a\n') return 'png';
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return 'jpeg';
  if (ascii(0, 4) === 'RIFF' && ascii(8, 12) === 'WEBP') return 'webp';
  return null;
}

/**
 * An image as 3 planes of `size` x `size` numbers in [-1, 1]: turned as its EXIF orientation says, laid on white
 * where transparent, its middle cut to a square and scaled with a Lanczos kernel. An image of that size already is
 * taken pixel by pixel. Colours are sRGB, 8 bits a channel.
 *
 * @throws {Error} with a reason in words when the bytes cannot be used
 */
export async function decodeImage(bytes: Uint8Array, size: number): Promise<Float32Array> {
  const image = await openImage(bytes, size);
  const { pixels } = await rgbOf(
    image.resize(size, size, { fit: 'cover', position: 'centre', kernel: 'lanczos3' }),
  );
  return planesOf(pixels, size * size);
}

/**
 * An image as {@link decodeImage} takes it, but its middle cut to the nearest of the sizes in shape.
 * @throws {Error} as there
 */
export async function decodeNearest(bytes: Uint8Array, sizes: readonly PictureSize[]): Promise<Planes> {
  const image = await openImage(bytes, Math.min(...sizes.map((size) => Math.min(size.width, size.height))));
  const { autoOrient } = await image.metadata();
  const { width, height } = nearestSize(sizes, autoOrient);
  const { pixels } = await rgbOf(
    image.resize(width, height, { fit: 'cover', position: 'centre', kernel: 'lanczos3' }),
  );
  return { pixels: planesOf(pixels, width * height), width, height };
}

/** A whole picture: 3 planes of `width` x `height` numbers in [-1, 1]. */
export interface Planes {
  readonly pixels: Float32Array;
  readonly width: number;
  readonly height: number;
}

/** An image as {@link decodeImage} takes it, but whole: its shorter side is `size` pixels. @throws {Error} as there */
export async function decodeWhole(bytes: Uint8Array, size: number): Promise<Planes> {
  const image = await openImage(bytes, size);
  const { pixels, width, height } = await rgbOf(
    image.resize(size, size, { fit: 'outside', kernel: 'lanczos3' }),
  );
  return { pixels: planesOf(pixels, width * height), width, height };
}

/** An image as it is, for an encoder's own processor. @throws {Error} as {@link decodeImage} */
export async function decodePicture(bytes: Uint8Array): Promise<RgbPicture> {
  return rgbOf(await openImage(bytes, 0));
}

/** The image, upright and without transparency. */
async function openImage(bytes: Uint8Array, size: number): Promise<Sharp> {
  if (bytes.length === 0) throw new Error('the file is empty');
  if (imageFormat(bytes) === null) throw new Error('not a PNG, JPEG or WebP image');
  const { default: sharp } = await import('sharp'); // here, because loading it takes longer than most commands run
  const image = sharp(bytes, { failOn: 'warning', limitInputPixels: maxPixels });
  checkMetadata(await reason(image.metadata()), size);
  return image.autoOrient().flatten({ background: '#ffffff' });
}

async function rgbOf(image: Sharp): Promise<RgbPicture> {
  const raw = image.toColourspace('srgb').raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
  const {
    data,
    info: { width, height, channels },
  } = await reason(raw);
  if (channels !== 3) throw new Error(`internal: decoded to ${channels} channels instead of 3`);
  return { width, height, pixels: new Uint8Array(data.buffer, data.byteOffset, data.length) };
}

function checkMetadata({ width, height, pages }: Metadata, size: number): void {
  if (width * height > maxPixels) throw new Error(tooBig);
  if ((pages ?? 1) > 1) throw new Error(`an animation of ${pages} frames; expected one picture`);
  if (Math.min(width, height) < size / 2) {
    throw new Error(`${width} x ${height} pixels are too few for a model of ${size} x ${size}`);
  }
}

const tooBig = `too many pixels; expected at most ${maxPixels / 1e6} million`;

/** What sharp says, in one line of the user's language. */
async function reason<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const message = (error instanceof Error ? error.message : String(error)).split('\n')[0]!;
    if (/exceeds pixel limit/i.test(message)) throw new Error(tooBig);
    throw new Error(`damaged or not readable (${message})`);
  }
}

/** Interleaved bytes to planes in [-1, 1]. */
function planesOf(bytes: Uint8Array, pixels: number): Float32Array {
  const planes = new Float32Array(3 * pixels);
  for (let i = 0; i < pixels; i += 1) {
    for (let c = 0; c < 3; c += 1) planes[c * pixels + i] = bytes[3 * i + c]! / 127.5 - 1;
  }
  return planes;
}

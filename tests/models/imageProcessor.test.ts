import { cropCentre, imageProcessor, type RgbPicture, resizePicture } from '@deftjs/models';
import { read, referenceDevice } from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

const extents = fc.integer({ min: 1, max: 24 });
const resamplings = fc.constantFrom('bilinear' as const, 'bicubic' as const);

function picture(
  width: number,
  height: number,
  at: (x: number, y: number, channel: number) => number,
): RgbPicture {
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < pixels.length; i += 1) {
    const pixel = Math.floor(i / 3);
    pixels[i] = at(pixel % width, Math.floor(pixel / width), i % 3);
  }
  return { width, height, pixels };
}

const pictures = fc
  .tuple(extents, extents)
  .chain(([width, height]) =>
    fc
      .uint8Array({ minLength: width * height * 3, maxLength: width * height * 3 })
      .map((pixels) => ({ width, height, pixels })),
  );

const transposed = ({ width, height, pixels }: RgbPicture) =>
  picture(height, width, (x, y, channel) => pixels[3 * (x * width + y) + channel]!);

describe('resizing as Pillow does', () => {
  it('keeps a picture of one colour exactly', () => {
    fc.assert(
      fc.property(
        extents,
        extents,
        extents,
        extents,
        fc.nat(255),
        resamplings,
        (w, h, tw, th, colour, kind) => {
          const resized = resizePicture(
            picture(w, h, () => colour),
            { width: tw, height: th },
            kind,
          );
          expect([...new Set(resized.pixels)]).toEqual([colour]);
          expect(resized.pixels).toHaveLength(tw * th * 3);
        },
      ),
    );
  });

  it('leaves a picture of the size alone', () => {
    fc.assert(
      fc.property(pictures, resamplings, (given, kind) => {
        expect(resizePicture(given, given, kind).pixels).toEqual(given.pixels);
      }),
    );
  });

  it('treats rows and columns alike, up to the rounding between the two', () => {
    fc.assert(
      fc.property(pictures, extents, extents, (given, width, height) => {
        const one = resizePicture(given, { width, height }, 'bilinear');
        const other = transposed(
          resizePicture(transposed(given), { width: height, height: width }, 'bilinear'),
        );
        one.pixels.forEach((value, i) => {
          expect(Math.abs(value - other.pixels[i]!)).toBeLessThanOrEqual(1);
        });
      }),
    );
  });

  it('halves by the means that the kernel at twice its width gives', () => {
    // Weights of 4 pixels around an even cut, by the triangle of support 2: 1/8, 3/8, 3/8, 1/8.
    const row = picture(8, 1, (x) => [0, 0, 0, 80, 160, 0, 0, 0][x]!);
    const { pixels } = resizePicture(row, { width: 4, height: 1 }, 'bilinear');
    expect([0, 1, 2, 3].map((x) => pixels[3 * x])).toEqual([0, 50, 70, 0]);
  });

  it('overshoots beside an edge when it enlarges bicubically, and clamps', () => {
    const edge = picture(8, 1, (x) => (x < 4 ? 100 : 200));
    const { pixels } = resizePicture(edge, { width: 16, height: 1 }, 'bicubic');
    const values = Array.from({ length: 16 }, (_, x) => pixels[3 * x]!);
    expect(Math.min(...values)).toBeLessThan(100);
    expect(Math.max(...values)).toBeGreaterThan(200);
    const { pixels: clamped } = resizePicture(
      picture(8, 1, (x) => (x < 4 ? 0 : 255)),
      { width: 16, height: 1 },
      'bicubic',
    );
    expect([clamped[0], clamped.at(-1)]).toEqual([0, 255]);
  });
});

describe('the middle of a picture', () => {
  it('is what a crop of even overhang leaves, black beyond the border', () => {
    const given = picture(4, 3, (x, y) => 1 + x + 10 * y);
    const plain = (result: RgbPicture) => result.pixels.filter((_, i) => i % 3 === 0);
    expect([...plain(cropCentre(given, { width: 2, height: 1 }))]).toEqual([12, 13]);
    expect([...plain(cropCentre(given, { width: 6, height: 3 }))]).toEqual([
      0, 1, 2, 3, 4, 0, 0, 11, 12, 13, 14, 0, 0, 21, 22, 23, 24, 0,
    ]);
  });
});

describe('an image processor', () => {
  const clip = {
    do_resize: true,
    size: { shortest_edge: 8 },
    resample: 3,
    do_center_crop: true,
    crop_size: { height: 8, width: 8 },
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: [0.5, 0.25, 0],
    image_std: [0.5, 0.25, 2],
  };

  it('resizes, cuts, scales and normalises each channel', async () => {
    const process = imageProcessor(clip);
    const input = process([picture(30, 20, (_x, _y, c) => [255, 0, 51][c]!)]);
    expect(input.shape).toEqual([1, 3, 8, 8]);
    const values = await read(input, referenceDevice());
    expect([values[0], values[64], values[128]]).toEqual([1, -1, Math.fround(0.1)]);
  });

  it('keeps the proportions of a picture where only the shortest edge is given', () => {
    const process = imageProcessor({ ...clip, do_center_crop: false });
    expect(process([picture(30, 20, () => 9)]).shape).toEqual([1, 3, 8, 12]);
    expect(process([picture(9, 25, () => 9)]).shape).toEqual([1, 3, 22, 8]);
    expect(() => process([picture(30, 20, () => 9), picture(9, 25, () => 9)])).toThrow(
      'image processor: expected pictures of one size; got 12 x 8, 8 x 22',
    );
  });

  it('reads the sizes of older files', () => {
    expect(imageProcessor({ ...clip, size: 8, crop_size: 6 })([picture(10, 20, () => 0)]).shape).toEqual([
      1, 3, 6, 6,
    ]);
  });

  it.each([
    [{ resample: 1 }, 'image processor: resample: expected 2 (bilinear) or 3 (bicubic); got 1'],
    [{ size: { height: 0, width: 4 } }, 'image processor: size: expected numbers >= 1'],
    [{ image_mean: null }, 'image processor: image_mean: expected a list of 3 numbers'],
    [{ image_std: [1, 0, 1] }, 'image processor: image_std: expected numbers other than 0'],
    [{ crop_size: { shortest_edge: 4 } }, 'image processor: crop_size: expected height and width'],
    [{ do_pad: true }, 'image processor: do_pad: not supported; expected false; got true'],
  ])('refuses %o', (change, message) => {
    expect(() => imageProcessor({ ...clip, ...change })).toThrow(message);
  });
});

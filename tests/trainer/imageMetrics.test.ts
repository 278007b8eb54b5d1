import { readFileSync } from 'node:fs';
import {
  blankPicture,
  canny,
  edgeF1,
  frechetDistance,
  luma,
  type Plane,
  psnr,
  rgbOf,
  rmse,
  ssim,
} from '@deftjs/trainer';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

interface PictureCase {
  readonly width: number;
  readonly height: number;
  readonly a: readonly number[];
  readonly b: readonly number[];
  readonly ssim: number;
  readonly psnr: number;
  readonly canny: Readonly<Record<string, string>>;
}

const golden = JSON.parse(
  readFileSync(new URL('../golden/image-metrics/cases.json', import.meta.url), 'utf8'),
) as {
  readonly pictures: readonly PictureCase[];
  readonly frechet: { readonly a: number[][]; readonly b: number[][]; readonly distance: number };
};

function plane({ width, height }: { width: number; height: number }, bytes: readonly number[]): Plane {
  return { width, height, data: Float64Array.from(bytes, (byte) => byte / 255) };
}

const planes = fc
  .record({ width: fc.integer({ min: 7, max: 16 }), height: fc.integer({ min: 7, max: 16 }) })
  .chain((size) =>
    fc
      .array(fc.nat(255), { minLength: size.width * size.height, maxLength: size.width * size.height })
      .map((bytes) => plane(size, bytes)),
  );

describe('against scikit-image', () => {
  it.each(golden.pictures)('similarity of $width x $height pixels', (one) => {
    const [a, b] = [plane(one, one.a), plane(one, one.b)];
    expect(ssim(a, b)).toBeCloseTo(one.ssim, 9);
    expect(psnr(a, b)).toBeCloseTo(one.psnr, 9);
  });

  it.each(golden.pictures)('edges of $width x $height pixels', (one) => {
    for (const [sigma, edges] of Object.entries(one.canny)) {
      expect(canny(plane(one, one.a), { sigma: Number(sigma) }).join('')).toBe(edges);
    }
  });

  it('the distance of two sets of features', () => {
    const { a, b, distance } = golden.frechet;
    expect(Math.abs(frechetDistance(a, b) / distance - 1)).toBeLessThan(1e-9);
  });
});

describe('similarity', () => {
  it('of a picture and itself is perfect, and does not depend on the order', () => {
    fc.assert(
      fc.property(planes, planes, (a, b) => {
        expect(rmse(a, a)).toBe(0);
        expect(psnr(a, a)).toBe(Number.POSITIVE_INFINITY);
        expect(ssim(a, a)).toBeCloseTo(1, 12);
        if (a.width !== b.width || a.height !== b.height) {
          for (const metric of [rmse, psnr, ssim])
            expect(() => metric(a, b)).toThrow('two pictures of one size');
          return;
        }
        expect(rmse(a, b)).toBeCloseTo(rmse(b, a), 12);
        expect(ssim(a, b)).toBeCloseTo(ssim(b, a), 12);
      }),
    );
  });

  it('is that of numbers, not of bytes that wrap around', () => {
    const size = { width: 7, height: 7 };
    const flat = (byte: number): Plane => plane(size, new Array(49).fill(byte));
    expect(rmse(flat(10), flat(200))).toBeCloseTo(190 / 255, 12);
  });

  it('needs pictures of at least one window', () => {
    const small = plane({ width: 6, height: 9 }, new Array(54).fill(0));
    expect(() => ssim(small, small)).toThrow('at least 7 pixels a side; got 6 x 9');
  });

  it('is of luma: white is one', () => {
    expect(luma(blankPicture(3, rgbOf.white)).data.every((value) => Math.abs(value - 1) < 0.05)).toBe(true);
  });
});

describe('edges', () => {
  const step = (at: number): Plane => ({
    width: 16,
    height: 12,
    data: Float64Array.from({ length: 16 * 12 }, (_, i) => Number(i % 16 >= at)),
  });

  it('of a flat picture are none, of a step one line', () => {
    expect(canny(step(99)).some((edge) => edge === 1)).toBe(false);
    const rows = canny(step(8));
    for (let y = 2; y < 10; y += 1) {
      const row = Array.from(rows.subarray(16 * y, 16 * y + 16));
      expect(row.flatMap((edge, x) => (edge ? [x] : [])).every((x) => x === 7 || x === 8)).toBe(true);
      expect(row.includes(1)).toBe(true);
    }
    expect(() => canny(step(8), { sigma: 0 })).toThrow('expected a sigma above 0');
  });

  it('agree with themselves and with themselves one pixel off, not with others', () => {
    const edges = canny(step(8));
    const none = new Uint8Array(edges.length);
    expect(edgeF1(edges, edges, 16)).toBe(1);
    expect(edgeF1(canny(step(9)), edges, 16)).toBe(1);
    expect(edgeF1(canny(step(12)), edges, 16)).toBe(0);
    expect(edgeF1(none, none, 16)).toBe(1);
    expect(edgeF1(none, edges, 16)).toBe(0);
  });

  it('do not touch across the picture’s border', () => {
    const [left, right] = [new Uint8Array(16), new Uint8Array(16)];
    left[4] = 1; // first of row 1
    right[3] = 1; // last of row 0
    expect(edgeF1(left, right, 4)).toBe(0);
  });
});

describe('the distance of feature sets', () => {
  it('is zero for equal sets, grows with the mean, and refuses what it cannot measure', () => {
    const set = Array.from({ length: 12 }, (_, i) => [Math.sin(i), Math.cos(3 * i), Math.sin(5 * i + 1)]);
    const moved = set.map(([x, ...rest]) => [x! + 2, ...rest]);
    expect(Math.abs(frechetDistance(set, set))).toBeLessThan(1e-12);
    expect(frechetDistance(set, moved)).toBeCloseTo(4, 10);
    expect(() => frechetDistance([[1]], set)).toThrow('two vectors or more');
    expect(() => frechetDistance([[1], [2]], set)).toThrow('vectors of one length');
  });
});

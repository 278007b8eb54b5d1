import { draws } from '@deftjs/trainer';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { augmented, mirrored, shuffledCaption } from '../../packages/trainer/src/train/augment.ts';

const caption = fc.array(
  fc.stringMatching(/^[a-z ]{1,6}$/).map((part) => part.trim()),
  { minLength: 1, maxLength: 8 },
);

describe('an augmentation', () => {
  it('mirrors each row, and twice is nothing', () => {
    expect([...mirrored(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9), 3)]).toEqual([3, 2, 1, 6, 5, 4, 9, 8, 7]);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.nat(), (size, seed) => {
        const draw = draws(seed, 0);
        const planes = Float32Array.from({ length: 3 * size * size }, () => draw.uniform());
        expect(mirrored(mirrored(planes, size), size)).toEqual(planes);
      }),
    );
  });

  it('keeps the parts of a caption, the first where they were', () => {
    fc.assert(
      fc.property(caption, fc.nat(8), fc.nat(), (parts, keep, seed) => {
        const shuffled = shuffledCaption(parts.join(','), keep, draws(seed, 1)).split(', ');
        expect(shuffled.slice(0, keep)).toEqual(parts.slice(0, keep));
        expect([...shuffled].sort()).toEqual([...parts].sort());
      }),
    );
    const orders = new Set(
      Array.from({ length: 60 }, (_, i) => shuffledCaption('a, b, c, d', 1, draws(i, 0))),
    );
    expect(orders.size).toBe(6);
  });

  it('is the same for the same draws, and as often as asked', () => {
    const item = { pixels: Float32Array.of(1, 2, 3, 4), caption: 'a, b, c' };
    const options = { flip: 0.25, randomCrop: false, shuffleCaptions: true, keepParts: 0 };
    const at = (i: number) => augmented(item, 2, options, draws(9, i));
    expect(at(3)).toEqual(at(3));
    const flipped = Array.from({ length: 2000 }, (_, i) => at(i)).filter(
      ({ pixels }) => pixels[0] === 2,
    ).length;
    expect(Math.abs(flipped / 2000 - 0.25)).toBeLessThan(0.04);
  });

  it('cuts a wide or high picture at every place that its shorter side allows', () => {
    for (const [width, height] of [
      [5, 2],
      [2, 5],
    ] as const) {
      const pixels = Float32Array.from({ length: 30 }, (_, i) => i);
      const item = { pixels: new Float32Array(12), caption: 'a', whole: { pixels, width, height } };
      const options = { flip: 0, randomCrop: true, shuffleCaptions: false, keepParts: 0 };
      const cuts = Array.from({ length: 200 }, (_, i) => augmented(item, 2, options, draws(4, i)).pixels);
      const places = new Map(cuts.map((cut) => [cut[0]!, cut]));
      const step = width > height ? 1 : width;
      expect([...places.keys()].sort((a, b) => a - b)).toEqual([0, 1, 2, 3].map((i) => i * step));
      for (const [first, cut] of places) {
        const corner = [first, first + 1, first + width, first + width + 1];
        expect([...cut]).toEqual([0, 10, 20].flatMap((plane) => corner.map((at) => plane + at)));
      }
      const plain = augmented(item, 2, { ...options, randomCrop: false }, draws(4, 1));
      expect(plain.pixels).toBe(item.pixels);
    }
  });
});

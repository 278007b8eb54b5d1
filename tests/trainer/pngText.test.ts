import { pngText, withPngText } from '@deftjs/trainer';
import fc from 'fast-check';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';

const png = await sharp(Buffer.from(Array.from({ length: 27 }, (_, i) => 9 * i)), {
  raw: { width: 3, height: 3, channels: 3 },
})
  .png()
  .toBuffer();

describe('text in a PNG file', () => {
  it('comes back whatever its letters, and leaves the pixels as they were', async () => {
    const pixels = await sharp(png).raw().toBuffer();
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', maxLength: 200 }), async (text) => {
        const file = withPngText(withPngText(png, 'other', 'something else'), 'deft', text);
        expect(pngText(file, 'deft')).toBe(text);
        // sharp checks the order of chunks and their CRC.
        expect(await sharp(file, { failOn: 'warning' }).raw().toBuffer()).toEqual(pixels);
      }),
      { numRuns: 30 },
    );
  });

  it('is null where there is none', () => {
    expect(pngText(png, 'deft')).toBeNull();
    expect(pngText(withPngText(png, 'deft2', 'x'), 'deft')).toBeNull();
  });

  it('is refused in a file that is cut short, has another byte or is no PNG', () => {
    const file = Buffer.from(withPngText(png, 'deft', 'a red circle'));
    fc.assert(
      fc.property(fc.nat({ max: file.length - 1 }), (at) => {
        expect(() => pngText(file.subarray(0, at), 'missing')).toThrow(/not a PNG|cut short/);
        const wrong = Buffer.from(file);
        wrong[at]! ^= 1;
        expect(() => pngText(wrong, 'missing')).toThrow(/not a PNG|cut short|damaged/);
      }),
    );
  });
});

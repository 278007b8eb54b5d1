import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  caption,
  draws,
  fromBytes,
  fromPlanes,
  maxTokens,
  measure,
  renderScene,
  rgbOf,
  sampleScene,
  subjectWords,
  toBytes,
  tokenize,
  tokenOf,
  toPlanes,
  vocabulary,
} from '../../packages/trainer/src/world/index.ts';

const seeds = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const indices = fc.nat({ max: 1_000_000 });

describe('draws', () => {
  it('is a pure function of (seed, index)', () => {
    fc.assert(
      fc.property(seeds, indices, (seed, index) => {
        const [a, b] = [draws(seed, index), draws(seed, index)];
        for (let i = 0; i < 5; i += 1) expect(a.uniform()).toBe(b.uniform());
      }),
    );
  });

  it('is uniform within an item and over items', () => {
    // Mean of n uniforms: 1/2 +- 5 / sqrt(12 n).
    const n = 20_000;
    const tolerance = 5 / Math.sqrt(12 * n);
    const one = draws(1, 2);
    let within = 0;
    let over = 0;
    for (let i = 0; i < n; i += 1) {
      within += one.uniform() / n;
      over += draws(1, i).uniform() / n;
    }
    expect(Math.abs(within - 0.5)).toBeLessThan(tolerance);
    expect(Math.abs(over - 0.5)).toBeLessThan(tolerance);
  });

  it('refuses to pick from nothing', () => {
    expect(() => draws(0, 0).pick([])).toThrow('pick: the list of options is empty');
  });
});

describe('pretraining scenes', () => {
  it('are the same picture and caption whenever they are drawn', () => {
    fc.assert(
      fc.property(seeds, indices, (seed, index) => {
        const [a, b] = [sampleScene(seed, index), sampleScene(seed, index)];
        expect(a).toEqual(b);
        expect(toBytes(renderScene(a))).toEqual(toBytes(renderScene(b)));
        expect(caption(a, seed, index)).toBe(caption(b, seed, index));
      }),
      { numRuns: 30 },
    );
  });

  it('show every colour and place equally often, and no shape much less than another', () => {
    const tally = new Map<string, number>();
    const n = 5000;
    for (let i = 0; i < n; i += 1) {
      const { background, shape, position, count } = sampleScene(2, i);
      for (const word of [`on ${background}`, shape]) tally.set(word, (tally.get(word) ?? 0) + 1);
      if (count === 1) tally.set(position, (tally.get(position) ?? 0) + 1);
    }
    for (const [word, times] of tally) {
      const share = ['left', 'right', 'top', 'bottom', 'middle'].includes(word) ? 0.85 / 5 : 1 / 10;
      expect(times / n / share, word).toBeGreaterThan(0.7); // rings and moons wear nothing
      expect(times / n / share, word).toBeLessThan(1.2);
    }
  });

  it('never put a thing on a background of its own colour', () => {
    for (let i = 0; i < 3000; i += 1) {
      const { colour, background, hat, badge } = sampleScene(3, i);
      expect([colour, hat, badge?.colour]).not.toContain(background);
    }
  });
});

describe('pictures', () => {
  it('look the same at any resolution', () => {
    for (let i = 0; i < 20; i += 1) {
      const scene = sampleScene(4, i);
      const { shape: _small, textured: _blurred, ...at32 } = measure(renderScene(scene, 32));
      const { shape: _large, textured: _sharp, ...at64 } = measure(renderScene(scene, 64));
      expect(at64).toEqual(at32);
    }
  });

  it('are the background colour at the corners', () => {
    const scene = {
      ...sampleScene(5, 0),
      position: 'middle' as const,
      poses: [{ x: 0, y: 0, radius: 0.6, rotation: 0 }],
    };
    const { data } = renderScene(scene);
    expect([...data.slice(0, 3)]).toEqual([...Float32Array.from(rgbOf[scene.background])]);
  });

  it('survive the trip to planes and to bytes', () => {
    const picture = renderScene(sampleScene(6, 3));
    const back = fromPlanes(toPlanes(picture), 32, 32);
    const bytes = toBytes(picture);
    picture.data.forEach((value, i) => {
      expect(back.data[i]).toBeCloseTo(value, 6);
    });
    expect(toBytes(fromBytes(bytes, 32, 32))).toEqual(bytes);
  });

  it('refuse data of the wrong length', () => {
    expect(() => fromPlanes(new Float32Array(5), 2, 2)).toThrow(
      'fromPlanes: expected 12 numbers for 3 x 2 x 2; got 5',
    );
    expect(() => fromBytes(new Uint8Array(5), 2, 2)).toThrow(
      'fromBytes: expected 12 bytes for 2 x 2 x 3; got 5',
    );
  });
});

describe('captions', () => {
  it('stay within the vocabulary, the length and the words allowed in pretraining', () => {
    const reserved = new Set(subjectWords.map(tokenOf));
    for (let i = 0; i < 5000; i += 1) {
      const ids = tokenize(caption(sampleScene(7, i), 7, i));
      expect(ids.length).toBe(maxTokens);
      expect(ids).not.toContain(tokenOf('<unk>'));
      expect(ids.some((id) => reserved.has(id))).toBe(false);
    }
  });

  it('turn into start, words, end, padding', () => {
    const ids = tokenize('An orange Star, on it');
    const words = [...ids].map((id) => vocabulary[id]);
    expect(words.slice(0, 7)).toEqual(['<start>', 'an', 'orange', 'star', 'on', 'it', '<end>']);
    expect(new Set(words.slice(7))).toEqual(new Set(['<pad>']));
    expect(tokenize('a sks gizmo')[3]).toBe(tokenOf('<unk>'));
  });

  it('that are too long are refused', () => {
    expect(() => tokenize('a '.repeat(19))).toThrow('tokenize: a caption has at most 18 words; got 19');
  });

  it('name each word of the vocabulary once', () => {
    expect(new Set(vocabulary).size).toBe(vocabulary.length);
  });
});

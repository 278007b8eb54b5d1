import { describe, expect, it } from 'vitest';
import {
  agreement,
  blankPicture,
  caption,
  measure,
  promptFollowing,
  readCaption,
  renderScene,
  rgbOf,
  sampleScene,
} from '../../packages/trainer/src/world/index.ts';

describe('measured attributes', () => {
  it('agree with the truth on at least 97 % of rendered scenes', () => {
    const right: Record<string, number> = {};
    const asked: Record<string, number> = {};
    for (let i = 0; i < 400; i += 1) {
      const scene = sampleScene(8, i);
      const { background, colour, shape, size, position, count, texture, hat } = scene;
      const dressed = scene.eyes || hat !== null || scene.badge !== null;
      const named = {
        ...{ background, colour, shape, size, count },
        ...(count === 1 && { position }),
        ...(!dressed && { texture }),
        ...(hat !== null && { hat }),
      };
      for (const [attribute, found] of Object.entries(agreement(measure(renderScene(scene)), named))) {
        asked[attribute] = (asked[attribute] ?? 0) + 1;
        right[attribute] = (right[attribute] ?? 0) + Number(found);
      }
    }
    expect(Object.keys(asked).length).toBe(8);
    for (const attribute of Object.keys(asked)) {
      const floor = attribute === 'hat' ? 0.9 : 0.97; // wide eyes under a small hat can outweigh it
      expect(right[attribute]! / asked[attribute]!, attribute).toBeGreaterThanOrEqual(floor);
    }
  });

  it('find nothing on an empty picture', () => {
    const { background, count, shape, position } = measure(blankPicture(32, rgbOf.green));
    expect({ background, count, shape, position }).toEqual({
      background: 'green',
      count: 0,
      shape: null,
      position: null,
    });
  });
});

describe('prompt following', () => {
  it('is near 1 for a scene and its own caption, and lower for the caption of another', () => {
    let own = 0;
    let other = 0;
    for (let i = 0; i < 100; i += 1) {
      const picture = renderScene(sampleScene(9, i));
      own += promptFollowing(picture, readCaption(caption(sampleScene(9, i), 9, i))) / 100;
      other += promptFollowing(picture, readCaption(caption(sampleScene(9, i + 1), 9, i + 1))) / 100;
    }
    expect(own).toBeGreaterThan(0.98);
    expect(other).toBeLessThan(0.5);
  });

  it('is 1 where the prompt names nothing', () => {
    expect(promptFollowing(blankPicture(32, rgbOf.red), readCaption(''))).toBe(1);
  });
});

describe('reading a caption', () => {
  it('tells the colours of thing, badge, hat and background apart', () => {
    expect(readCaption('a big red star with a blue circle on it on the left of a yellow background')).toEqual(
      {
        count: 1,
        size: 'big',
        colour: 'red',
        shape: 'star',
        position: 'left',
        background: 'yellow',
      },
    );
    expect(readCaption('an orange toy with eyes and a pink hat on a cyan background')).toEqual({
      count: 1,
      colour: 'orange',
      hat: 'pink',
      background: 'cyan',
    });
    expect(readCaption('two small striped crosses')).toEqual({
      count: 2,
      size: 'small',
      texture: 'striped',
      shape: 'cross',
    });
  });
});

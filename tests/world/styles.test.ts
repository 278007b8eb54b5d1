import { describe, expect, it } from 'vitest';
import {
  blankPicture,
  promptFollowing,
  readCaption,
  renderScene,
  rgbOf,
  styledScenes,
  styleSimilarity,
  styles,
  styleWorlds,
  stylize,
  tokenize,
} from '../../packages/trainer/src/world/index.ts';

const scenes = styledScenes(64, 3);
const mean = (of: (at: (typeof scenes)[number]) => number): number =>
  scenes.reduce((sum, scene) => sum + of(scene) / scenes.length, 0);

describe.each(styles)('the style %s', (style) => {
  const [other] = styles.filter((own) => own !== style);

  it('is in pictures painted in it, and hardly in plain ones or those of another', () => {
    for (const { scene } of scenes) {
      expect(styleSimilarity(stylize(renderScene(scene), style), style)).toBeGreaterThan(0.99);
    }
    expect(mean(({ scene }) => styleSimilarity(renderScene(scene), style))).toBeLessThan(0.2);
    expect(mean(({ scene }) => styleSimilarity(stylize(renderScene(scene), other!), style))).toBeLessThan(
      0.2,
    );
  });

  it('leaves most of what a caption names to be read again', () => {
    const following = mean(({ scene, caption }) =>
      promptFollowing(stylize(renderScene(scene), style), readCaption(caption)),
    );
    // Outlines cost small things their shape and make others big: docs/metrics.md has the figures.
    expect(following).toBeGreaterThan({ mosaic: 0.9, outlined: 0.74 }[style]);
  });

  it('can be told of a picture that shows nothing', () => {
    expect(styleSimilarity(blankPicture(32, rgbOf.red), style)).toBe(style === 'mosaic' ? 1 : 0);
  });
});

describe('scenes of a style', () => {
  it('name it by the word, and none of the prompts is of a training picture', () => {
    const training = styledScenes(10, styleWorlds.training).map(({ caption }) => caption);
    const prompts = styledScenes(8, styleWorlds.heldOut).map(({ caption }) => caption);
    for (const caption of [...training, ...prompts]) {
      expect(caption).toMatch(/ in sks$/);
      expect(() => tokenize(caption)).not.toThrow();
    }
    expect(prompts.filter((prompt) => training.includes(prompt))).toEqual([]);
  });
});

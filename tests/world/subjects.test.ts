import { describe, expect, it } from 'vitest';
import {
  agreement,
  blankPicture,
  heldOutPrompts,
  measure,
  readCaption,
  renderScene,
  renderSubject,
  rgbOf,
  sampleScene,
  subjectSimilarity,
  subjects,
  tokenize,
  tokenOf,
  trainingScenes,
} from '../../packages/trainer/src/world/index.ts';

describe.each(subjects)('the %s', (subject) => {
  const scenes = trainingScenes(subject);

  it('has five training pictures that show what their captions say', () => {
    expect(scenes.length).toBe(5);
    for (const { scene, caption } of scenes) {
      const shown = agreement(measure(renderSubject(scene)), readCaption(caption));
      expect(shown, caption).toEqual({ background: true, size: true, position: true, count: true });
    }
  });

  it('is found in its own pictures at any place and size, and not in those of the base world', () => {
    for (const seed of [7]) {
      for (const { scene } of trainingScenes(subject, 'sks', seed)) {
        expect(subjectSimilarity(renderSubject(scene), subject)).toBeGreaterThan(0.9);
      }
    }
    for (let i = 0; i < 12; i += 1) {
      expect(subjectSimilarity(renderScene(sampleScene(10, i)), subject)).toBeLessThan(0.6);
    }
    expect(subjectSimilarity(blankPicture(32, rgbOf.blue), subject)).toBe(0);
  });

  it('is not taken for another subject', () => {
    for (const other of subjects.filter((name) => name !== subject)) {
      for (const { scene } of trainingScenes(other)) {
        expect(subjectSimilarity(renderSubject(scene), subject)).toBeLessThan(0.6);
      }
    }
  });

  it('has held-out prompts in words that the tokenizer knows, none seen in training', () => {
    const prompts = heldOutPrompts(subject);
    const seen = scenes.map(({ scene }) => `${scene.background} ${scene.position}`);
    expect(prompts.length).toBe(8);
    for (const { prompt, background, position } of prompts) {
      expect(tokenize(prompt)).not.toContain(tokenOf('<unk>'));
      expect(seen).not.toContain(`${background} ${position}`);
      expect(readCaption(prompt)).toMatchObject({ background, position });
    }
  });
});

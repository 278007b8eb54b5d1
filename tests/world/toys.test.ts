import { describe, expect, it } from 'vitest';
import {
  agreement,
  drawingOf,
  heldOutPrompts,
  isSubject,
  measure,
  readCaption,
  renderSubject,
  subjectSimilarity,
  subjectWords,
  tokenize,
  toyCount,
  toyDrawing,
  toyName,
  toys,
  trainingScenes,
} from '../../packages/trainer/src/world/index.ts';

describe('toys', () => {
  it('have names of three reserved words each, no two the same', () => {
    const names = toys.map(toyName);
    expect(new Set(names).size).toBe(toyCount);
    for (const name of names) {
      const words = name.split(' ');
      expect(words).toHaveLength(3);
      expect(words.every((word) => subjectWords.some((own) => own === word))).toBe(true);
    }
  });

  it('are pictured as their captions say, on five backgrounds of which none is a colour of theirs', () => {
    for (const toy of toys) {
      expect(new Set(drawingOf(toy).grounds).size).toBe(5);
      for (const { scene, caption } of trainingScenes(toy, toyName(toy))) {
        const shown = agreement(measure(renderSubject(scene)), readCaption(caption));
        expect(shown, `${toy}: ${caption}`).toEqual({
          background: true,
          size: true,
          position: true,
          count: true,
        });
      }
    }
  });

  it('resemble themselves more than any other', { timeout: 120_000 }, () => {
    for (const toy of toys) {
      const picture = renderSubject(trainingScenes(toy)[0]!.scene);
      const own = subjectSimilarity(picture, toy);
      expect(own).toBeGreaterThan(0.97);
      for (const other of toys)
        if (other !== toy) expect(subjectSimilarity(picture, other)).toBeLessThan(0.9);
    }
  });

  it('have held-out prompts that are short enough, hats and all', () => {
    for (const toy of toys) {
      for (const { prompt } of heldOutPrompts(toy, toyName(toy), 12))
        expect(() => tokenize(prompt)).not.toThrow();
    }
  });

  it('end where they end', () => {
    expect(['toy-1', 'toy-32', 'toy-33', 'toy-0', 'robot', 'cat'].map(isSubject)).toEqual([
      true,
      true,
      false,
      false,
      true,
      false,
    ]);
    expect(() => toyDrawing('toy-33')).toThrow('toyDrawing: expected toy-1 to toy-32; got toy-33');
  });
});

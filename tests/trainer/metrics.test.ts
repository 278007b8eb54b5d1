import {
  blankPicture,
  castOfNames,
  castOfOne,
  draws,
  estimate,
  evaluateSamples,
  formatEstimate,
  heldOutPrompts,
  type PromptSamples,
  positions,
  readCaption,
  renderSubject,
  rgbOf,
  type SubjectPrompt,
  samplePose,
} from '@deftjs/trainer';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

const numbers = fc.array(fc.double({ min: -100, max: 100, noNaN: true }), { minLength: 2, maxLength: 20 });

describe('an estimate', () => {
  it('shifts and scales with its values', () => {
    fc.assert(
      fc.property(numbers, fc.double({ min: -10, max: 10, noNaN: true }), (values, shift) => {
        const plain = estimate(values);
        const moved = estimate(values.map((value) => 2 * value + shift));
        expect(moved.mean).toBeCloseTo(2 * plain.mean + shift, 9);
        expect(moved.standardError).toBeCloseTo(2 * plain.standardError!, 9);
      }),
    );
  });

  it('of ten draws has the textbook standard error', () => {
    // 1..10: s^2 = 55/6, so s / sqrt(10) = sqrt(55/60).
    const { mean, standardError, number } = estimate([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect([mean, number]).toEqual([5.5, 10]);
    expect(standardError).toBeCloseTo(Math.sqrt(55 / 60), 12);
  });

  it('of one value has none, and of no value is refused', () => {
    expect(formatEstimate(estimate([0.5]))).toBe('0.50');
    expect(formatEstimate(estimate([0.4, 0.6]))).toBe('0.50 ± 0.10');
    expect(() => estimate([])).toThrow('estimate: expected at least one value; got none');
  });
});

/** What a perfect model would draw for a prompt. */
function perfect({ prompt, size, position, background, hat }: SubjectPrompt, seed: number): PromptSamples {
  const poses = [samplePose(draws(seed, 0), size, position)];
  return { prompt, pictures: [renderSubject({ subject: 'robot', size, position, background, hat, poses })] };
}

describe('samples', () => {
  const prompts = heldOutPrompts('robot');
  const good = prompts.map((prompt, i) => perfect(prompt, i));
  const blank = prompts.map(({ prompt }) => ({ prompt, pictures: [blankPicture(32, rgbOf.red)] }));

  it('that show the subject as asked score high on both, and blank pictures low', () => {
    const { subjectSimilarity, promptFollowing } = evaluateSamples(blank, good, castOfOne('robot'));
    expect(subjectSimilarity!.base.mean).toBe(0);
    expect(subjectSimilarity!.adapted.mean).toBeGreaterThan(0.85); // a hat is no part of the subject and costs
    expect(promptFollowing.base.mean).toBeLessThan(0.2);
    expect(promptFollowing.adapted.mean).toBeGreaterThan(0.9);
    expect(subjectSimilarity!.difference.mean).toBeCloseTo(subjectSimilarity!.adapted.mean, 12);
  });

  it('of several subjects are held against the one that is named, and told apart from the others', () => {
    const asked = prompts.map((prompt, i) => {
      const { pictures, ...rest } = perfect(prompt, i);
      const name = i % 2 === 0 ? 'sks' : 'zwx ohv';
      return { ...rest, prompt: prompt.prompt.replace('sks', name), pictures };
    });
    const cast = castOfNames({ sks: 'robot', 'zwx ohv': 'fish' });
    const { subjectSimilarity, toldApart, prompts: scores } = evaluateSamples(asked, asked, cast);
    expect(scores.base.map(({ toldApart: own }) => own)).toEqual(prompts.map((_, i) => Number(i % 2 === 0)));
    expect(toldApart!.base.mean).toBe(0.5);
    expect(subjectSimilarity!.base.mean).toBeLessThan(0.7); // half of them show a robot for a fish
    expect(evaluateSamples(asked, asked, castOfNames({ qip: 'fish' })).subjectSimilarity).toBeNull();
  });

  it('that follow the prompt but with another place lose just that', () => {
    const moved = prompts.map((prompt, i) => {
      const position = positions[(positions.indexOf(prompt.position) + 1) % positions.length]!;
      return { ...perfect({ ...prompt, position }, i), prompt: prompt.prompt };
    });
    const { prompts: scores } = evaluateSamples(good, moved, null);
    scores.base.forEach((base, i) => {
      const named = Object.keys(readCaption(base.prompt)).length;
      expect(base.promptFollowing - scores.adapted[i]!.promptFollowing).toBeCloseTo(1 / named, 9);
      expect(base.subjectSimilarity).toBeNull();
    });
  });

  it('are compared prompt by prompt, so that what both sides share cancels', () => {
    const { promptFollowing } = evaluateSamples(good, good, null);
    expect(promptFollowing.difference).toEqual({ mean: 0, standardError: 0, number: prompts.length });
  });

  it('of different prompts are not compared', () => {
    const message = 'evaluate: base and adapted samples must be of the same prompts in the same order';
    expect(() => evaluateSamples(good, good.slice(1), null)).toThrow(message);
    expect(() => evaluateSamples(good.slice(1), good, null)).toThrow(message);
  });
});

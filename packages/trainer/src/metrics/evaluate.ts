/**
 * How well samples show a subject and follow their prompts, measured from pixels.
 *
 * The pictures of one prompt resemble each other, so they count as one value: their mean. Standard errors are over
 * prompts. Base and adapted model draw the same prompts with the same seeds, so what is compared is the difference
 * prompt by prompt, which is far more certain than the two means apart.
 */
import { promptFollowing } from '../world/measure.ts';
import { readCaption } from '../world/reading.ts';
import type { Picture } from '../world/render.ts';
import { subjectSimilarity } from '../world/similarity.ts';
import { type Style, styleSimilarity } from '../world/styles.ts';
import type { Subject } from '../world/subjects.ts';
import type { Cast } from './cast.ts';
import { type Condition, conditionOf, conditions } from './condition.ts';
import { type Estimate, estimate } from './estimate.ts';
import { luma, rmse } from './image.ts';

/** The pictures that a model drew for one prompt, one for each seed. */
export interface PromptSamples {
  readonly prompt: string;
  /** The picture that the prompt names; absent where it names none. */
  readonly input?: Picture;
  readonly pictures: readonly Picture[];
}

/** One quantity of two models. */
export interface Comparison {
  readonly base: Estimate;
  readonly adapted: Estimate;
  /** adapted - base, prompt by prompt. */
  readonly difference: Estimate;
}

/** The scores of one prompt, each the mean over its pictures. */
export interface PromptScores {
  readonly prompt: string;
  /** Of the subject that the prompt names; null where it names none of the cast. */
  readonly subjectSimilarity: number | null;
  /** The share of pictures that resemble the named subject most, of a cast of several; null otherwise. */
  readonly toldApart: number | null;
  /** How much of the style there is, in [0, 1]; null where none is measured. */
  readonly styleSimilarity: number | null;
  readonly promptFollowing: number;
  /** How well the pictures keep to the one that the prompt names; null where it names none that is scored. */
  readonly condition: number | null;
}

/** What became of pictures that should have stayed as they were. */
export interface Drift {
  /** Root mean squared difference, in luma, of the two models' pictures of one prompt and seed: in [0, 1]. */
  readonly change: Estimate;
  readonly promptFollowing: Comparison;
}

/** What was measured on two sets of samples. */
export interface Evaluation {
  /** In [0, 1]; null when the subject is not one of the world's. */
  readonly subjectSimilarity: Comparison | null;
  /** In [0, 1]; null unless there are several subjects. */
  readonly toldApart: Comparison | null;
  /** In [0, 1]; null when the style is not one of the world's. */
  readonly styleSimilarity: Comparison | null;
  /** The fraction of named attributes that are shown, in [0, 1]. */
  readonly promptFollowing: Comparison;
  /** Of prompts of one task that name a picture; null for others. */
  readonly condition: { readonly task: Condition; readonly score: Comparison } | null;
  /** Of prompts that are not about what was learnt; null where none were drawn. */
  readonly drift: Drift | null;
  readonly prompts: {
    readonly base: readonly PromptScores[];
    readonly adapted: readonly PromptScores[];
  };
}

/** The scores of each prompt's pictures, which must be square. */
export function scorePrompts(
  samples: readonly PromptSamples[],
  cast: Cast | null,
  style: Style | null = null,
): PromptScores[] {
  return samples.map(({ prompt, input, pictures }) => {
    const named = readCaption(prompt.slice(prompt.lastIndexOf('>') + 1)); // its words after a picture
    const task = input ? conditionOf(prompt) : null;
    return {
      prompt,
      ...scoreSubject(pictures, cast?.of(prompt) ?? null, cast?.subjects ?? []),
      styleSimilarity: style && mean(pictures.map((picture) => styleSimilarity(picture, style))),
      promptFollowing: mean(pictures.map((picture) => promptFollowing(picture, named))),
      condition: task && mean(pictures.map((picture) => conditions[task].score(picture, input!))),
    };
  });
}

/** How much the pictures show one of the subjects, and whether it rather than another. */
function scoreSubject(
  pictures: readonly Picture[],
  subject: Subject | null,
  subjects: readonly Subject[],
): Pick<PromptScores, 'subjectSimilarity' | 'toldApart'> {
  if (subject === null) return { subjectSimilarity: null, toldApart: null };
  const own = pictures.map((picture) => subjectSimilarity(picture, subject));
  const others = subjects.filter((other) => other !== subject);
  const isMost = (picture: Picture, i: number): number =>
    Number(others.every((other) => subjectSimilarity(picture, other) < own[i]!));
  return { subjectSimilarity: mean(own), toldApart: others.length > 0 ? mean(pictures.map(isMost)) : null };
}

/**
 * Both models measured and compared.
 * @throws {RangeError} when the two did not draw the same prompts in the same order
 */
export function evaluateSamples(
  base: readonly PromptSamples[],
  adapted: readonly PromptSamples[],
  cast: Cast | null,
  style: Style | null = null,
): Omit<Evaluation, 'drift'> {
  const odd = base.findIndex(({ prompt }, i) => prompt !== adapted[i]?.prompt);
  if (odd >= 0 || base.length !== adapted.length) {
    throw new RangeError('evaluate: base and adapted samples must be of the same prompts in the same order');
  }
  const prompts = { base: scorePrompts(base, cast, style), adapted: scorePrompts(adapted, cast, style) };
  const compare = (score: (scores: PromptScores) => number, counts?: readonly boolean[]): Comparison => {
    const counted = (list: readonly PromptScores[]) => list.filter((_, i) => counts?.[i] ?? true).map(score);
    const [before, after] = [counted(prompts.base), counted(prompts.adapted)];
    return {
      base: estimate(before),
      adapted: estimate(after),
      difference: estimate(after.map((value, i) => value - before[i]!)),
    };
  };
  /** Of prompts that name a subject; null where none has the score. */
  const ofSubjects = (score: 'subjectSimilarity' | 'toldApart'): Comparison | null => {
    const has = prompts.base.map((scores) => scores[score] !== null);
    return has.some(Boolean) ? compare((scores) => scores[score]!, has) : null;
  };
  const [task = null, another] = new Set(
    base.map(({ prompt, input }) => (input ? conditionOf(prompt) : null)),
  );
  const isScored = task !== null && another === undefined;
  return {
    condition: isScored ? { task, score: compare((scores) => scores.condition!) } : null,
    subjectSimilarity: ofSubjects('subjectSimilarity'),
    toldApart: ofSubjects('toldApart'),
    styleSimilarity: style && compare((scores) => scores.styleSimilarity!),
    promptFollowing: compare((scores) => scores.promptFollowing),
    prompts,
  };
}

/**
 * How far pictures of prompts that are not about what was learnt have moved, prompt by prompt; null without prompts.
 * @throws {RangeError} as {@link evaluateSamples}
 */
export function driftOf(base: readonly PromptSamples[], adapted: readonly PromptSamples[]): Drift | null {
  if (base.length === 0) return null;
  const { promptFollowing } = evaluateSamples(base, adapted, null);
  const change = base.map(({ pictures }, i) =>
    mean(pictures.map((picture, k) => rmse(luma(picture), luma(adapted[i]!.pictures[k]!)))),
  );
  return { change: estimate(change), promptFollowing };
}

function mean(values: readonly number[]): number {
  return estimate(values).mean;
}

import { maxTokens, tokenOf, wordsOf } from '../world/index.ts';

/** Why the world's text encoder cannot take a caption; null when it can. */
export function promptProblem(caption: string): string | null {
  const words = wordsOf(caption);
  if (words.length > maxTokens - 2)
    return `${words.length} words, more than the base reads (${maxTokens - 2})`;
  const unknown = words.find((word) => tokenOf(word) === tokenOf('<unk>'));
  return unknown === undefined ? null : `the base does not know the word "${unknown}"`;
}

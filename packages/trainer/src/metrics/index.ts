/** Measurements on samples, with their uncertainty. */
export { type Estimate, estimate, formatEstimate } from './estimate.ts';
export {
  type Comparison,
  type Evaluation,
  evaluateSamples,
  type PromptSamples,
  type PromptScores,
  scorePrompts,
} from './evaluate.ts';

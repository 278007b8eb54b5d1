/** Measurements on samples, with their uncertainty. */
export { type CannyOptions, canny, edgeF1 } from './canny.ts';
export { type Cast, castOf, castOfNames, castOfOne } from './cast.ts';
export { type Condition, conditionOf, conditions, depthsOf } from './condition.ts';
export { alignment, type Features, likeness, openPictureEncoder, type PictureEncoder } from './encoder.ts';
export { type Estimate, estimate, formatEstimate, median } from './estimate.ts';
export {
  type Comparison,
  type Drift,
  driftOf,
  type Evaluation,
  evaluateSamples,
  type PromptSamples,
  type PromptScores,
  scorePrompts,
} from './evaluate.ts';
export { frechetDistance } from './frechet.ts';
export { luma, type Plane, psnr, rmse, ssim } from './image.ts';

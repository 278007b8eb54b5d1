/** How the pictures of a training run were drawn, as it stands in their own PNG files: the run's config.yaml has the rest. */
import { modelName, type TrainConfig } from '../config/index.ts';
import { pngText, withPngText } from '../report/index.ts';
import { version } from '../version.ts';

const keyword = 'deft-training';

/** What is drawn: by the model as it was after some steps, or by the base (0), or by both side by side. */
export interface SheetRecipe {
  readonly format: 1;
  readonly version: string;
  readonly base: string;
  readonly method: string;
  /** Of the run. */
  readonly seed: number;
  readonly trainedSteps: readonly number[];
  readonly prompts: readonly string[];
  /** Of the pictures. */
  readonly seeds: readonly number[];
  readonly steps: number;
  readonly guidance: number;
}

/** The PNG file with its recipe inside. */
export function withSheetRecipe(
  png: Uint8Array,
  { base, method, seed, sampling }: TrainConfig,
  drawn: Pick<SheetRecipe, 'trainedSteps' | 'prompts' | 'seeds'>,
): Uint8Array {
  const recipe: SheetRecipe = {
    format: 1,
    version,
    base: modelName(base),
    method,
    seed,
    ...drawn,
    steps: sampling.steps,
    guidance: sampling.guidance_scale,
  };
  return withPngText(png, keyword, JSON.stringify(recipe));
}

/** The recipe inside such a file; null where there is none. @throws {Error} when the bytes are no PNG file */
export function sheetRecipeIn(png: Uint8Array): SheetRecipe | null {
  return JSON.parse(pngText(png, keyword) ?? 'null') as SheetRecipe | null;
}

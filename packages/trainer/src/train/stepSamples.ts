/**
 * Samples over the steps of a run: a strip of pictures for each sampled step, and one sheet of all of them.
 *
 * The strips are files of the run, `samples/step-000500.png`, the pictures one below the other pixel for pixel, so a
 * resumed run has the columns of its earlier parts.
 */

import type { TrainConfig } from '../config/index.ts';
import type { PromptSamples } from '../metrics/index.ts';
import { gridPng, readStrip, stripPng } from '../report/index.ts';
import type { Run } from '../runs/index.ts';
import type { Picture } from '../world/index.ts';
import { sheetRecipeIn, withSheetRecipe } from './sheetRecipe.ts';

/** The sheet: a row for each prompt, a column for each step so far, step 0 (the base) first. */
export const stepsSheet = 'samples/steps.png';

function stripFile(step: number): string {
  return `samples/step-${String(step).padStart(6, '0')}.png`;
}

/**
 * Adds the samples of a step, the first picture of each prompt, and draws the sheet anew.
 * @param every the steps between samples, whose multiples are the columns
 */
export async function addStepSamples(
  run: Run,
  config: TrainConfig,
  step: number,
  samples: readonly PromptSamples[],
  every: number,
): Promise<void> {
  const prompts = samples.map(({ prompt }) => prompt);
  const seeds = config.sampling.seeds.slice(0, 1);
  const drawn = await stripPng(samples.map(({ pictures }) => pictures[0]!));
  run.write(stripFile(step), withSheetRecipe(drawn, config, { trainedSteps: [step], prompts, seeds }));
  const steps = [...Array.from({ length: Math.ceil(step / every) }, (_, i) => i * every), step];
  const strips = await Promise.all(
    steps.map(async (at) => ({ at, pictures: await readPictures(run, at, prompts) })),
  );
  const columns = strips.flatMap(({ at, pictures }) => (pictures ? [{ at, pictures }] : []));
  const sheet = await gridPng(
    prompts.flatMap((_, row) => columns.map(({ pictures }) => pictures[row]!)),
    {
      columns: columns.length,
      headings: columns.map(({ at }) => ({ text: at === 0 ? 'base' : `step ${at}`, columns: 1 })),
      rowLabels: prompts,
      magnification: columns.length > 8 ? 2 : 4,
    },
  );
  const trainedSteps = columns.map(({ at }) => at);
  run.write(stepsSheet, withSheetRecipe(sheet, config, { trainedSteps, prompts, seeds }));
}

/** The pictures of a step; null when there are none of these prompts: a resumed run may have others. */
async function readPictures(run: Run, step: number, prompts: readonly string[]): Promise<Picture[] | null> {
  const strip = run.read(stripFile(step));
  const drawn = strip && sheetRecipeIn(strip)?.prompts;
  return drawn && JSON.stringify(drawn) === JSON.stringify(prompts) ? readStrip(strip, prompts.length) : null;
}

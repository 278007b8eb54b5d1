/**
 * Samples over the steps of a run: a strip of pictures for each sampled step, and one sheet of all of them.
 *
 * The strips are files of the run, `samples/step-000500.png`, the pictures one below the other pixel for pixel, so a
 * resumed run has the columns of its earlier parts.
 */
import type { PromptSamples } from '../metrics/index.ts';
import { gridPng, pngText, readStrip, stripPng, withPngText } from '../report/index.ts';
import type { Run } from '../runs/index.ts';
import type { Picture } from '../world/index.ts';

/** The sheet: a row for each prompt, a column for each step so far, step 0 (the base) first. */
export const stepsSheet = 'samples/steps.png';

/** What a strip holds its prompts under: a resumed run may have others, and their pictures are no column of its sheet. */
const keyword = 'prompts';

function stripFile(step: number): string {
  return `samples/step-${String(step).padStart(6, '0')}.png`;
}

/**
 * Adds the samples of a step, the first picture of each prompt, and draws the sheet anew.
 * @param every the steps between samples, whose multiples are the columns
 */
export async function addStepSamples(
  run: Run,
  step: number,
  samples: readonly PromptSamples[],
  every: number,
): Promise<void> {
  const prompts = samples.map(({ prompt }) => prompt);
  const drawn = await stripPng(samples.map(({ pictures }) => pictures[0]!));
  run.write(stripFile(step), withPngText(drawn, keyword, JSON.stringify(prompts)));
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
  run.write(stepsSheet, sheet);
}

/** The pictures of a step; null when there are none of these prompts. */
async function readPictures(run: Run, step: number, prompts: readonly string[]): Promise<Picture[] | null> {
  const strip = run.read(stripFile(step));
  return strip && pngText(strip, keyword) === JSON.stringify(prompts)
    ? readStrip(strip, prompts.length)
    : null;
}

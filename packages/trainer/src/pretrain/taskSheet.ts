/** A sheet of what a model that reads pictures draws for each task, beside what it was given and what was asked for. */
import { type DrawOptions, drawPrompts } from '../base/draw.ts';
import type { TextToImage } from '../base/textToImage.ts';
import { gridPng } from '../report/index.ts';
import { instructionOf, pictureTasks } from '../world/index.ts';
import { pictureExample } from './tasks.ts';

/** A world that no one trains on. */
export const heldOutWorld = 0x7e57;

/** Examples of each task. */
const perTask = 3;

/** Rows of examples: the picture that is given, the one that was asked for, and two drawings. */
export async function taskSheet(
  model: TextToImage,
  title: string,
  options: Pick<DrawOptions, 'steps' | 'guidanceScale' | 'device'>,
): Promise<Uint8Array> {
  const examples = pictureTasks.flatMap((task) =>
    Array.from({ length: perTask }, (_, i) => {
      const example = pictureExample(task, heldOutWorld, i, model.pictureSize);
      return { ...example, instruction: instructionOf(task, example.caption) };
    }),
  );
  const drawn = await drawPrompts(model, {
    prompts: examples.map(({ instruction }) => instruction),
    inputs: examples.map(({ input }) => input),
    seeds: [1, 2],
    ...options,
  });
  const rows = examples.flatMap(({ input, target }, i) => [input, target, ...drawn[i]!.pictures]);
  return gridPng(rows, {
    columns: 4,
    headings: [
      { text: 'given', columns: 1 },
      { text: 'asked for', columns: 1 },
      { text: 'drawn', columns: 2 },
    ],
    rowLabels: examples.map(({ instruction }) => instruction.replace(/<img>.*<.img>/, '[given]')),
    title,
  });
}

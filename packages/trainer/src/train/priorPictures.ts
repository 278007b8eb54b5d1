/** Pictures of what the base knows, for prior preservation: of the world, drawn by the base, or kept in a folder. */
import fs from 'node:fs';
import { join } from 'node:path';
import type { Device } from '@deftjs/tensor';
import { drawPrompts } from '../base/draw.ts';
import type { TextToImage } from '../base/textToImage.ts';
import { WorldModel } from '../base/world.ts';
import type { TrainConfig } from '../config/index.ts';
import { readImageFolder } from '../data/index.ts';
import { picturePng } from '../report/index.ts';
import { makeFolder, writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { caption, renderScene, type Scene, sampleScene, toPlanes } from '../world/index.ts';
import type { Captioned } from './dataset.ts';

/** What a job wants, checked against the base. @throws {UserError} */
export function checkPrior(model: TextToImage, { prior }: TrainConfig): void {
  if (prior === null) return;
  if (prior.prompts === null && !(model instanceof WorldModel)) {
    throw new UserError(
      'prior.prompts: expected a prompt for each class, such as [a photo of a dog]; got null',
      2,
    );
  }
  if (prior.folder !== null && prior.source === 'world') {
    throw new UserError('prior.folder: only with source: base; pictures of the world are drawn at once', 2);
  }
  if (prior.prompts !== null && prior.source === 'world') {
    throw new UserError('prior.prompts: only with source: base; the world has captions of its own', 2);
  }
  for (const prompt of prior.prompts ?? []) {
    const problem = model.captionProblem(prompt);
    if (problem) throw new UserError(`prior.prompts: "${prompt}": ${problem}`, 2);
  }
}

/**
 * The pictures, as many as are asked for; none when prior preservation is not. A folder's own pictures come first; what is missing
 * is drawn by the base, the i-th as (seed, i) says, and left there with its prompt for the next run.
 * @throws {UserError} as `readImageFolder`
 */
export async function priorPictures(
  model: TextToImage,
  { prior, seed, sampling }: TrainConfig,
  device: Device,
): Promise<Captioned[]> {
  if (prior === null) return [];
  const { prompts, folder } = prior;
  const scenes = (): Scene[] =>
    Array.from({ length: prior.pictures }, (_, i) => sampleScene(seed ^ 0x9e1, i));
  const captions = prompts
    ? Array.from({ length: prior.pictures }, (_, i) => prompts[i % prompts.length]!)
    : scenes().map((scene, i) => caption(scene, seed, i));
  if (prior.source === 'world') {
    return scenes().map((scene, i) => ({
      pixels: toPlanes(renderScene(scene, model.pictureSize)),
      caption: captions[i]!,
    }));
  }
  const { steps, guidance_scale: guidanceScale } = sampling;
  const draw = async (i: number) => {
    // Captions of the world differ from picture to picture; prompts of classes come again, so seeds must differ.
    const seeds = [prompts ? (seed + i) % 2 ** 32 : seed];
    const options = { prompts: [captions[i]!], seeds, steps, guidanceScale, device };
    return (await drawPrompts(model, options))[0]!.pictures[0]!;
  };
  const everyone = Array.from({ length: prior.pictures }, (_, i) => i);
  if (folder === null) {
    const drawn: Captioned[] = [];
    for (const i of everyone) drawn.push({ pixels: toPlanes(await draw(i)), caption: captions[i]! });
    return drawn;
  }
  makeFolder(folder);
  const isPicture = (name: string): boolean => /\.(png|jpe?g|webp)$/i.test(name);
  const missing = prior.pictures - fs.readdirSync(folder).filter(isPicture).length;
  const free = everyone
    .filter((i) => !fs.existsSync(join(folder, pictureFile(i))))
    .slice(0, Math.max(0, missing));
  for (const [done, i] of free.entries()) {
    console.error(`deft: drawing class picture ${done + 1} of ${free.length}`);
    const picture = await draw(i);
    // The caption first: a run that is stopped between the two draws the picture again.
    writeFileAtomically(join(folder, pictureFile(i).replace('.png', '.txt')), `${captions[i]}\n`);
    writeFileAtomically(join(folder, pictureFile(i)), await picturePng(picture));
  }
  const { pictures } = await readImageFolder(folder, {
    size: model.pictureSize,
    instancePrompt: prompts?.[0] ?? null,
    captionProblem: (text) => model.captionProblem(text),
  });
  return pictures.slice(0, prior.pictures).map(({ pixels, caption: text }) => ({ pixels, caption: text }));
}

function pictureFile(i: number): string {
  return `class-${String(i).padStart(5, '0')}.png`;
}

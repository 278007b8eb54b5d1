/** A whole Stable Diffusion folder: tokens, latents after the denoising steps, pictures. */
import { openClipTokenizer, openStableDiffusion } from '@deftjs/models/node';
import { type Device, read } from '@deftjs/tensor';
import { type Check, compare, trajectoryBound } from './check.ts';
import type { GoldenFolder } from './goldenFolder.ts';

interface Recipe {
  readonly prompts: readonly string[];
  readonly steps: number;
  readonly guidance_scale: number;
}

/** Checks `input_ids` (exactly), `latents_out` and `images` (absolutely, in [0, 1]). */
export async function checkPipeline(golden: GoldenFolder, device: Device): Promise<Check[]> {
  const { prompts, steps, guidance_scale: guidanceScale } = golden.json('case.json') as unknown as Recipe;
  const recorded = async (name: string) => read(golden.get(name), device);
  const tokenizer = await openClipTokenizer(`${golden.path}/tokenizer`);
  const ids = prompts.flatMap((prompt) => tokenizer.encode(prompt));
  const pipeline = await openStableDiffusion(golden.path);
  const seeds = prompts.map((_, i) => i);
  const start = golden.get('latents');
  using latents = await pipeline.drawLatents({ prompts, seeds, steps, guidanceScale, start, device });
  using images = await pipeline.decode(latents, device);
  const absolute = { absolute: true };
  return [
    compare('input_ids', ids, await recorded('input_ids'), 0),
    compare('latents_out', await read(latents, device), await recorded('latents_out'), trajectoryBound),
    compare('images', await read(images, device), await recorded('images'), 1e-3, absolute),
  ];
}

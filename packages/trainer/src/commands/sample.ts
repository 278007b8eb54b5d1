/** `deft sample`: pictures of prompts, drawn by a base model or by what a run made of it. */
import { Command } from 'commander';
import { UserError } from '../userError.ts';
import { numberOption } from './numbers.ts';

interface SampleOptions {
  readonly prompt?: readonly string[];
  readonly seed?: readonly number[];
  readonly steps?: number;
  readonly guidance?: number;
  readonly image?: readonly string[];
  readonly imageGuidance?: number;
  readonly strength?: number;
  readonly from?: string;
  readonly device?: string;
  readonly out?: string;
  readonly outDir?: string;
}

/** Options that a picture's recipe answers. */
const inRecipe = ['prompt', 'seed', 'steps', 'guidance', 'image', 'imageGuidance', 'strength'] as const;

export function sampleCommand(): Command {
  const seedNumber = numberOption('seed', 0, 2 ** 32 - 1, { whole: true });
  return new Command('sample')
    .description('draw pictures of prompts with a base model or a run of deft train')
    .argument('[model]', 'a run folder, a model folder, or the name of a shipped model')
    .option(
      '--prompt <text>',
      'what to draw (repeatable)',
      (text: string, before: readonly string[] = []) => [...before, text],
    )
    .option(
      '--seed <number>',
      'noise to start from (repeatable); default 1',
      (text: string, before: readonly number[] = []) => [...before, seedNumber(text)],
    )
    .option(
      '--steps <number>',
      'denoising steps; default 25',
      numberOption('steps', 1, 1000, { whole: true }),
    )
    .option('--guidance <number>', 'guidance scale, 1 is none; default 3', numberOption('guidance', 0, 100))
    .option(
      '--image <file>',
      'the picture that the prompt names as <img><|image_1|></img>, for a unified model (one for each prompt)',
      (file: string, before: readonly string[] = []) => [...before, file],
    )
    .option(
      '--image-guidance <number>',
      'how close to keep to that picture; default 1.5',
      numberOption('image-guidance', 0, 100),
    )
    .option(
      '--strength <number>',
      "how much of the run's adapter: 0 none, 1 all; default 1",
      numberOption('strength', -10, 10),
    )
    .option('--from <picture>', 'draw again what a PNG file of deft sample holds the recipe of')
    .option('--device <name>', 'auto, webgpu, wasm or reference; default auto, or that of the recipe')
    .option('--out <file>', 'where the sheet of pictures is written; default samples.png')
    .option('--out-dir <folder>', 'write each picture into a file of its own')
    .action(async (model: string | undefined, options: SampleOptions) => {
      const { sample, sampleAgain } = await import('../base/sample.ts');
      const { out, outDir = null, device, from } = options;
      const places = { out: out ?? (outDir === null ? 'samples.png' : null), outDir };
      if (from !== undefined) {
        const given = inRecipe.find((name) => options[name] !== undefined);
        if (given) throw new UserError(`--${optionName(given)}: not with --from, whose recipe says it`, 2);
        const changes = { ...(model && { model }), ...(device && { device }) };
        return sampleAgain(from, changes, places);
      }
      const { prompt, seed = [1], steps = 25, guidance = 3, strength = 1 } = options;
      const { image = [], imageGuidance = 1.5 } = options;
      if (model === undefined) throw new UserError('sample: give a model, or --from a picture', 2);
      if (prompt === undefined) throw new UserError('--prompt: give at least one, or --from a picture', 2);
      const drawn = { prompts: [...prompt], seeds: [...seed], inputs: image };
      const what = { ...drawn, steps, guidance, imageGuidance, strength };
      await sample({ kind: 'sheet', model, device: device ?? 'auto', ...what }, places);
    });
}

/** "imageGuidance" as it is written: "image-guidance". */
function optionName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

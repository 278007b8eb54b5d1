/** `deft sample`: pictures of prompts, drawn by a base model or by what a run made of it. */
import { Command } from 'commander';
import type { SampleRequest } from '../base/sample.ts';
import { numberOption } from './numbers.ts';

export function sampleCommand(): Command {
  const appendSeed = numberOption('seed', 0, 2 ** 32 - 1, { whole: true });
  return new Command('sample')
    .description('draw pictures of prompts with a base model or a run of deft train')
    .argument('<model>', 'a run folder, a model folder, or the name of a shipped model')
    .requiredOption(
      '--prompt <text>',
      'what to draw (repeatable)',
      (text: string, before: readonly string[] = []) => [...before, text],
    )
    .option(
      '--seed <number>',
      'noise to start from (repeatable); default 1',
      (text: string, before?: number[]) => [...(before ?? []), appendSeed(text)],
    )
    .option('--steps <number>', 'denoising steps', numberOption('steps', 1, 1000, { whole: true }), 25)
    .option('--guidance <number>', 'guidance scale; 1 is none', numberOption('guidance', 0, 100), 3)
    .option(
      '--strength <number>',
      "how much of the run's adapter: 0 none, 1 all",
      numberOption('strength', -10, 10),
      1,
    )
    .option('--device <name>', 'auto, webgpu, wasm or reference', 'auto')
    .option('--out <file>', 'where the sheet of pictures is written', 'samples.png')
    .action(async (model: string, options: SampleRequest) => {
      const { sample } = await import('../base/sample.ts');
      await sample(model, { ...options, seed: options.seed ?? [1] });
    });
}

/** `deft eval`: how well a model follows prompts, measured from its pictures. */
import { Command } from 'commander';
import type { EvaluationRequest } from '../base/evaluate.ts';
import { numberOption } from './numbers.ts';

export function evalCommand(): Command {
  return new Command('eval')
    .description('measure how well a model follows prompts of the picture world')
    .argument('<model>', 'a run folder, a model folder, or the name of a shipped model')
    .option('--prompts <number>', 'how many', numberOption('prompts', 1, 10_000, { whole: true }), 64)
    .option(
      '--seed <number>',
      'of the prompts and the noise',
      numberOption('seed', 0, 2 ** 32 - 1, { whole: true }),
      99,
    )
    .option('--steps <number>', 'denoising steps', numberOption('steps', 1, 1000, { whole: true }), 25)
    .option('--guidance <number>', 'guidance scale; 1 is none', numberOption('guidance', 0, 100), 3)
    .option('--device <name>', 'auto, webgpu, wasm or reference', 'auto')
    .option('--out <file>', 'a sheet of the first 24 pictures')
    .option('--json <file>', 'the numbers')
    .action(async (model: string, request: EvaluationRequest) => {
      const { evaluateModel } = await import('../base/evaluate.ts');
      await evaluateModel(model, request);
    });
}

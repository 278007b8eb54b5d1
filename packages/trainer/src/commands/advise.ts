/** `deft advise`: which method and rank to train a job with. */
import { Command } from 'commander';
import { numberOption } from './numbers.ts';
import { type JobOptions, overridesOf, withConfigOptions } from './options.ts';

interface AdviseOptions extends Pick<JobOptions, 'set' | 'device'> {
  readonly probeSteps: number;
  readonly steps: number;
  readonly rank?: readonly number[];
  readonly share: number;
}

export function adviseCommand(): Command {
  const rankNumber = numberOption('rank', 1, 4096, { whole: true });
  return withConfigOptions(new Command('advise'))
    .description(
      'choose method, projector and rank for a job of deft train, from probe steps and short trials',
    )
    .argument('<config>', 'a YAML file such as examples/personalize.yaml')
    .option(
      '--probe-steps <number>',
      'gradients that the layers are judged by',
      numberOption('probe-steps', 1, 10_000, { whole: true }),
      32,
    )
    .option(
      '--steps <number>',
      'of the longest trial',
      numberOption('steps', 1, 1_000_000, { whole: true }),
      96,
    )
    .option(
      '--rank <number>',
      'a rank to choose from (repeatable); default 2, 4, 8',
      (text: string, before: readonly number[] = []) => [...before, rankNumber(text)],
    )
    .option(
      '--share <number>',
      'of the steps of a full sweep that may be taken',
      numberOption('share', 0.01, 1),
      0.25,
    )
    .action(async (path: string, options: AdviseOptions) => {
      const [{ readTrainConfig }, { printAdvice }] = await Promise.all([
        import('../config/index.ts'),
        import('../train/advise.ts'),
      ]);
      const { probeSteps, steps, rank: ranks = [2, 4, 8], share } = options;
      await printAdvice(readTrainConfig(path, overridesOf(options)), { probeSteps, ranks, steps, share });
    });
}

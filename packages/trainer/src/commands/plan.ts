/** `deft plan`: what a job of `deft train` would do and need. */
import { Command } from 'commander';
import { type JobOptions, overridesOf, withConfigOptions } from './options.ts';

export function planCommand(): Command {
  return withConfigOptions(new Command('plan'))
    .description('say what deft train would do with a configuration: schedule, trained numbers, memory')
    .argument('<config>', 'a YAML file such as examples/personalize.yaml')
    .action(async (path: string, options: Pick<JobOptions, 'set' | 'device'>) => {
      const [{ readTrainConfig }, { plan }] = await Promise.all([
        import('../config/index.ts'),
        import('../train/train.ts'),
      ]);
      await plan(readTrainConfig(path, overridesOf(options)));
    });
}

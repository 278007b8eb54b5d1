/** `deft train`: fine-tune a base model on a folder of captioned pictures. */
import { Command } from 'commander';
import { Exit } from './exit.ts';
import { type JobOptions, overridesOf, runModeOf, withJobOptions } from './options.ts';
import { runSupervised } from './supervised.ts';

export function trainCommand(): Command {
  return withJobOptions(new Command('train'))
    .description('fine-tune a base model on a folder of captioned pictures')
    .argument('<config>', 'a YAML file such as examples/personalize.yaml')
    .action(async (path: string, options: JobOptions) => {
      const [{ readTrainConfig }, { planRun }, { interruptible }, { train }] = await Promise.all([
        import('../config/index.ts'),
        import('./jobRun.ts'),
        import('../progress/index.ts'),
        import('../train/train.ts'),
      ]);
      const config = readTrainConfig(path, overridesOf(options));
      const request = { root: options.runs, name: config.name, mode: runModeOf(options), command: 'train' };
      const open = planRun(request, config);
      if (options.supervise) return await runSupervised(config.name, options);
      using interruption = interruptible();
      await train(config, open, interruption.signal);
      if (interruption.exitStatus !== null) throw new Exit(interruption.exitStatus);
    });
}

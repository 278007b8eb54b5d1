/** `deft pretrain`: a base model from scratch, on the picture world. */
import { Command } from 'commander';
import { Exit } from './exit.ts';
import { type JobOptions, overridesOf, runModeOf, withJobOptions } from './options.ts';
import { runSupervised } from './supervised.ts';

export function pretrainCommand(): Command {
  return withJobOptions(new Command('pretrain'))
    .description('train a base model from scratch on the picture world')
    .argument('<config>', 'a YAML file such as examples/world-base.yaml')
    .action(async (path: string, options: JobOptions) => {
      const [{ readPretrainConfig }, { planRun }, { interruptible }, { pretrain }] = await Promise.all([
        import('../config/index.ts'),
        import('./jobRun.ts'),
        import('../progress/index.ts'),
        import('../pretrain/pretrain.ts'),
      ]);
      const config = readPretrainConfig(path, overridesOf(options));
      const request = {
        root: options.runs,
        name: config.name,
        mode: runModeOf(options),
        command: 'pretrain',
      };
      const open = planRun(request, config);
      if (options.supervise) return await runSupervised(config.name, options);
      using run = open();
      using interruption = interruptible();
      await pretrain(config, run, interruption.signal);
      if (interruption.exitStatus !== null) throw new Exit(interruption.exitStatus);
    });
}

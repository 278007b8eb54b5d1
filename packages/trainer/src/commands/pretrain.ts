/** `deft pretrain`: a base model or a dual encoder from scratch, on the picture world. */
import { Command } from 'commander';
import { Exit } from './exit.ts';
import { type JobOptions, overridesOf, runModeOf, withJobOptions } from './options.ts';
import { runSupervised } from './supervised.ts';

export function pretrainCommand(): Command {
  return withJobOptions(new Command('pretrain'))
    .description('train a base model, or a dual encoder, from scratch on the picture world')
    .argument('<config>', 'a YAML file such as examples/world-base.yaml')
    .action(async (path: string, options: JobOptions) => {
      const [{ isEncoderJob, readPretrainConfig }, { planRun }, { interruptible }] = await Promise.all([
        import('../config/index.ts'),
        import('./jobRun.ts'),
        import('../progress/index.ts'),
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
      if (isEncoderJob(config)) {
        const { pretrainEncoder } = await import('../pretrain/encoder.ts');
        await pretrainEncoder(config, run, interruption.signal);
      } else {
        const { pretrain } = await import('../pretrain/pretrain.ts');
        await pretrain(config, run, interruption.signal);
      }
      if (interruption.exitStatus !== null) throw new Exit(interruption.exitStatus);
    });
}

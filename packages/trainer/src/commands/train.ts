/** `deft train`: fine-tune a base model on a folder of captioned pictures. */
import { Command } from 'commander';
import { type JobOptions, overridesOf, runModeOf, withJobOptions } from './options.ts';
import { Exit } from './program.ts';

export function trainCommand(): Command {
  return withJobOptions(new Command('train'))
    .description('fine-tune a base model on a folder of captioned pictures')
    .argument('<config>', 'a YAML file such as examples/personalize.yaml')
    .action(async (path: string, options: JobOptions) => {
      const [{ readTrainConfig, writeConfig }, { openRun }, { interruptible }, { train }] = await Promise.all(
        [
          import('../config/index.ts'),
          import('../runs/index.ts'),
          import('../progress/index.ts'),
          import('../train/train.ts'),
        ],
      );
      const config = readTrainConfig(path, overridesOf(options));
      const mode = runModeOf(options);
      using interruption = interruptible();
      const open = () => {
        const run = openRun({ root: options.runs, name: config.name, mode, command: 'train' });
        run.write('config.yaml', writeConfig(config));
        return run;
      };
      await train(config, open, interruption.signal);
      if (interruption.exitStatus !== null) throw new Exit(interruption.exitStatus);
    });
}

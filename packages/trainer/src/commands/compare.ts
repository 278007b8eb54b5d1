/** `deft compare`: a table of methods, each trained on the same subjects with the same seeds. */
import { Command } from 'commander';
import { Exit } from './exit.ts';
import { numberOption } from './numbers.ts';

interface CompareOptions {
  readonly out: string;
  readonly jobs: number;
  readonly threads?: number;
}

export function compareCommand(): Command {
  return new Command('compare')
    .description('train every row of a table on every subject with every seed, and measure')
    .argument('<file>', 'a YAML file such as examples/personalize-table.yaml')
    .option('--out <folder>', 'where tables are kept', 'runs/compare')
    .option(
      '--jobs <number>',
      'runs at once, each a process',
      numberOption('jobs', 1, 64, { whole: true }),
      1,
    )
    .option(
      '--threads <number>',
      'threads of each run; default: all processors',
      numberOption('threads', 1, 64, { whole: true }),
    )
    .action(async (path: string, { out, jobs, threads }: CompareOptions) => {
      const [{ readCompareConfig }, { compare }, { interruptible }] = await Promise.all([
        import('../config/index.ts'),
        import('../compare/index.ts'),
        import('../progress/index.ts'),
      ]);
      const config = readCompareConfig(path);
      using interruption = interruptible();
      const command = `npm run deft -- compare ${path}`;
      await compare(config, {
        root: out,
        jobs,
        threads: threads ?? null,
        command,
        signal: interruption.signal,
      });
      if (interruption.exitStatus !== null) throw new Exit(interruption.exitStatus);
    });
}

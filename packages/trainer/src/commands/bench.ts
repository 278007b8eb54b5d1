/** `deft bench`: the time and memory of a training step, of every row of a comparison. */
import { Command } from 'commander';
import { numberOption } from './numbers.ts';

interface BenchOptions {
  readonly out: string;
  readonly rounds: number;
  readonly against?: string;
}

export function benchCommand(): Command {
  return new Command('bench')
    .description('time training steps of every row of a table, in turns, and what they take of memory')
    .argument('<file>', 'a YAML file such as examples/step-table.yaml')
    .option('--rounds <number>', 'steps of each row', numberOption('rounds', 1, 10_000, { whole: true }), 20)
    .option('--against <label>', 'the row to measure by; default: the first')
    .option('--out <folder>', 'where the pictures to train on are written', 'runs/bench')
    .action(async (path: string, { out, rounds, against }: BenchOptions) => {
      const [{ readCompareConfig }, { bench }] = await Promise.all([
        import('../config/index.ts'),
        import('../compare/bench.ts'),
      ]);
      const command = `npm run deft -- bench ${path}${against ? ` --against "${against}"` : ''}`;
      await bench(readCompareConfig(path), { rounds, against: against ?? null, folder: out, command });
    });
}

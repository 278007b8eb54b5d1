/** A job's command under `--supervise`: the same command line in a process of its own, started again when it must be. */
import { join } from 'node:path';
import { listCheckpoints, supervise } from '../runs/index.ts';
import { Exit } from './exit.ts';
import type { JobOptions } from './options.ts';

/** Runs the job that this process was asked for under supervision, and ends as it does. @throws {Exit} */
export async function runSupervised(name: string, { runs, hangTimeout }: JobOptions): Promise<never> {
  const checkpoints = join(runs, name, 'checkpoints');
  const status = await supervise({
    hangSeconds: hangTimeout ?? null,
    args(again) {
      const [, program, ...written] = process.argv;
      const plain = withoutOptions(written);
      if (!again) return [...process.execArgv, program!, ...plain];
      const mode = listCheckpoints(checkpoints).length > 0 ? '--resume' : '--fresh';
      const modeless = plain.filter((arg) => arg !== '--resume' && arg !== '--fresh');
      return [...process.execArgv, program!, ...modeless, mode];
    },
  });
  throw new Exit(status);
}

/** The arguments without those of supervision. */
function withoutOptions(args: readonly string[]): string[] {
  return args.filter((arg, i) => {
    const isOurs = arg === '--supervise' || arg.startsWith('--hang-timeout');
    return !isOurs && args[i - 1] !== '--hang-timeout';
  });
}

/** The runs of a table: each cell a `deft train` process of its own, several at once, finished ones not done again. */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { configChanges } from '../config/index.ts';
import { listCheckpoints } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { type Cell, measuredBy } from './cells.ts';

export interface RunCellsOptions {
  /** Processes at once. */
  readonly jobs: number;
  /** wasm threads of each process; null: its own choice. */
  readonly threads: number | null;
  readonly signal: AbortSignal;
  /** Called when a cell is finished, with how many are. */
  readonly done: (cell: Cell, finished: number) => void;
}

/**
 * Trains every cell that is not finished.
 * @throws {UserError} when a cell was begun with another configuration, or its process failed
 */
export async function runCells(cells: readonly Cell[], options: RunCellsOptions): Promise<void> {
  for (const { config, folder } of cells) {
    const earlier = join(folder, 'config.yaml');
    if (!fs.existsSync(earlier)) continue;
    const changed = configChanges(fs.readFileSync(earlier, 'utf8'), config);
    if (changed.length > 0) {
      throw new UserError(
        `${folder}: the run began with another configuration (${changed.join(', ')}); ` +
          'delete the folder to run it anew, or give the table another name',
        2,
      );
    }
  }
  const open = cells.filter((cell) => measuredBy(cell) === null);
  let finished = cells.length - open.length;
  const children = new Set<ChildProcess>();
  const stop = (): void => {
    for (const child of children) child.kill('SIGINT');
  };
  options.signal.addEventListener('abort', stop);
  const work = async (): Promise<void> => {
    for (let cell = open.shift(); cell && !options.signal.aborted; cell = open.shift()) {
      const { status, said } = await trainCell(cell, options.threads, children);
      if (options.signal.aborted) return;
      if (status !== 0 || measuredBy(cell) === null) {
        open.length = 0;
        throw new UserError(`${cell.folder}: deft train ended with status ${status}:\n${said}`);
      }
      finished += 1;
      options.done(cell, finished);
    }
  };
  try {
    await Promise.all(Array.from({ length: options.jobs }, work));
  } finally {
    options.signal.removeEventListener('abort', stop);
    stop();
  }
}

/** Runs `deft train` on a cell, from its newest checkpoint if it has one; resolves to how it ended and its last words. */
function trainCell(
  { file, folder }: Cell,
  threads: number | null,
  children: Set<ChildProcess>,
): Promise<{ status: number | string; said: string }> {
  const mode = listCheckpoints(join(folder, 'checkpoints')).length > 0 ? '--resume' : '--fresh';
  const args = [...process.execArgv, process.argv[1]!, 'train', file, '--runs', dirname(folder), mode];
  const env = { ...process.env, ...(threads !== null && { DEFT_THREADS: String(threads) }) };
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  children.add(child);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2000);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      children.delete(child);
      resolve({ status: code ?? signal ?? 'unknown', said: said.trim() });
    });
  });
}

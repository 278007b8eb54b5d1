/** What `deft compare` does. */
import { join } from 'node:path';
import { openNamedDevice } from '../base/open.ts';
import type { CompareConfig } from '../config/index.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { measuredBy, writeCells } from './cells.ts';
import { measureMerged } from './merged.ts';
import { type RunCellsOptions, runCells } from './run.ts';
import { renderTable, tableOf } from './table.ts';

export interface CompareRequest extends Pick<RunCellsOptions, 'jobs' | 'threads' | 'signal'> {
  /** The folder that tables are kept in. */
  readonly root: string;
  /** How the user called it. */
  readonly command: string;
}

/**
 * Trains what is not trained yet, and writes results.json and table.md into the table's folder; returns early, without
 * them, when aborted.
 * @throws {UserError}
 */
export async function compare(config: CompareConfig, request: CompareRequest): Promise<void> {
  const folder = join(request.root, config.name);
  const { trained: cells, merged } = await writeCells(config, folder);
  console.error(`deft: ${cells.length} runs in ${folder}`);
  const began = performance.now();
  let first = 0;
  await runCells(cells, {
    ...request,
    done({ row, topic, seed }, finished) {
      first ||= finished - 1;
      const each = (performance.now() - began) / 1000 / (finished - first);
      const left = Math.round((each * (cells.length - finished)) / 60);
      console.error(
        `deft: ${finished} of ${cells.length}: ${config.rows[row]!.label}, ${topic}, seed ${seed}; ${left} min left`,
      );
    },
  });
  const unmerged = merged.filter((cell) => measuredBy(cell) === null);
  const device = unmerged.length > 0 ? await openNamedDevice('auto') : null;
  for (const cell of unmerged) {
    if (request.signal.aborted) return;
    await measureMerged(cell, device!);
    console.error(`deft: ${config.rows[cell.row]!.label}, ${cell.topic}, seed ${cell.seed}: merged`);
  }
  if (request.signal.aborted) return;
  const table = tableOf(config, cells, merged);
  const markdown = renderTable(table, request.command);
  writeFileAtomically(join(folder, 'results.json'), `${JSON.stringify(table, null, 2)}\n`);
  writeFileAtomically(join(folder, 'table.md'), markdown);
  console.log(markdown);
}

/** `deft bench`: what a training step costs, of every row of a comparison. */
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { treeLeaves } from '@deftjs/tensor';
import type { CompareConfig } from '../config/index.ts';
import { median } from '../metrics/index.ts';
import { type Prepared, prepare } from '../train/prepare.ts';
import { UserError } from '../userError.ts';
import { version } from '../version.ts';
import { writeCells } from './cells.ts';

export interface BenchRequest {
  /** Steps timed of every row. */
  readonly rounds: number;
  /** The label of the row that the others are measured by; null: the first. */
  readonly against: string | null;
  /** The folder that the table's pictures are written to. */
  readonly folder: string;
  /** How the user called it. */
  readonly command: string;
}

/** What the steps of one row cost. */
export interface StepCost {
  readonly label: string;
  /** Numbers trained. */
  readonly trained: number;
  readonly milliseconds: readonly number[];
  /** On the device: frozen weights and temporaries, and the trained weights with their moments. */
  readonly bytes: number;
}

/** Steps before the clock runs: the first compiles, and fills caches. */
const warmups = 2;

/**
 * Takes steps of every row on its first subject and seed. A round takes one of each row in turn, so that whatever else the
 * machine does hits all of them.
 * @throws {UserError} as `deft train`
 */
export async function stepCosts(
  config: CompareConfig,
  { rounds, folder }: BenchRequest,
): Promise<StepCost[]> {
  const { trained: cells } = await writeCells(config, folder);
  const jobs: { label: string; job: Prepared; milliseconds: number[]; state: Prepared['first'] }[] = [];
  try {
    for (const [row, { label }] of config.rows.entries()) {
      const job = await prepare(cells.find((cell) => cell.row === row)!.config);
      jobs.push({ label, job, milliseconds: [], state: job.first });
    }
    for (let round = 0; round < warmups + rounds; round += 1) {
      for (const one of jobs) {
        const began = performance.now();
        one.state = (await one.job.step.take(one.state, round)).state;
        if (round >= warmups) one.milliseconds.push(performance.now() - began);
      }
    }
    return jobs.map(({ label, job: { plan }, milliseconds }) => {
      const bytes = plan.stepBytes + plan.stateBytes;
      return { label, trained: plan.trained.parameters, milliseconds, bytes };
    });
  } finally {
    for (const { job, state } of jobs) {
      for (const spent of treeLeaves(state)) spent.dispose();
      await job.device.close();
    }
  }
}

/** Prints the costs as a table. @throws {UserError} as {@link stepCosts}, or when no row has the label to measure by */
export async function bench(config: CompareConfig, request: BenchRequest): Promise<void> {
  const { rounds, command } = request;
  const against = request.against ?? config.rows[0]!.label;
  const labels = config.rows.map(({ label }) => label);
  if (!labels.includes(against)) {
    throw new UserError(`--against: no row is "${against}"; expected one of ${labels.join(', ')}`, 2);
  }
  const costs = await stepCosts(config, { ...request, folder: join(request.folder, config.name) });
  const reference = costs.find(({ label }) => label === against)!;
  console.log(
    `| method | trained | ms a step | ratio | MB | ratio |\n| --- | ---: | ---: | ---: | ---: | ---: |`,
  );
  for (const { label, trained, milliseconds, bytes } of costs) {
    const ratio = median(milliseconds.map((ms, i) => ms / reference.milliseconds[i]!));
    const cells = [
      label,
      trained.toLocaleString('en-US'),
      median(milliseconds).toFixed(0),
      ratio.toFixed(2),
      (bytes / 1e6).toFixed(1),
      (bytes / reference.bytes).toFixed(2),
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
  console.log(
    `\nMedians of ${rounds} rounds, a step of each row in turn; ratios to ${against}, those of time taken within the rounds. Bytes: frozen ` +
      `weights, temporaries, trained weights and moments.\n\nMade by \`${command}\` with deft ${version}.`,
  );
}

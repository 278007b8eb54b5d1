/** The benchmark: every row on this engine and its peers in turn, checked, then timed in interleaved rounds. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { Backend } from './contender.ts';
import { errorOf, expectedOf } from './expected.ts';
import { ContenderProcess } from './process.ts';
import { type BackendResult, type Cell, type Measured, recordOf, tableOf } from './report.ts';
import { type HostTensor, quickRows, type Row, rows } from './rows.ts';

const usage = `npm run bench -- [options]
  --only TEXT         only rows whose name contains TEXT (repeatable)
  --backend NAME      webgpu or wasm; default: both
  --rounds N          rounds of timed runs, the contenders taking turns; default 5
  --quick             small sizes and one round: tries the harness and the results, measures nothing`;

/** Contenders, this engine first. */
const contenders = ['deft', 'jax-js', 'TF.js'];
const backends: readonly Backend[] = ['webgpu', 'wasm'];

/** The longest that compiling a row, computing it and warming up may take. */
const PREPARE_LIMIT_MS = 240_000;
/** A contender's turn in a round: as many runs as fit, at least one. */
const TURN_MS = 300;
const RUNS_IN_TURN = 20;
const TURN_LIMIT_MS = 120_000;

const here = new URL('../', import.meta.url);

async function measure(
  row: Row,
  processes: readonly ContenderProcess[],
  expected: readonly HostTensor[],
  rounds: number,
): Promise<Cell[]> {
  const cells: (Cell & { readonly times: number[] })[] = [];
  for (const contender of processes) cells.push(await prepare(row, contender, expected));
  for (let round = 0; round < rounds; round += 1) {
    for (const [i, contender] of processes.entries()) {
      const cell = cells[i]!;
      if (cell.problem !== null) continue;
      try {
        const request = { kind: 'time', milliseconds: TURN_MS, runs: RUNS_IN_TURN } as const;
        cell.times.push(...(await contender.ask('times', request, TURN_LIMIT_MS)).milliseconds);
      } catch (error) {
        cells[i] = { ...cell, times: [], problem: messageOf(error) };
      }
    }
  }
  for (const contender of processes) {
    // What cannot let go of a row starts the next one as a new process.
    await contender.ask('disposed', { kind: 'dispose' }, TURN_LIMIT_MS).catch(() => contender.end());
  }
  return cells;
}

async function prepare(row: Row, contender: ContenderProcess, expected: readonly HostTensor[]) {
  const nothing = { contender: contender.name, times: [], firstMs: null, error: null };
  try {
    const { outputs, firstMs } = await contender.ask('prepared', { kind: 'prepare', row }, PREPARE_LIMIT_MS);
    const error = errorOf(outputs, expected);
    const problem =
      error <= row.tolerance ? null : `WRONG: error ${error.toPrecision(2)}, allowed ${row.tolerance}`;
    return { ...nothing, firstMs, error, problem };
  } catch (error) {
    return { ...nothing, problem: messageOf(error) };
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

async function measureBackend(
  backend: Backend,
  table: readonly Row[],
  rounds: number,
): Promise<BackendResult> {
  const processes = contenders.map((name) => new ContenderProcess(name, backend));
  const loadBefore = loadavg();
  const measured: Measured[] = [];
  for (const row of table) {
    console.error(`${backend}: ${row.name}`);
    const expected = await expectedOf(row, new URL('losses.json', here).pathname);
    measured.push({ row, cells: await measure(row, processes, expected, rounds) });
  }
  const devices = Object.fromEntries(processes.map(({ name, description }) => [name, description]));
  for (const contender of processes) contender.end();
  return { backend, devices, measured, loadBefore, loadAfter: loadavg() };
}

function versions(): { [name: string]: string } {
  const { dependencies } = JSON.parse(readFileSync(new URL('package.json', here), 'utf8'));
  const { dependencies: own } = JSON.parse(readFileSync(new URL('../package.json', here), 'utf8'));
  return { ...own, ...dependencies };
}

function options() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
      backend: { type: 'string' },
      rounds: { type: 'string' },
      quick: { type: 'boolean' },
    },
  });
  const backend = values.backend as Backend | undefined;
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  if (backend && !backends.includes(backend)) throw new Error(`--backend: webgpu or wasm; got ${backend}`);
  if (!(Number.isInteger(rounds) && rounds >= 1)) throw new Error(`--rounds: got ${values.rounds}`);
  const table = (values.quick ? quickRows : rows).filter(
    ({ name }) => !values.only || values.only.some((text) => name.includes(text)),
  );
  if (table.length === 0) throw new Error('--only: no row has such a name');
  return { backends: backend ? [backend] : backends, rounds, table, quick: values.quick ?? false };
}

async function main(): Promise<void> {
  const chosen = options();
  const results: BackendResult[] = [];
  for (const backend of chosen.backends) {
    const result = await measureBackend(backend, chosen.table, chosen.rounds);
    results.push(result);
    console.log(`\n${tableOf(result)}`);
  }
  if (!chosen.quick) {
    const file = new URL(`results/${new Date().toISOString().slice(0, 16).replace(':', '')}.json`, here);
    mkdirSync(new URL('.', file), { recursive: true });
    writeFileSync(file, recordOf(results, versions()));
    console.log(`\n${file.pathname}`);
  }
  const wrong = results.some(({ measured }) => measured.some(({ cells }) => cells[0]!.problem !== null));
  process.exitCode = wrong ? 1 : 0;
}

main().catch((error: unknown) => {
  console.error(`${messageOf(error)}\n${usage}`);
  process.exitCode = 2;
});

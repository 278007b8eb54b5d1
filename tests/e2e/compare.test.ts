/** `deft compare` as a user runs it, on a base too small to draw anything. */
import fs from 'node:fs';
import os from 'node:os';
import { join, relative } from 'node:path';
import { referenceDevice, setDevice } from '@deftjs/tensor';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { saveTinyBase } from '../trainer/tinyBase.ts';
import { bundle, deft, type RunOptions } from './command.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-compare-'));
const base = join(root, 'base');

beforeAll(async () => {
  setDevice(referenceDevice());
  await bundle();
  await saveTinyBase(base);
}, 120_000);
afterAll(() => fs.rmSync(root, { recursive: true }));

const rows = [
  { label: 'DEFT', keys: { method: 'deft' } },
  { label: 'LoRA', keys: { method: 'lora' } },
];

function compare(name: string, changes: Readonly<Record<string, unknown>> = {}, options?: RunOptions) {
  const common = {
    base,
    steps: 4,
    batch_size: 2,
    device: 'wasm',
    rank: 2,
    projector: 'relu', // which LoRA does not know
    sampling: { steps: 2, seeds: [1], other_prompts: ['a red star'] },
  };
  const file = join(root, `${name}.json`);
  const table = { name, title: 'A table', subjects: ['robot', 'fish'], seeds: [1], common, rows, ...changes };
  fs.writeFileSync(file, JSON.stringify(table));
  return deft(['compare', file, '--out', relative(process.cwd(), root), '--threads', '1'], options);
}

type Row = { label: string; runs: Record<string, unknown>[] };
const rowsOf = (name: string): Row[] =>
  JSON.parse(fs.readFileSync(join(root, name, 'results.json'), 'utf8')).rows.map(({ label, runs }: Row) => ({
    label,
    runs: runs.map(({ seconds, ...measured }) => measured),
  }));

test('an interrupted table goes on where it was, and ends as one that was not', async () => {
  const stopped = await compare('stopped', {}, { interrupt: /1 of 4/ });
  expect(stopped.status, stopped.text).toBe(130);
  expect(fs.existsSync(join(root, 'stopped/results.json'))).toBe(false);
  const metrics = join(root, 'stopped/runs/01-robot-1/metrics.json');
  const { mtimeMs } = fs.statSync(metrics);

  const went = await compare('stopped');
  expect(went.status, went.text).toBe(0);
  expect(fs.statSync(metrics).mtimeMs).toBe(mtimeMs);
  expect(went.text).toMatch(
    /\| LoRA \| [\d,]+ \| 0\.\d{3} ± 0\.\d{3} \| 0\.\d{3} ± 0\.\d{3} \| 0\.\d{3} ± 0\.\d{3} \| \d+ \|/,
  );

  const whole = await compare('whole');
  expect(whole.status, whole.text).toBe(0);
  expect(rowsOf('stopped')).toEqual(rowsOf('whole'));
  expect(rowsOf('whole').map(({ label, runs }) => [label, runs.length])).toEqual([
    ['DEFT', 2],
    ['LoRA', 2],
  ]);
  const configs = ['01', '02'].map((row) =>
    fs.readFileSync(join(root, `whole/runs/${row}-fish-1/config.yaml`), 'utf8'),
  );
  for (const config of configs) expect(config).toContain('rank: 2');
  expect(configs[0]).toContain('projector: relu');
  const table = fs.readFileSync(join(root, 'whole/table.md'), 'utf8');
  expect(table).toContain('over the runs: robot, fish; seeds 1.');

  const changed = await compare('whole', { rows: [{ ...rows[0]!, keys: { method: 'deft', rank: 3 } }] });
  expect(changed.status).toBe(2);
  expect(changed.text).toMatch(/whole\/runs\/01-robot-1: the run began with another configuration \(rank\)/);
}, 120_000);

test('concepts are learnt together, or alone and joined; styles are scored', async () => {
  const merges = [
    { label: 'together', keys: { method: 'lora' } },
    { label: 'joined', keys: { method: 'lora' }, merge: 'sum' },
  ];
  const concepts = await compare('concepts', {
    subjects: [],
    concepts: [1, 2],
    steps_each: 3,
    rows: merges,
  });
  expect(concepts.status, concepts.text).toBe(0);
  expect(rowsOf('concepts').map(({ label }) => label)).toEqual([
    'together, 1',
    'together, 2',
    'joined, 1',
    'joined, 2',
  ]);
  const table = fs.readFileSync(join(root, 'concepts/table.md'), 'utf8');
  expect(table).toMatch(/\| joined, 2 \| [\d,]+ \| 0\.\d{3} \| [01]\.\d{3} \| /); // told apart: of two
  expect(table).toMatch(/\| joined, 1 \| [\d,]+ \| 0\.\d{3} \| {2}\| /);
  const runs = fs.readdirSync(join(root, 'concepts/runs')).sort();
  expect(runs).toEqual(['01-1-1', '01-2-1', '02-1-1', '02-2-1', '02-part-toy-1-1', '02-part-toy-2-1']);
  const together = fs.readFileSync(join(root, 'concepts/runs/01-2-1/config.yaml'), 'utf8');
  expect(together).toMatch(/steps: 6$/m);

  const styles = await compare('styles', { subjects: [], styles: ['mosaic'], rows: [rows[1]] });
  expect(styles.status, styles.text).toBe(0);
  expect(fs.readFileSync(join(root, 'styles/table.md'), 'utf8')).toContain('style similarity');
}, 240_000);

test.each([
  [
    'keys of the table in a row',
    { rows: [{ label: 'DEFT', keys: { seed: 1 } }] },
    'DEFT: seed: the table gives it',
  ],
  [
    'keys of another method, naming the row',
    { rows: [rows[0], { label: 'mine', keys: { method: 'lora', projector: 'qr' } }] },
    /row "mine":\ndeft: .*projector.*no such key; it belongs to deft, para/,
  ],
  ['a subject that it does not know', { subjects: ['cat'] }, 'expected robot, mushroom, fish or rocket'],
  ['subjects beside concepts', { concepts: [2] }, 'expected one of subjects, styles, concepts and tasks'],
  [
    'merges without concepts',
    { rows: [{ ...rows[0], merge: 'sum' }] },
    'expected merge in tables of concepts only',
  ],
  ['a key that it does not know', { colour: 1 }, 'unknown key'],
])('refuses %s, and trains nothing', async (_what, changes, message) => {
  const { status, text } = await compare('bad', changes);
  expect(text).toMatch(message);
  expect(status).toBe(2);
  expect(fs.existsSync(join(root, 'bad/runs'))).toBe(false);
});

test('the steps of the rows are timed in turns', async () => {
  const table = { name: 'steps', title: 'Steps', subjects: ['robot'], seeds: [1], rows };
  const common = { base, batch_size: 2, device: 'wasm', rank: 2, projector: 'qr' };
  const file = join(root, 'steps.json');
  fs.writeFileSync(file, JSON.stringify({ ...table, common }));
  const timed = await deft(['bench', file, '--out', root, '--rounds', '2', '--against', 'LoRA']);
  expect(timed.status, timed.text).toBe(0);
  expect(timed.text).toMatch(/\| DEFT \| [\d,]+ \| \d+ \| \d+\.\d\d \| \d+\.\d \| \d+\.\d\d \|/);
  expect(timed.text).toMatch(/\| LoRA \| [\d,]+ \| \d+ \| 1\.00 \| \d+\.\d \| 1\.00 \|/);
  const refused = await deft(['bench', file, '--out', root, '--against', 'PaRa']);
  expect(refused.status).toBe(2);
  expect(refused.text).toContain('--against: no row is "PaRa"; expected one of DEFT, LoRA');
}, 120_000);

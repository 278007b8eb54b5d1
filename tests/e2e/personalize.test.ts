/** The `deft` command as a user runs it: bundled, in a process of its own, from a base made by `deft pretrain`. */
import fs from 'node:fs';
import os from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bundle, type Ended, type RunOptions, deft as runDeft } from './command.ts';

const here = dirname(fileURLToPath(import.meta.url));
const folder = fs.mkdtempSync(join(os.tmpdir(), 'deft-e2e-'));
const base = join(folder, 'tiny/base');

const deft = (args: readonly string[], options?: RunOptions): Promise<Ended> =>
  runDeft([...args, '--device', 'wasm'], options);

function train(name: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Ended> {
  const settings = {
    name,
    base,
    steps: 12,
    checkpoint_every: 5,
    sample_every: 8,
    'sampling.steps': 2,
    'sampling.seeds': '[1]',
  };
  const set = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  return deft(['train', 'examples/personalize.yaml', '--runs', folder, ...set, ...args], options);
}

const adapterOf = (name: string): Buffer =>
  fs.readFileSync(join(folder, name, 'adapter/adapter_model.safetensors'));

beforeAll(async () => {
  await bundle();
  const made = await deft(['pretrain', join(here, 'tiny.yaml'), '--runs', folder]);
  expect(made.status, made.text).toBe(0);
}, 240_000);

afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

describe('deft train', () => {
  test('leaves an adapter, pictures, numbers and a report', async () => {
    const { status, text } = await train('whole');
    expect(status, text).toBe(0);
    const files = [
      'adapter/adapter_config.json',
      'samples.png',
      'samples/step-000008.png',
      'samples/steps.png',
      'layers.json',
      'report.html',
      'pictures.png',
      'loss.png',
      'metrics.json',
      'report.md',
    ];
    for (const file of files)
      expect(fs.statSync(join(folder, 'whole', file)).size, file).toBeGreaterThan(100);
    const report = fs.readFileSync(join(folder, 'whole/report.md'), 'utf8');
    for (const [, file] of report.matchAll(/\]\(([^)#]+)\)/g)) {
      expect(fs.existsSync(join(folder, 'whole', file!)), file).toBe(true);
    }
  }, 240_000);

  test('gives the same bytes for the same seed, whatever the number of threads', async () => {
    await train('again', [], { env: { DEFT_THREADS: '1' } });
    expect(adapterOf('again').equals(adapterOf('whole'))).toBe(true);
    await train('other', ['--set', 'seed=2']);
    expect(adapterOf('other').equals(adapterOf('whole'))).toBe(false);
  }, 240_000);

  test('stopped by Ctrl-C goes on to the same adapter', async () => {
    const stopped = await train('stopped', ['--set', 'steps=2000'], { interrupt: /step \d+ of 2000/ });
    expect(stopped.status, stopped.text).toBe(130);
    const refused = await train('stopped');
    expect(refused.status).toBe(2);
    expect(refused.text).toMatch(/--resume/);
    const at = Number(
      /step-(\d+)/.exec(fs.readdirSync(join(folder, 'stopped/checkpoints')).sort().at(-1)!)?.[1],
    );
    const steps = ['--set', `steps=${at + 3}`];
    const resumed = await train('stopped', ['--resume', ...steps]);
    expect(resumed.status, resumed.text).toBe(0);
    await train('straight', steps);
    expect(adapterOf('stopped').equals(adapterOf('straight'))).toBe(true);
    const sheets = ['stopped', 'straight'].map((name) =>
      fs.readFileSync(join(folder, name, 'samples/steps.png')),
    );
    expect(sheets[0]!.equals(sheets[1]!)).toBe(true);
  }, 240_000);

  test.each(['SIGKILL', 'SIGSTOP'] as const)(
    'supervised, and struck by %s, ends with the same adapter',
    async (signal) => {
      const name = `struck-${signal}`;
      const inRun = (file: string) => join(folder, name, file);
      const short = ['--set', 'steps=60', '--set', 'checkpoint_every=15', '--set', 'sample_every=null'];
      const struck = train(name, ['--supervise', '--hang-timeout', '5', ...short]);
      const logged = () => fs.existsSync(inRun('log.jsonl')) && fs.readFileSync(inRun('log.jsonl'), 'utf8');
      while (!/"step":20,/.test(logged() || '')) await setTimeout(5); // far from any save
      process.kill(Number(fs.readFileSync(inRun('.deft-lock'))), signal);
      const { status, text } = await struck;
      expect(status, text).toBe(0);
      const why = signal === 'SIGKILL' ? 'was ended by SIGKILL' : 'gave no sign of life for 5 s';
      expect(text).toContain(`the job ${why}; going on from its newest checkpoint (1 of 3)`);
      await train('unstruck', ['--fresh', ...short]);
      expect(adapterOf(name).equals(adapterOf('unstruck'))).toBe(true);
    },
    240_000,
  );
});

describe('deft plan', () => {
  test('says what a job takes, and makes no run of it', async () => {
    const { status, text } = await deft(['plan', 'examples/personalize.yaml', '--set', `base=${base}`]);
    expect(status, text).toBe(0);
    expect(text).toMatch(/2,000 steps of 5 pictures: 2,000 epochs/);
    expect(text).toMatch(/memory .* MB on wasm .* free/);
  }, 60_000);
});

describe('deft sample', () => {
  test('draws with and without the adapter', async () => {
    const sheet = async (model: string, file: string, ...more: string[]): Promise<Buffer> => {
      const out = join(folder, file);
      const args = ['sample', model, '--prompt', 'a big sks toy', '--steps', '2', '--out', out, ...more];
      const { status, text } = await deft(args);
      expect(status, text).toBe(0);
      return sharp(out).raw().toBuffer(); // the recipes beside the pixels differ
    };
    const plain = await sheet(base, 'base.png');
    expect((await sheet(join(folder, 'whole'), 'none.png', '--strength', '0')).equals(plain)).toBe(true);
    expect((await sheet(join(folder, 'whole'), 'much.png', '--strength', '10')).equals(plain)).toBe(false);
  }, 240_000);
});

describe('deft sample --from', () => {
  const args = ['--prompt', 'a big sks toy', '--prompt', 'a red star', '--seed', '1', '--seed', '7'];
  const [sheet, each, again] = ['sheet.png', 'each', 'again.png'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];

  beforeAll(async () => {
    const options = ['--steps', '2', '--out', sheet, '--out-dir', each];
    const drawn = await deft(['sample', join(folder, 'whole'), ...args, ...options]);
    expect(drawn.status, drawn.text).toBe(0);
  }, 240_000);

  test('draws a sheet and a single picture again, byte for byte', async () => {
    expect(fs.readdirSync(each)).toHaveLength(4);
    for (const file of [sheet, join(each, '02-a-red-star-seed-7.png')]) {
      const { status, text } = await deft(['sample', '--from', file, '--out', again]);
      expect(status, text).toBe(0);
      expect(fs.readFileSync(again).equals(fs.readFileSync(file)), file).toBe(true);
    }
  }, 240_000);

  test('refuses a model that has changed, a picture without recipe, and options the recipe answers', async () => {
    const from = ['sample', '--from', sheet, '--out', join(folder, 'no.png')];
    const cases: [string[], RegExp][] = [
      [['sample', base, ...from.slice(1)], /other weights than .*base: expected SHA-256/],
      [[...from, '--seed', '3'], /--seed: not with --from/],
      [['sample', '--from', join(folder, 'whole/loss.png')], /holds no recipe/],
      [['sample', base], /--prompt: give at least one/],
    ];
    for (const [command, message] of cases) {
      const { status, text } = await deft(command);
      expect(text).toMatch(message);
      expect(status).toBe(2);
    }
    expect(fs.existsSync(join(folder, 'no.png'))).toBe(false);
  }, 240_000);
});

const bad: readonly (readonly [what: string, args: readonly string[], status: number, message: RegExp])[] = [
  ['no such base', ['--set', 'base=nowhere'], 2, /no such base/],
  ['a rank larger than a layer allows', ['--set', 'rank=64'], 2, /rank .*64/],
  ['no layer of that name', ['--set', 'target_modules=[to_x]'], 2, /to_x/],
  ['an unknown key', ['--set', 'learing_rate=1'], 2, /learning_rate/],
  ['an unknown method', ['--set', 'method=loar'], 2, /method/],
  ['a folder without pictures', ['--set', 'data.folder=packages'], 1, /no pictures|no images/],
  ['a word that the base does not know', ['--set', 'sampling.prompts=[a zebra]'], 2, /zebra/],
];

describe('deft train refuses in one line and writes nothing:', () => {
  test.each(bad)(
    '%s',
    async (_what, args, status, message) => {
      const ended = await train('bad', args);
      expect(ended.text).toMatch(message);
      expect(ended.status, ended.text).toBe(status);
      expect(
        ended.text
          .trim()
          .split('\n')
          .filter((line) => !line.startsWith('deft: wasm')),
      ).toHaveLength(1);
      expect(fs.existsSync(join(folder, 'bad'))).toBe(false);
    },
    60_000,
  );
});

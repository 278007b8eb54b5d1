import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const packages = ['tensor', 'autograd'] as const;
const run = promisify(execFile);

/** The programs of a package's README. */
const examplesOf = (name: string): string[] =>
  [...readFileSync(join(root, 'packages', name, 'README.md'), 'utf8').matchAll(/```js\n(.*?)```/gs)].map(
    ([, code]) => code!,
  );

const examples = packages.flatMap((name) =>
  examplesOf(name).map((code, i) => ({ name: `${name}-${i}`, code })),
);

/** An empty project outside the repository, with the packages as npm would publish them. */
const project = mkdtempSync(join(tmpdir(), 'deft-pack-'));
afterAll(() => rmSync(project, { recursive: true, force: true }));

beforeAll(async () => {
  const tarballs: string[] = [];
  for (const name of packages) {
    const folder = join(root, 'packages', name);
    await run(process.execPath, [
      join(root, 'node_modules/typescript/bin/tsc'),
      '-p',
      join(folder, 'tsconfig.build.json'),
    ]);
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', project, folder]);
    tarballs.push(join(project, (JSON.parse(stdout) as [{ filename: string }])[0].filename));
  }
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  await run('npm', ['install', '--offline', '--ignore-scripts', ...tarballs], { cwd: project });
  for (const { name, code } of examples) writeFileSync(join(project, `${name}.js`), code);
}, 300_000);

/** What an example prints. */
async function printed(name: string): Promise<string> {
  return (await run(process.execPath, [`${name}.js`], { cwd: project })).stdout;
}

/** The numbers after a word. */
function numbersAfter(text: string, word: string): number[] {
  const line = text.split('\n').find((candidate) => candidate.startsWith(word));
  return [...line!.matchAll(/-?\d+(\.\d+)?(e[+-]\d+)?/g)].map(([number]) => Number(number));
}

describe('packed and installed in an empty project, as the READMEs say', () => {
  it('computes rows that sum to one, and explains its kernels', async () => {
    const [a, b] = numbersAfter(await printed('tensor-0'), 'tensor: rows') as [number, number];
    expect([a, b].every((sum) => Math.abs(sum - 1) < 1e-6)).toBe(true);
  }, 120_000);

  it('fits a function', async () => {
    const [error] = numbersAfter(await printed('autograd-0'), 'fit:') as [number];
    expect(error).toBeLessThan(0.01);
  }, 120_000);

  it('finds the law that a pendulum swings by', async () => {
    const [gravity, friction] = numbersAfter(await printed('autograd-1'), 'ode:') as [number, number];
    expect(gravity).toBeCloseTo(4, 2);
    expect(friction).toBeCloseTo(0.5, 2);
  }, 120_000);

  it('differentiates an op of its own', async () => {
    const text = await printed('autograd-2');
    const [low, middle, high, worst] = numbersAfter(text, 'custom: slopes') as number[];
    expect([low, middle, high]).toEqual([expect.closeTo(0, 6), 0.5, 1]);
    expect(worst).toBeLessThan(1e-6);
    expect(numbersAfter(text, 'custom: straight')).toEqual([1, 1]);
  }, 120_000);

  it('is bundled for the browser without a part of Node', async () => {
    const whole = examples
      .map(({ code }, i) => `async function example${i}() {\n${inFunction(code)}\n}\nawait example${i}();`)
      .join('\n');
    const { metafile, outputFiles } = await build({
      stdin: { contents: importsOf(examples.map(({ code }) => code)) + whole, resolveDir: project },
      bundle: true,
      platform: 'browser',
      format: 'esm',
      write: false,
      metafile: true,
      logLevel: 'silent',
    });
    const outside = Object.values(metafile.outputs).flatMap(({ imports }) => imports);
    expect(outside.filter(({ external }) => external)).toEqual([]);
    expect(outputFiles[0]!.text).not.toMatch(/["']node:/);
    expect(Object.keys(metafile.inputs).some((path) => path.includes('/src/'))).toBe(false);
  }, 120_000);
});

const importStatement = /^import .*;.*\n/gm;

function inFunction(code: string): string {
  return code.replaceAll(importStatement, '');
}

/** One import of everything that the programs import, from the browser's entry points. */
function importsOf(programs: readonly string[]): string {
  const names = new Map<string, Set<string>>();
  for (const [, list, from] of programs.join('\n').matchAll(/^import \{ (.*) \} from '(.*)';/gm)) {
    const module = from!.replace(/\/node$/, '/browser');
    const known = names.get(module) ?? new Set();
    for (const name of list!.split(', ')) known.add(name);
    names.set(module, known);
  }
  return [...names].map(([from, list]) => `import { ${[...list].join(', ')} } from '${from}';\n`).join('');
}

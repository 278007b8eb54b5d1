import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';

/** A program of this folder, bundled once, so that each start of it is quick. */
export async function childProgram(name: string): Promise<string> {
  const outfile = join(fs.mkdtempSync(join(os.tmpdir(), 'deft-child-')), `${name}.mjs`);
  await build({
    entryPoints: [new URL(`${name}.ts`, import.meta.url).pathname],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20.19',
    conditions: ['@deftjs/source'],
    external: ['webgpu', 'sharp', '@resvg/resvg-js', 'dejavu-fonts-ttf'],
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
    logLevel: 'error',
  });
  return outfile;
}

/** A running child with its output so far, and how it ended. */
export interface Child {
  readonly process: ChildProcess;
  output(): string;
  errors(): string;
  /** Resolves when the output holds the text; rejects when the child ends before. */
  says(text: string): Promise<void>;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
}

export function start(program: string, args: readonly string[]): Child {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  let errors = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  const ended = new Promise<Awaited<Child['ended']>>((resolve) => {
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  const says = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (output.includes(text)) resolve();
      };
      child.stdout.on('data', look);
      look();
      ended.then(() =>
        reject(new Error(`ended without saying "${text}"; it said "${output}" and "${errors}"`)),
      );
    });
  return { process: child, output: () => output, errors: () => errors, says, ended };
}

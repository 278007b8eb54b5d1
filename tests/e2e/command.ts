/** The `deft` command as a user runs it: bundled, in a process of its own. */
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');

export interface Ended {
  readonly status: number | null;
  readonly text: string;
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** A line at which SIGINT is sent. */
  readonly interrupt?: RegExp;
}

/** Runs Node with these arguments to its end. */
export function run(args: readonly string[], { env = {}, interrupt }: RunOptions = {}) {
  return new Promise<Ended>((resolve) => {
    const child = spawn(process.execPath, args, { cwd: root, env: { ...process.env, ...env } });
    let text = '';
    let sent = false;
    const hear = (chunk: Buffer): void => {
      text += chunk;
      if (!sent && interrupt?.test(text)) {
        sent = true;
        child.kill('SIGINT');
      }
    };
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    child.on('close', (status) => resolve({ status, text }));
  });
}

/** Makes the command that {@link deft} runs. */
export async function bundle(): Promise<void> {
  const bundled = await run(['scripts/bundle.mjs']);
  expect(bundled.status, bundled.text).toBe(0);
}

/** Runs a command line of `deft`. */
export function deft(args: readonly string[], options?: RunOptions): Promise<Ended> {
  return run([join(root, 'packages/trainer/dist/deft.js'), ...args], options);
}

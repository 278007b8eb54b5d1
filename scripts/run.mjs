// Starting child processes from the repository's scripts, with Ctrl-C and exit codes passed through.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository root. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Resolves to the exit status of a command that shares this process's terminal (128 + n after signal n).
 * @param {string} command
 * @param {string[]} args
 * @param {{ env?: NodeJS.ProcessEnv, cwd?: string }} [options]
 * @returns {Promise<number>}
 */
export function run(command, args, { env = process.env, cwd = root } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env, stdio: 'inherit' });
    // Ctrl-C reaches the whole process group: the child decides how to end, and we report how it ended.
    // It takes a second request as one to end at once, so a parent that is gone makes none after a signal.
    let asked = false;
    const ignore = () => {
      asked = true;
    };
    const forward = (/** @type {NodeJS.Signals} */ signal) => {
      asked = true;
      child.kill(signal);
    };
    process.on('SIGINT', ignore);
    process.on('SIGTERM', forward);
    process.on('SIGHUP', forward);
    // npm passes SIGTERM on to the shell between us only, and that shell dies without a word.
    const parent = process.ppid;
    const orphaned = () => process.ppid !== parent && !asked && forward('SIGTERM');
    const watch = process.env.npm_lifecycle_event ? setInterval(orphaned, 500) : undefined;
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearInterval(watch);
      process.off('SIGINT', ignore);
      process.off('SIGTERM', forward);
      process.off('SIGHUP', forward);
      resolve(code ?? 128 + (signal ? constants.signals[signal] : 0));
    });
  });
}

/**
 * Resolves to the exit status of `node ARGS`.
 * @param {string[]} args
 * @param {{ env?: NodeJS.ProcessEnv, cwd?: string }} [options]
 */
export function runNode(args, options) {
  return run(process.execPath, args, options);
}

// Installs the locked dependencies when they are missing or older than package-lock.json. Uses Node alone,
// because it is what a fresh clone runs first.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, run, runNode } from './run.mjs';

/** @param {string} path */
const modifiedMs = (path) => statSync(join(root, path), { throwIfNoEntry: false })?.mtimeMs ?? 0;

/** Makes `node_modules` match package-lock.json; ends the process with npm's exit status when npm fails. */
export async function bootstrap() {
  // npm writes the hidden lockfile last, so its date is the date of the last complete install.
  if (modifiedMs('node_modules/.package-lock.json') >= modifiedMs('package-lock.json')) return;
  console.error('deft: installing dependencies (npm ci)');
  const args = ['ci', '--ignore-scripts', '--no-fund', '--no-audit', '--loglevel=error'];
  const npmCli = process.env.npm_execpath;
  const status = npmCli?.endsWith('.js') ? await runNode([npmCli, ...args]) : await run('npm', args);
  if (status !== 0) process.exit(status);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await bootstrap();

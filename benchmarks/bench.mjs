// npm run bench, bench:profile, bench:hardware, bench:compile: installs what is missing of the repository's dependencies,
// and of the peers' for the first, bundles the benchmark, so that no loader stands between the engines and Node, and runs it.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { bootstrap } from '../scripts/bootstrap.mjs';
import { root, run, runNode } from '../scripts/run.mjs';

const here = join(root, 'benchmarks');

/** @param {string} path */
const modifiedMs = (path) => statSync(join(here, path), { throwIfNoEntry: false })?.mtimeMs ?? 0;

const args = process.argv.slice(2);
const ownOnly = ['profile', 'hardware', 'compile-time'];
const alone = ownOnly.find((name) => name === args[0]);

await bootstrap();
if (!alone && modifiedMs('node_modules/.package-lock.json') < modifiedMs('package-lock.json')) {
  console.error('bench: installing the peers (npm ci)');
  const status = await run('npm', ['ci', '--ignore-scripts', '--no-fund', '--no-audit'], { cwd: here });
  if (status !== 0) process.exit(status);
}
const { build, stop } = await import('esbuild');
await build({
  entryPoints: ['main', 'child', ...ownOnly].map((name) => join(here, `${name}.ts`)),
  outdir: join(here, 'dist'),
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  conditions: ['@deftjs/source'],
  external: ['@jax-js/*', '@tensorflow/*', 'webgpu', '@sparticuz/chromium'],
  logLevel: 'warning',
});
await stop(); // or its service process lives as long as the benchmark
process.exitCode = await runNode([join(here, `dist/${alone ?? 'main'}.js`), ...args.slice(alone ? 1 : 0)]);

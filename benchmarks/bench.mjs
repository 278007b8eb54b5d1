// npm run bench, bench:profile, bench:hardware: installs the repository's and the peers' dependencies where they are missing, bundles the benchmark,
// so that no loader stands between the engines and Node, and runs it.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { bootstrap } from '../scripts/bootstrap.mjs';
import { root, run, runNode } from '../scripts/run.mjs';

const here = join(root, 'benchmarks');

/** @param {string} path */
const modifiedMs = (path) => statSync(join(here, path), { throwIfNoEntry: false })?.mtimeMs ?? 0;

await bootstrap();
if (modifiedMs('node_modules/.package-lock.json') < modifiedMs('package-lock.json')) {
  console.error('bench: installing the peers (npm ci)');
  const status = await run('npm', ['ci', '--ignore-scripts', '--no-fund', '--no-audit'], { cwd: here });
  if (status !== 0) process.exit(status);
}
const { build, stop } = await import('esbuild');
await build({
  entryPoints: ['main.ts', 'child.ts', 'profile.ts', 'hardware.ts'].map((file) => join(here, file)),
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
const [first, ...rest] = process.argv.slice(2);
const script =
  first === 'profile' || first === 'hardware' ? [first, ...rest] : ['main', ...process.argv.slice(2)];
process.exitCode = await runNode([join(here, `dist/${script[0]}.js`), ...script.slice(1)]);

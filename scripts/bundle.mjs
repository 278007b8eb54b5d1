// Bundles the `deft` command into one ES module that runs on Node without a loader.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bootstrap } from './bootstrap.mjs';
import { root } from './run.mjs';

/** Resolves to the path of the freshly bundled command; throws when the source does not compile. */
export async function bundle() {
  const { build, stop } = await import('esbuild');
  const outfile = join(root, 'packages/trainer/dist/deft.js');
  await build({
    entryPoints: [join(root, 'packages/trainer/src/main.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20.19',
    conditions: ['@deftjs/source'],
    // Packages with native parts, and data files found through require.resolve, stay in node_modules.
    external: ['sharp', '@resvg/resvg-js', 'webgpu', 'dejavu-fonts-ttf', '@sparticuz/chromium'],
    // CommonJS dependencies inside an ES module still call require().
    banner: {
      js: "import { createRequire as createRequireForBundle } from 'node:module'; const require = createRequireForBundle(import.meta.url);",
    },
    sourcemap: true,
    logLevel: 'warning',
  });
  await stop(); // or its service process lives as long as the command
  return outfile;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await bootstrap();
  await bundle();
}

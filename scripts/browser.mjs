// npm run example:browser: bundles examples/browser and serves it on this machine only.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { basename, extname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bootstrap } from './bootstrap.mjs';
import { root } from './run.mjs';

/** @type {Readonly<Record<string, string>>} */
const contentTypes = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8' };

/** What a page needs to be cross-origin isolated, without which threads cannot share memory. */
const isolation = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

/**
 * The bundled example at an address of this machine, until closed.
 * @param {{ isolated: boolean, port?: number }} options whether the page may share memory with threads
 * @returns {Promise<{ url: string, close(): void }>}
 */
export async function serveExample({ isolated, port = 0 }) {
  const { build, stop } = await import('esbuild');
  const folder = join(root, 'examples/browser');
  const { outputFiles } = await build({
    entryPoints: [join(folder, 'main.ts')],
    outdir: folder, // of the names: nothing is written
    write: false,
    bundle: true,
    splitting: true,
    format: 'esm',
    target: 'es2022',
    conditions: ['@deftjs/source'],
    logLevel: 'warning',
  });
  await stop();
  const files = new Map(outputFiles.map(({ path, contents }) => [`/${basename(path)}`, contents]));
  files.set('/', readFileSync(join(folder, 'index.html')));
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const content = files.get(pathname);
    const type = contentTypes[extname(pathname) || '.html'] ?? 'application/octet-stream';
    response.writeHead(content ? 200 : 404, { 'Content-Type': type, ...(isolated ? isolation : {}) });
    response.end(content);
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', () => resolve(undefined)));
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  return { url: `http://127.0.0.1:${address.port}/`, close: () => server.close() };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await bootstrap();
  const { url } = await serveExample({ isolated: true, port: 8300 });
  console.log(`open ${url}  (Ctrl-C ends)`);
}

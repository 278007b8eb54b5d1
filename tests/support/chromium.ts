/**
 * A headless Chromium: `$CHROMIUM`, else the system's, else the one in the npm package `@sparticuz/chromium`, whose
 * SwiftShader the WebGPU suites use too. It is unpacked into the cache on first use; nothing is downloaded.
 */
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { type Browser, chromium } from 'playwright-core';
import { cacheRoot } from '../../packages/tensor/src/node/cache.ts';
import { untar } from '../../packages/tensor/src/node/tar.ts';

/** Where the browser is and the libraries it may need; null, with the reason said, when there is none. */
export function findChromium(): { readonly executable: string; readonly libraries: string } | null {
  const asked = process.env.CHROMIUM;
  if (asked) {
    accessSync(asked, constants.X_OK);
    return { executable: asked, libraries: '' };
  }
  const system = ['chromium', 'chromium-browser', 'google-chrome']
    .flatMap((name) => (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, name)))
    .find((file) => existsSync(file));
  if (system) return { executable: system, libraries: '' };
  if (process.platform !== 'linux' || process.arch !== 'x64') return null;
  const folder = unpacked();
  return folder === null ? null : { executable: join(folder, 'chromium'), libraries: join(folder, 'lib') };
}

function unpacked(): string | null {
  let packed: string;
  try {
    packed = join(dirname(createRequire(import.meta.url).resolve('@sparticuz/chromium')), '../../bin');
  } catch {
    return null;
  }
  const { version } = JSON.parse(readFileSync(join(packed, '../package.json'), 'utf8')) as {
    version: string;
  };
  const folder = join(cacheRoot(), `chromium-${version}`);
  if (existsSync(folder)) return folder;
  // Unpacked beside its place and renamed, so that whoever sees the folder sees all of it.
  const staging = mkdtempSync(`${folder}.`);
  const open = (name: string) => brotliDecompressSync(readFileSync(join(packed, name)));
  writeFileSync(join(staging, 'chromium'), open('chromium.br'), { mode: 0o755 });
  for (const name of ['swiftshader.tar.br', 'al2023.tar.br', 'fonts.tar.br']) {
    for (const file of untar(open(name))) {
      mkdirSync(dirname(join(staging, file.name)), { recursive: true });
      writeFileSync(join(staging, file.name), file.data);
    }
  }
  renameSync(staging, folder);
  return folder;
}

/** Starts the browser, with WebGPU on SwiftShader. @throws Error when there is none */
export async function launchChromium(): Promise<Browser> {
  const found = findChromium();
  if (found === null) throw new Error('no Chromium: set CHROMIUM');
  const { executable, libraries } = found;
  const searched = [process.env.LD_LIBRARY_PATH, libraries].filter(Boolean).join(':');
  return chromium.launch({
    executablePath: executable,
    // Containers have no user namespaces for the sandbox; the page is our own.
    args: ['--no-sandbox', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
    env: { ...process.env, ...(searched && { LD_LIBRARY_PATH: searched }) } as Record<string, string>,
  });
}

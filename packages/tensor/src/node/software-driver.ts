import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { cacheRoot } from './cache.ts';
import { untar } from './tar.ts';

/** A Vulkan driver on disk that is not installed in the system. */
export interface SoftwareDriver {
  /** The manifest that the Vulkan loader reads (the value of VK_DRIVER_FILES). */
  readonly icdFile: string;
  /** Libraries to load before the driver, lowest first. */
  readonly libraries: readonly string[];
  /** A Vulkan loader, for systems without one. */
  readonly loader: string;
}

/** `manifest.json` of a folder made by scripts/setup-lavapipe.mjs; paths are relative to it. */
export interface LavapipeManifest {
  readonly version: string;
  readonly icd: string;
  readonly libraries: readonly string[];
  readonly loader: string;
}

/** The newest lavapipe that `npm run setup:lavapipe` put into the cache, or null. */
export function cachedLavapipe(): SoftwareDriver | null {
  const root = cacheRoot();
  const folder = readdirSync(root)
    .filter((name) => name.startsWith('lavapipe-') && name.endsWith(`-${process.arch}`))
    .filter((name) => existsSync(join(root, name, 'manifest.json')))
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
    .at(-1);
  if (folder === undefined) return null;
  const path = (name: string) => join(root, folder, name);
  const manifest = JSON.parse(readFileSync(path('manifest.json'), 'utf8')) as LavapipeManifest;
  return {
    icdFile: path(manifest.icd),
    libraries: manifest.libraries.map(path),
    loader: path(manifest.loader),
  };
}

const SYSTEM_ICD_FOLDERS = ['/usr/local/share/vulkan/icd.d', '/etc/vulkan/icd.d', '/usr/share/vulkan/icd.d'];

/** The manifest of the lavapipe installed in the system, or null. */
export function systemLavapipe(): string | null {
  for (const folder of SYSTEM_ICD_FOLDERS) {
    if (!existsSync(folder)) continue;
    // lvp_icd.json since Mesa 25, lvp_icd.x86_64.json before.
    const name = readdirSync(folder).find((file) => /^lvp_icd.*\.json$/.test(file));
    if (name !== undefined) return join(folder, name);
  }
  return null;
}

/**
 * SwiftShader as shipped inside the npm package `@sparticuz/chromium`, unpacked into the cache on first use, or null
 * when that package is not installed or this is not x64 Linux, the only platform it serves.
 * @throws when the package holds no driver, or the cache cannot be written
 */
export function bundledSwiftShader(): SoftwareDriver | null {
  if (process.platform !== 'linux' || process.arch !== 'x64') return null;
  const packed = packedSwiftShader();
  if (packed === null) return null;
  const bytes = readFileSync(packed);
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
  const folder = join(cacheRoot(), `swiftshader-${hash}`);
  if (!existsSync(folder)) unpack(brotliDecompressSync(bytes), folder);
  return {
    icdFile: join(folder, 'vk_swiftshader_icd.json'),
    libraries: [],
    loader: join(folder, 'libvulkan.so.1'),
  };
}

function packedSwiftShader(): string | null {
  try {
    // The package exports its entry point only: build/cjs/index.cjs, two folders below its root.
    const entry = createRequire(import.meta.url).resolve('@sparticuz/chromium');
    const file = join(dirname(entry), '..', '..', 'bin', 'swiftshader.tar.br');
    return existsSync(file) ? file : null;
  } catch {
    return null;
  }
}

const SWIFTSHADER_FILES = ['libvk_swiftshader.so', 'libvulkan.so.1', 'vk_swiftshader_icd.json'];

// Unpacks beside the target and renames, so that the target is complete whenever it exists.
function unpack(archive: Uint8Array, folder: string): void {
  mkdirSync(dirname(folder), { recursive: true });
  const staging = mkdtempSync(`${folder}.`);
  try {
    for (const { name, data } of untar(archive)) {
      if (SWIFTSHADER_FILES.includes(basename(name))) writeFileSync(join(staging, basename(name)), data);
    }
    for (const name of SWIFTSHADER_FILES) {
      if (!existsSync(join(staging, name))) throw new Error(`swiftshader: the archive holds no ${name}`);
    }
    renameSync(staging, folder);
  } catch (error) {
    rmSync(staging, { recursive: true, force: true });
    if (!existsSync(folder)) throw error; // else another process was faster
  }
}

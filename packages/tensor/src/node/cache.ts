import { accessSync, constants, mkdirSync, statSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/**
 * The directory that holds what can be made again (drivers, shader caches, autotune results), created when
 * missing: `$DEFT_CACHE`, else `deft` in the user's cache folder, else a private folder in the temporary one.
 * @throws when `$DEFT_CACHE` is set and cannot be written, or when no candidate can be.
 */
export function cacheRoot(): string {
  const asked = process.env.DEFT_CACHE;
  if (asked) return writableFolder(resolve(asked));
  const shared = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  try {
    return writableFolder(join(shared, 'deft'));
  } catch {
    return privateFolder(join(tmpdir(), `deft-${process.getuid?.() ?? 'cache'}`));
  }
}

function writableFolder(path: string): string {
  mkdirSync(path, { recursive: true });
  accessSync(path, constants.W_OK);
  return path;
}

// Anyone may create names in the temporary folder, and we load machine code from the cache.
function privateFolder(path: string): string {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const { uid, mode } = statSync(path);
  const ours = process.getuid === undefined || (uid === process.getuid() && (mode & 0o022) === 0);
  if (!ours) throw new Error(`cache: ${path} can be written by others; set DEFT_CACHE to a folder of yours`);
  return path;
}

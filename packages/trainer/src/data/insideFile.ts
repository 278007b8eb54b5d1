import { constants } from 'node:fs';
import { open, realpath } from 'node:fs/promises';
import { isAbsolute, join, sep } from 'node:path';

/**
 * The bytes of a file named relative to a folder, which must be the real path of that folder.
 *
 * Nothing outside the folder is opened, whatever the name or a symbolic link says, and no device or pipe is waited for.
 *
 * @throws {Error} with a reason in words
 */
export async function readInside(folder: string, name: string, maxBytes: number): Promise<Uint8Array> {
  const leaves = isAbsolute(name) || /^[A-Za-z]:|^\\\\|\0/.test(name) || name.split(/[/\\]/).includes('..');
  if (name === '' || leaves) throw new Error('the name leads out of the folder');
  const path = await realpath(join(folder, name)).catch((error: NodeJS.ErrnoException) => {
    throw new Error(error.code === 'ELOOP' ? 'a link that leads to itself' : 'no such file');
  });
  if (!path.startsWith(folder.endsWith(sep) ? folder : folder + sep)) {
    throw new Error('a link that leads out of the folder');
  }
  // The real path has no links left; were one put there meanwhile, O_NOFOLLOW refuses it.
  const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants;
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`cannot be opened (${error.code})`);
  });
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new Error('not a regular file');
    if (stat.size > maxBytes) {
      throw new Error(`too big: ${stat.size} bytes; expected at most ${maxBytes / 2 ** 20} MiB`);
    }
    return await file.readFile();
  } finally {
    await file.close();
  }
}

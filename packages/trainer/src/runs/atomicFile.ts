/**
 * Files that are either complete or not there, also after a crash or a power cut: written under another name, flushed,
 * renamed, and the folder flushed.
 */
// The module object, not single functions: tests make its functions fail.
import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UserError } from '../userError.ts';

/** Marks what is being written; such names are swept when a run is opened. */
const temporary = '.tmp-';

/** A name beside `path` that nobody else uses. */
export function temporaryPath(path: string): string {
  const unique = `${process.pid}-${Math.random().toString(36).slice(2, 10)}`;
  return join(dirname(path), `.${basename(path)}${temporary}${unique}`);
}

/** Whether a name was made by {@link temporaryPath}. */
export function isTemporary(name: string): boolean {
  return name.startsWith('.') && name.includes(temporary);
}

/**
 * Writes or replaces a file. When this throws, the file is as it was before, or (if only the folder could not be
 * flushed) the new one; it is whole in any case.
 * @throws {UserError} when the disk is full or the folder cannot be written, with the reason
 */
export function writeFileAtomically(path: string, data: Uint8Array | string): void {
  const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
  const draft = temporaryPath(path);
  try {
    writeFileDurably(draft, bytes);
    fs.renameSync(draft, path);
    flushFolder(dirname(path));
  } catch (error) {
    removeQuietly(draft);
    throw diskError(path, bytes.length, error);
  }
}

/** Writes a new file and flushes it to the disk. @throws the file system's error; a partial file may be left */
export function writeFileDurably(path: string, bytes: Uint8Array): void {
  const file = fs.openSync(path, 'wx');
  try {
    // One call may write less than it was given.
    for (let at = 0; at < bytes.length; ) at += fs.writeSync(file, bytes, at);
    fs.fsyncSync(file);
  } finally {
    fs.closeSync(file);
  }
}

/** Makes a folder and those above it where they are missing. @throws {UserError} when the disk refuses */
export function makeFolder(path: string): void {
  try {
    fs.mkdirSync(path, { recursive: true });
  } catch (error) {
    throw diskError(path, 0, error);
  }
}

/** Makes renames and deletions in a folder durable. */
export function flushFolder(path: string): void {
  if (process.platform === 'win32') return; // folders cannot be opened there
  const folder = fs.openSync(path, 'r');
  try {
    fs.fsyncSync(folder);
  } finally {
    fs.closeSync(folder);
  }
}

/** Removes a file or folder of ours; what cannot be removed is swept when the run is next opened. */
export function removeQuietly(path: string): void {
  try {
    fs.rmSync(path, { recursive: true, force: true });
  } catch {}
}

const reasons: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file is larger than allowed here',
  EACCES: 'no permission',
  EPERM: 'no permission',
  EROFS: 'the disk is read-only',
  ENOTDIR: 'a part of the path is not a folder',
  ENOENT: 'the folder is gone',
  EISDIR: 'a folder has this name',
  EEXIST: 'a file has this name',
};

/** The error of a failed write in the user's words; errors of other kinds come back as they are. */
export function diskError(path: string, sizeBytes: number, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined || error instanceof UserError) return error;
  const why = reasons[code] ?? `the system says ${code}`;
  return new UserError(`${path}: cannot write ${sizeBytes} bytes; ${why}${freeSpace(path, code)}`, 6, {
    cause: error,
  });
}

function freeSpace(path: string, code: string): string {
  if (code !== 'ENOSPC') return '';
  try {
    const { bavail, bsize } = fs.statfsSync(dirname(path));
    return ` (${bavail * bsize} bytes free)`;
  } catch {
    return '';
  }
}

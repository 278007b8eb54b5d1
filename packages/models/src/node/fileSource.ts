/** safetensors files on disk: opened for range reads, and written so that a file is whole or absent. */
import { type FileHandle, open } from 'node:fs/promises';
import {
  type ByteSource,
  type HostTensor,
  openSafetensors,
  type SafetensorsFile,
  writeSafetensors,
} from '@deftjs/tensor';
import { replaceFile } from '@deftjs/tensor/node';

/** A source over an open file; `close` it when everything has been read. */
export interface FileSource extends ByteSource {
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The file, open for range reads. Rejects with the system's error when it cannot be opened. */
export async function openFileSource(path: string): Promise<FileSource> {
  const handle = await open(path, 'r');
  const { size } = await handle.stat();
  const close = () => handle.close();
  return {
    name: path,
    size,
    read: (start, end) => readRange(handle, start, end),
    close,
    [Symbol.asyncDispose]: close,
  };
}

// One call may return fewer bytes than asked for (2 GiB at most); none at all means that the file has ended.
async function readRange(handle: FileHandle, start: number, end: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - start);
  let filled = 0;
  while (filled < bytes.length) {
    const length = Math.min(bytes.length - filled, 2 ** 30);
    const { bytesRead } = await handle.read(bytes, filled, length, start + filled);
    if (bytesRead === 0) return bytes.subarray(0, filled);
    filled += bytesRead;
  }
  return bytes;
}

export interface OpenSafetensorsFile extends SafetensorsFile, AsyncDisposable {
  close(): Promise<void>;
}

/**
 * The safetensors file at the path; each tensor is read from disk when asked for.
 * @throws SafetensorsError when it is not a valid one
 */
export async function openSafetensorsFile(path: string): Promise<OpenSafetensorsFile> {
  const source = await openFileSource(path);
  try {
    const file = await openSafetensors(source);
    return { ...file, close: source.close, [Symbol.asyncDispose]: source.close };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** All tensors of the safetensors file at the path. @throws SafetensorsError */
export async function readSafetensorsFile(path: string): Promise<Map<string, HostTensor>> {
  await using file = await openSafetensorsFile(path);
  const tensors = new Map<string, HostTensor>();
  for (const name of file.names) tensors.set(name, await file.read(name));
  return tensors;
}

/** Writes a safetensors file, whole or not at all (`replaceFile`). */
export async function writeSafetensorsFile(
  path: string,
  tensors: Readonly<Record<string, HostTensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await replaceFile(path, writeSafetensors(tensors, metadata));
}

/** A regular file of a tar archive. */
export interface TarFile {
  readonly name: string;
  readonly data: Uint8Array;
}

const BLOCK_BYTES = 512;

/**
 * The regular files of a ustar archive, in order; other entries are skipped.
 * @throws when a header's size is not octal or reaches past the end of the archive
 */
export function* untar(archive: Uint8Array): Generator<TarFile> {
  const field = (from: number, length: number) =>
    new TextDecoder().decode(archive.subarray(from, from + length)).replace(/\0.*/s, '');
  for (let at = 0; at + BLOCK_BYTES <= archive.length && archive[at] !== 0; ) {
    const name = field(at, 100);
    const sizeBytes = Number.parseInt(field(at + 124, 12), 8);
    const type = field(at + 156, 1);
    const start = at + BLOCK_BYTES;
    if (!(sizeBytes >= 0 && start + sizeBytes <= archive.length)) {
      throw new Error(`tar: bad size of "${name}" at byte ${at}; got "${field(at + 124, 12)}"`);
    }
    if (type === '0' || type === '') yield { name, data: archive.subarray(start, start + sizeBytes) };
    at = start + Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
  }
}

/**
 * Checkpoints: folders `step-000123` of opaque files with a manifest of their SHA-256.
 *
 * Saved under another name, the manifest last, everything flushed, then renamed: a folder with its own name is complete.
 * Older ones are deleted only when the new one is in place, so that at every moment min(keep, saved) are complete.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import {
  diskError,
  flushFolder,
  isTemporary,
  removeQuietly,
  temporaryPath,
  writeFileDurably,
} from './atomicFile.ts';

/** What a checkpoint holds: file names and their bytes. */
export type CheckpointFiles = ReadonlyMap<string, Uint8Array>;

/** A checkpoint read back and found whole. */
export interface Checkpoint {
  readonly step: number;
  readonly path: string;
  readonly files: CheckpointFiles;
}

/** A checkpoint that cannot be used, and why. */
export interface RejectedCheckpoint {
  readonly path: string;
  readonly reason: string;
}

interface Manifest {
  readonly format: 1;
  readonly step: number;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
  /** Of the other fields, as JSON: a damaged manifest must not pass for one of fewer files. */
  readonly sha256: string;
}

const manifestFile = 'manifest.json';
const stepPattern = /^step-(\d{6,})$/;

function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The folder name of a step's checkpoint. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`;
}

/**
 * Saves a checkpoint in `folder`, which must exist, and returns its path. Then deletes the steps before it but for the
 * newest `keep - 1`, and steps after it that are damaged. A step that has a checkpoint already gets the new one in its
 * place.
 *
 * @throws {UserError} when the disk refuses; the checkpoints saved before are then untouched
 */
export function saveCheckpoint(folder: string, step: number, files: CheckpointFiles, keep: number): string {
  const path = join(folder, checkpointName(step));
  const draft = temporaryPath(path);
  const aside = temporaryPath(path);
  const content = {
    format: 1 as const,
    step,
    files: Object.fromEntries(
      [...files].map(([name, bytes]) => [name, { bytes: bytes.length, sha256: sha256(bytes) }]),
    ),
  };
  const manifest: Manifest = { ...content, sha256: sha256(JSON.stringify(content)) };
  try {
    fs.mkdirSync(draft);
    for (const [name, bytes] of files) writeFileDurably(join(draft, checkName(name)), bytes);
    writeFileDurably(join(draft, manifestFile), new TextEncoder().encode(JSON.stringify(manifest, null, 2)));
    flushFolder(draft);
    if (fs.existsSync(path)) fs.renameSync(path, aside); // a folder cannot be renamed over one with files
    fs.renameSync(draft, path);
    flushFolder(folder);
  } catch (error) {
    removeQuietly(draft);
    if (fs.existsSync(aside) && !fs.existsSync(path)) fs.renameSync(aside, path);
    const sizeBytes = [...files.values()].reduce((sum, bytes) => sum + bytes.length, 0);
    throw diskError(path, sizeBytes, error);
  }
  removeQuietly(aside);
  rotate(folder, step, keep);
  return path;
}

function rotate(folder: string, step: number, keep: number): void {
  const saved = listCheckpoints(folder);
  const older = saved.filter((one) => one.step < step).slice(keep - 1);
  // Only those that the run did not go on from when it was resumed.
  const newer = saved.filter(
    (one) => one.step > step && typeof readCheckpoint(one.path, one.step) === 'string',
  );
  for (const { path } of [...older, ...newer]) removeWhole(path);
}

/** Removes a folder so that a crash leaves it whole or under a name that is swept, never a part of it under its own. */
function removeWhole(path: string): void {
  const aside = temporaryPath(path);
  try {
    fs.renameSync(path, aside);
  } catch {
    return; // it stays as it is; the next rotation tries again
  }
  removeQuietly(aside);
}

function checkName(name: string): string {
  if (!/^[\w-][\w.-]*$/.test(name) || name === manifestFile) {
    throw new RangeError(
      `checkpoint: a file name of letters, digits, dots and dashes is expected; got "${name}"`,
    );
  }
  return name;
}

/** The checkpoints of a folder by name, newest first; none when there is no such folder. */
export function listCheckpoints(folder: string): { readonly step: number; readonly path: string }[] {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder)
    .flatMap((name) => {
      const digits = stepPattern.exec(name)?.[1];
      return digits === undefined ? [] : [{ step: Number(digits), path: join(folder, name) }];
    })
    .sort((a, b) => b.step - a.step);
}

/** The newest checkpoint that is whole, or null, and the newer ones that are not, each with the reason. */
export function newestCheckpoint(folder: string): {
  readonly checkpoint: Checkpoint | null;
  readonly rejected: readonly RejectedCheckpoint[];
} {
  const rejected: RejectedCheckpoint[] = [];
  for (const { step, path } of listCheckpoints(folder)) {
    const found = readCheckpoint(path, step);
    if (typeof found !== 'string') return { checkpoint: found, rejected };
    rejected.push({ path, reason: found });
  }
  return { checkpoint: null, rejected };
}

/** The checkpoint at a path, or the reason why it cannot be used. */
function readCheckpoint(path: string, step: number): Checkpoint | string {
  const manifest = readManifest(path);
  if (typeof manifest === 'string') return manifest;
  if (manifest.step !== step) return `${manifestFile} is that of step ${manifest.step}`;
  const files = new Map<string, Uint8Array>();
  for (const [name, expected] of Object.entries(manifest.files)) {
    let bytes: Uint8Array;
    try {
      bytes = fs.readFileSync(join(path, checkName(name)));
    } catch {
      return `${name} is missing`;
    }
    if (bytes.length !== expected.bytes)
      return `${name} has ${bytes.length} bytes instead of ${expected.bytes}`;
    if (sha256(bytes) !== expected.sha256) return `${name} is damaged: its SHA-256 differs`;
    files.set(name, bytes);
  }
  return { step, path, files };
}

function readManifest(path: string): Manifest | string {
  try {
    const manifest = JSON.parse(fs.readFileSync(join(path, manifestFile), 'utf8')) as Partial<Manifest>;
    const { sha256: expected, ...content } = manifest;
    if (sha256(JSON.stringify(content)) !== expected)
      return `${manifestFile} is damaged: its SHA-256 differs`;
    if (manifest.format !== 1) return `${manifestFile} is of another format`;
    return manifest as Manifest;
  } catch {
    return `${manifestFile} is missing or damaged`;
  }
}

/** Deletes every checkpoint of a folder, and what interrupted saves left. */
export function removeCheckpoints(folder: string): void {
  for (const { path } of listCheckpoints(folder)) removeWhole(path);
  sweep(folder);
}

/** Deletes what interrupted writes left in a folder. Only for a folder that no other process writes to. */
export function sweep(folder: string): void {
  if (!fs.existsSync(folder)) return;
  for (const name of fs.readdirSync(folder)) if (isTemporary(name)) removeQuietly(join(folder, name));
}

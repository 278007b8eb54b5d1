/**
 * A run's folder: its configuration, checkpoints, pictures and report.
 *
 * The marker file lists what `deft` wrote there, so that starting anew deletes that and nothing else. The lock file
 * holds the id of the process that is at work.
 */
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { UserError } from '../userError.ts';
import { diskError, makeFolder, writeFileAtomically } from './atomicFile.ts';
import {
  type CheckpointFiles,
  listCheckpoints,
  newestCheckpoint,
  removeCheckpoints,
  saveCheckpoint,
  sweep,
} from './checkpoints.ts';

const markerFile = '.deft-run.json';
const lockFile = '.deft-lock';
const checkpointFolder = 'checkpoints';

interface Marker {
  readonly madeBy: 'deft';
  readonly command: string;
  /** Names relative to the run's folder, recorded before they are written. */
  readonly files: readonly string[];
}

/** What to do with a folder that a run has used before. */
export type RunMode = 'new' | 'resume' | 'fresh';

export interface RunRequest {
  /** The folder that holds the runs; made when missing. */
  readonly root: string;
  readonly name: string;
  /** `new` refuses a folder that is in use; `resume` goes on in it; `fresh` deletes what deft wrote there. */
  readonly mode: RunMode;
  /** The command that runs, such as "train". */
  readonly command: string;
}

/** An open run. Disposing it gives the folder free for another process. */
export interface Run extends Disposable {
  readonly name: string;
  readonly folder: string;
  /** Whether this goes on with an earlier part of the run. */
  readonly isResumed: boolean;
  /** A file that the run has written, by this part or an earlier one; null when it has not. */
  read(name: string): Uint8Array | null;
  /** Writes or replaces a file of the run, whole or not at all, and returns its path. @throws {UserError} */
  write(name: string, data: Uint8Array | string): string;
  /** Adds to the end of a file of the run, which is made when missing; a crash can tear what was added. @throws {UserError} */
  append(name: string, data: Uint8Array | string): void;
  /** Saves a checkpoint and deletes all but the newest `keep`. @throws {UserError} */
  saveCheckpoint(step: number, files: CheckpointFiles, keep: number): string;
  /** As the function of the same name. */
  newestCheckpoint(): ReturnType<typeof newestCheckpoint>;
}

/**
 * Finds out whether a run can be opened, without touching anything: before hours, or seconds, of work for it.
 * @throws {UserError} as {@link openRun}, but not for another process at work
 */
export function checkRun({ root, name, mode, command }: RunRequest): void {
  const folder = join(root, name);
  checkMode(folder, inspect(folder), mode, command);
}

/**
 * Opens a run's folder for this process alone.
 *
 * @throws {UserError} when the folder is in use by another process, holds a run already (`new`), no run (`resume`), or
 *   things that deft did not make
 */
export function openRun(request: RunRequest): Run {
  const { root, name, mode, command } = request;
  const folder = join(root, name);
  const before = inspect(folder);
  checkMode(folder, before, mode, command);
  makeFolder(folder);
  const unlock = lock(folder);
  try {
    const checkpoints = join(folder, checkpointFolder);
    const earlier = typeof before === 'object' ? before.files.map(checkedName) : [];
    const used = [folder, checkpoints, ...earlier.map((file) => dirname(join(folder, file)))];
    for (const one of new Set(used)) sweep(one);
    if (mode === 'fresh') removeMade(folder, earlier);
    const made = new Set(mode === 'resume' ? earlier : []);
    const mark = (): void => {
      const marker: Marker = { madeBy: 'deft', command, files: [...made] };
      writeFileAtomically(join(folder, markerFile), JSON.stringify(marker, null, 2));
    };
    mark();
    /** Where a file goes, recorded as ours before it is there. */
    const place = (file: string): string => {
      const path = join(folder, checkedName(file));
      if (!made.has(file)) {
        made.add(file);
        mark();
      }
      makeFolder(dirname(path));
      return path;
    };
    return {
      name,
      folder,
      isResumed: mode === 'resume',
      read: (file) => (made.has(file) ? readIfThere(join(folder, file)) : null),
      write(file, data) {
        const path = place(file);
        writeFileAtomically(path, data);
        return path;
      },
      append(file, data) {
        const path = place(file);
        try {
          fs.appendFileSync(path, data);
        } catch (error) {
          throw diskError(path, data.length, error);
        }
      },
      saveCheckpoint(step, files, keep) {
        makeFolder(checkpoints);
        return saveCheckpoint(checkpoints, step, files, keep);
      },
      newestCheckpoint: () => newestCheckpoint(checkpoints),
      [Symbol.dispose]: unlock,
    };
  } catch (error) {
    unlock();
    throw error;
  }
}

type Found = Marker | 'nothing' | 'foreign';

function checkMode(folder: string, found: Found, mode: RunMode, command: string): void {
  const refuse = (problem: string): never => {
    throw new UserError(`${folder}: ${problem}`, 2);
  };
  if (found === 'foreign') refuse('the folder holds files that deft did not make; choose another name');
  if (found === 'nothing' && mode === 'resume') refuse('there is no run to resume; leave --resume out');
  if (typeof found !== 'object') return;
  if (mode === 'new') refuse(whatNow(folder));
  if (found.command !== command) {
    refuse(`a run of deft ${found.command}, not of deft ${command}; choose another name`);
  }
}

/** What stands at a run's folder: nothing (or an empty folder), things of others, or a run. */
function inspect(folder: string): Found {
  if (!fs.existsSync(folder)) return 'nothing';
  if (!fs.statSync(folder).isDirectory()) return 'foreign';
  try {
    const marker = JSON.parse(fs.readFileSync(join(folder, markerFile), 'utf8')) as Partial<Marker>;
    if (marker.madeBy === 'deft' && Array.isArray(marker.files)) return marker as Marker;
    return 'foreign';
  } catch {
    // A crash before the marker was in place leaves a lock or a draft of it.
    const others = fs
      .readdirSync(folder)
      .filter((name) => !name.startsWith('.deft-') && !name.startsWith('..deft-'));
    return others.length === 0 ? 'nothing' : 'foreign';
  }
}

function whatNow(folder: string): string {
  const newest = listCheckpoints(join(folder, checkpointFolder))[0];
  const state = newest
    ? `a run is here already (checkpoint at step ${newest.step})`
    : 'a run is here already';
  return `${state}; give --resume to go on with it or --fresh to delete it and start anew`;
}

/** Deletes the files and the checkpoints; folders only when they are then empty. */
function removeMade(folder: string, files: readonly string[]): void {
  const checkpoints = join(folder, checkpointFolder);
  removeCheckpoints(checkpoints);
  const folders = new Set([checkpoints]);
  for (const file of files) {
    const path = join(folder, file);
    fs.rmSync(path, { force: true });
    for (let above = dirname(path); above !== folder; above = dirname(above)) folders.add(above);
  }
  const deepestFirst = [...folders].sort((a, b) => b.length - a.length);
  for (const path of deepestFirst) {
    if (fs.existsSync(path) && fs.readdirSync(path).length === 0) fs.rmdirSync(path);
  }
}

function checkedName(name: string): string {
  const parts = name.split('/');
  if (!parts.every((part) => /^[\w-][\w.-]*$/.test(part)) || parts[0] === checkpointFolder) {
    throw new RangeError(`run: expected a file name inside the run's folder; got "${name}"`);
  }
  return name;
}

function readIfThere(path: string): Uint8Array | null {
  return fs.existsSync(path) ? fs.readFileSync(path) : null;
}

/** Takes the folder for this process; the result gives it back. */
function lock(folder: string): () => void {
  const path = join(folder, lockFile);
  const holder = Number(readIfThere(path)?.toString() ?? Number.NaN);
  if (holder !== process.pid && isAlive(holder)) {
    throw new UserError(
      `${folder}: process ${holder} is at work on this run; wait for it, or delete ${path} if it is another program`,
    );
  }
  fs.rmSync(path, { force: true }); // of a process that was killed
  try {
    fs.writeFileSync(path, String(process.pid), { flag: 'wx' });
  } catch (error) {
    throw diskError(path, 0, error);
  }
  return () => fs.rmSync(path, { force: true });
}

function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

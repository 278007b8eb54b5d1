/**
 * The loop that every training job is: steps, progress, checkpoints, an orderly stop.
 *
 * A job's data are a pure function of the step number and its state is one tree of tensors, so a checkpoint is that tree
 * and the losses so far, and a resumed run computes what an uninterrupted one would have.
 */
import { eventLoopTurn, type Tree } from '@deftjs/tensor';
import { beat, openProgress } from '../progress/index.ts';
import { openStepLog, type Run, type StepValues } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { decodeState, encodeState } from './state.ts';

const stateFile = 'state.safetensors';
const lossFile = 'loss.json';
/** Steps that the log may lag behind. */
const logEvery = 20;

/** What a step gives. */
export interface Taken<S> {
  /** The state that it was, where the loss or anything measured is not finite. */
  readonly state: S;
  readonly loss: number;
  /** What else is logged, by name. */
  readonly measured: StepValues;
}

/** How a state is kept in checkpoints: as another tree, whose tensors are new ones or the state's own. */
export interface Kept<S extends Tree, K extends Tree> {
  /** A tree like the kept one, whose shapes and types alone are looked at. */
  like(state: S): K;
  of(state: S): Promise<K>;
  stateOf(kept: K): Promise<S>;
}

export interface Steps<S extends Tree, K extends Tree = S> {
  readonly label: string;
  readonly run: Run;
  readonly total: number;
  readonly checkpointEvery: number;
  readonly keepCheckpoints: number;
  /** The state that a new run starts from; a resumed one takes its shapes from it. */
  readonly first: S;
  /** Default: as it is. */
  readonly kept?: Kept<S, K>;
  /** Takes step `step` (counted from 0); the state passed in is used up. */
  step(state: S, step: number): Promise<Taken<S>>;
  /** Called when `done` steps are done, before a checkpoint of them is saved. */
  after?(state: S, done: number): Promise<void>;
  /** Where a step that gave no finite numbers went wrong, in words. */
  fault?(state: S, step: number): Promise<string>;
  /** Asked before each step; true ends the run early, with a checkpoint. */
  stop(): boolean;
}

export interface Finished<S> {
  readonly state: S;
  readonly done: number;
  /** The loss of each step from the first. */
  readonly losses: readonly number[];
}

/** The state and the losses that the newest whole checkpoint holds, or null; tells of checkpoints it has to pass over. */
async function restore<S extends Tree, K extends Tree>(
  run: Run,
  first: S,
  kept: Kept<S, K>,
): Promise<Finished<S> | null> {
  const { checkpoint, rejected } = run.newestCheckpoint();
  for (const { path, reason } of rejected) console.error(`deft: ${path} is passed over: ${reason}`);
  if (checkpoint === null) return null;
  const bytes = (name: string): Uint8Array => {
    const found = checkpoint.files.get(name);
    if (found === undefined) throw new UserError(`${checkpoint.path}: ${name} is missing`);
    return found;
  };
  const name = `${checkpoint.path}/${stateFile}`;
  const saved = await decodeState(name, bytes(stateFile), kept.like(first));
  const losses = JSON.parse(new TextDecoder().decode(bytes(lossFile))) as number[];
  return { state: await kept.stateOf(saved), done: checkpoint.step, losses };
}

/**
 * Runs the steps that are left.
 * @throws {UserError} when the loss or anything measured is not finite; the checkpoint is of the step before
 */
export async function runSteps<S extends Tree, K extends Tree = S>(job: Steps<S, K>): Promise<Finished<S>> {
  const { run, total, checkpointEvery, keepCheckpoints } = job;
  const asItIs: Kept<S, S> = {
    like: (state) => state,
    of: async (state) => state,
    stateOf: async (state) => state,
  };
  const kept = job.kept ?? (asItIs as unknown as Kept<S, K>);
  const before = await restore(run, job.first, kept);
  let state = before?.state ?? job.first;
  let done = before?.done ?? 0;
  const losses = [...(before?.losses ?? [])];
  let saved = before === null ? -1 : done;
  const save = async (): Promise<void> => {
    if (saved === done) return;
    beat('other');
    log.flush();
    const files = new Map([
      [stateFile, await encodeState(await kept.of(state))],
      [lossFile, new TextEncoder().encode(JSON.stringify(losses))],
    ]);
    run.saveCheckpoint(done, files, keepCheckpoints);
    saved = done;
  };
  const log = openStepLog(run, done);
  using progress = openProgress({ label: job.label, total, done });
  if (done > 0) progress.note(`deft: going on after step ${done}`);
  while (done < total && !job.stop()) {
    beat('step');
    const taken = await job.step(state, done);
    state = taken.state;
    const odd = Object.entries({ loss: taken.loss, ...taken.measured }).find(
      ([, value]) => !Number.isFinite(value),
    );
    if (odd) {
      await save();
      const fault = job.fault ? `${await job.fault(state, done)}; ` : '';
      throw new UserError(
        `${run.name}: the ${odd[0].replaceAll('_', ' ')} of step ${done + 1} is ${odd[1]}; ${fault}the weights are as they ` +
          'were before it; lower the learning rate and resume',
        4,
      );
    }
    done += 1;
    losses.push(taken.loss);
    log.add(done, { loss: taken.loss, ...taken.measured });
    if (done % logEvery === 0) log.flush();
    progress.update(done, taken.loss);
    await job.after?.(state, done);
    if (done % checkpointEvery === 0) await save();
    await eventLoopTurn();
    progress.begin();
  }
  await save();
  return { state, done, losses };
}

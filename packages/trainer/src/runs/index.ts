/** Folders of runs: atomic files, checkpoints, resuming. */
export { makeFolder, writeFileAtomically } from './atomicFile.ts';
export {
  type Checkpoint,
  type CheckpointFiles,
  checkpointName,
  listCheckpoints,
  newestCheckpoint,
  type RejectedCheckpoint,
  saveCheckpoint,
} from './checkpoints.ts';
export { checkRun, openRun, type Run, type RunMode, type RunRequest } from './run.ts';
export { openStepLog, readStepLog, type StepLine, type StepLog, type StepValues } from './stepLog.ts';
export { type Supervision, supervise } from './supervise.ts';

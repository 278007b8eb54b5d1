/** What a long job shows, and how it is stopped. */
export { type Beat, beat } from './heartbeat.ts';
export { type Interruption, interruptible } from './interrupt.ts';
export {
  formatDuration,
  openProgress,
  type Progress,
  type ProgressOptions,
  type ProgressStream,
} from './progress.ts';

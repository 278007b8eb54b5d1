/**
 * What each step measured: log.jsonl, one object a line for people and programs, and the same numbers as an event file
 * for TensorBoard. A resumed run takes both up where its checkpoint stands.
 */
import { eventFileHeader, scalarEvent } from './eventFile.ts';
import type { Run } from './run.ts';

/** Numbers of one step by name, such as loss and learning_rate. */
export type StepValues = Readonly<Record<string, number>>;

const logFile = 'log.jsonl';
const eventFile = 'tensorboard/events.out.tfevents.deft';

/** What one step measured. */
export interface StepLine {
  /** Counted from 1. */
  readonly step: number;
  /** Seconds since 1970. */
  readonly time: number;
  readonly values: StepValues;
}

/** The log of a run. */
export interface StepLog {
  /** Notes a step, counted from 1; it reaches the disk with the next flush. */
  add(step: number, values: StepValues): void;
  /** Writes what was noted. @throws {UserError} when the disk cannot take it */
  flush(): void;
}

/** Opens the log of a run of which `done` steps count: lines of later ones are of work that was lost. */
export function openStepLog(run: Run, done: number): StepLog {
  const kept = linesOf(run.read(logFile)).filter(({ step }) => step <= done);
  run.write(logFile, kept.map(asJson).join(''));
  run.write(eventFile, Buffer.concat([eventFileHeader(kept[0]?.time ?? now()), ...kept.map(asEvent)]));
  let pending: StepLine[] = [];
  return {
    add(step, values) {
      pending.push({ step, time: now(), values });
    },
    flush() {
      if (pending.length === 0) return;
      run.append(logFile, pending.map(asJson).join(''));
      run.append(eventFile, Buffer.concat(pending.map(asEvent)));
      pending = [];
    },
  };
}

/** The steps in the log of a run, in order. */
export function readStepLog(run: Run): readonly StepLine[] {
  return linesOf(run.read(logFile));
}

function now(): number {
  return Date.now() / 1000;
}

function asJson({ step, time, values }: StepLine): string {
  return `${JSON.stringify({ step, time, ...values })}\n`;
}

function asEvent({ step, time, values }: StepLine): Uint8Array {
  return scalarEvent(step, time, values);
}

/** The whole lines of a log; a crash can have torn the last. */
function linesOf(log: Uint8Array | null): StepLine[] {
  const text = new TextDecoder().decode(log ?? new Uint8Array());
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const { step, time, ...values } = JSON.parse(line) as { step: number; time: number } & StepValues;
      return { step, time, values };
    });
}

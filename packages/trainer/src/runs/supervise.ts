/**
 * A process that watches a job's process: starts it again, from its newest checkpoint, when it hangs or dies. A hung
 * device cannot be stopped from inside (reliability.md, B11), a killed process frees it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { median } from '../metrics/estimate.ts';
import type { Beat } from '../progress/index.ts';
import { deviceLostStatus } from '../userError.ts';

export interface Supervision {
  /** Node's arguments of the job; `again` after it has been started before. */
  readonly args: (again: boolean) => readonly string[];
  /** Seconds that a step may take before the job counts as hung; null: 20 times its median step, 60 s at least. */
  readonly hangSeconds: number | null;
  /** Starts again within an hour, at most. */
  readonly restarts?: number;
  /** Prints a line for the user. */
  readonly tell?: (line: string) => void;
}

/** Seconds for what is no step: a job reads weights, compiles, draws and writes. */
const otherSeconds = 1800;
const hourMs = 3_600_000;
const lookEveryMs = 250;

/** How a job's process ended: by itself with a status, or not. */
type End = { readonly status: number } | { readonly fault: string };

/** Runs the job to its end and resolves to its exit status; that of a lost device after too many starts. */
export async function supervise(supervision: Supervision): Promise<number> {
  const { args, restarts = 3, tell = (line) => console.error(line) } = supervision;
  const faults: number[] = [];
  for (let again = false; ; again = true) {
    const end = await runOnce(args(again), supervision.hangSeconds);
    if ('status' in end) return end.status;
    const now = performance.now();
    while (faults.length > 0 && now - faults[0]! > hourMs) faults.shift();
    faults.push(now);
    if (faults.length > restarts) {
      tell(
        `deft: the job ${end.fault}; it was started ${restarts + 1} times within an hour, which is enough`,
      );
      return deviceLostStatus;
    }
    tell(`deft: the job ${end.fault}; going on from its newest checkpoint (${faults.length} of ${restarts})`);
  }
}

async function runOnce(args: readonly string[], hangSeconds: number | null): Promise<End> {
  const child = spawn(process.execPath, args, { stdio: ['inherit', 'inherit', 'inherit', 'ipc'] });
  const watch = watchBeats(child, hangSeconds);
  const asked = passSignals(child);
  try {
    const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (...how) => resolve(how));
    });
    if (watch.hung !== null) return { fault: `gave no sign of life for ${watch.hung.toFixed(0)} s` };
    if (signal !== null && !asked()) return { fault: `was ended by ${signal}` };
    if (code === deviceLostStatus) return { fault: 'lost its device' };
    return { status: code ?? 1 };
  } finally {
    watch.stop();
    asked.stop();
  }
}

/** Kills the child when a step, or what else it does, takes too long. */
function watchBeats(child: ChildProcess, hangSeconds: number | null) {
  const taken: number[] = []; // seconds of the last steps
  let doing: Beat = 'other';
  let since = performance.now();
  let hung: number | null = null;
  child.on('message', (next: Beat) => {
    const now = performance.now();
    if (doing === 'step') taken.push((now - since) / 1000);
    if (taken.length > 100) taken.shift();
    [doing, since] = [next, now];
  });
  const limit = (): number => {
    if (doing === 'other' || taken.length === 0) return otherSeconds;
    return hangSeconds ?? Math.max(60, 20 * median(taken));
  };
  const timer = setInterval(() => {
    const silent = (performance.now() - since) / 1000;
    if (silent <= limit()) return;
    hung = silent;
    clearInterval(timer);
    child.kill('SIGKILL');
  }, lookEveryMs);
  return {
    get hung() {
      return hung;
    },
    stop: () => clearInterval(timer),
  };
}

/** Passes on what the user asks for; whether anything was. */
function passSignals(child: ChildProcess) {
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  let any = false;
  const listener = (name: NodeJS.Signals): void => {
    any = true;
    child.kill(name);
  };
  for (const name of names) process.on(name, listener);
  const asked = () => any;
  return Object.assign(asked, {
    stop: () => {
      for (const name of names) process.off(name, listener);
    },
  });
}

/** What a long job shows while it works: a bar in a terminal, a plain line now and then in a log. */
import { SingleBar } from 'cli-progress';

/** Where progress is shown. */
export type ProgressStream = NodeJS.WritableStream & { readonly isTTY?: boolean };

export interface ProgressOptions {
  /** What is being done, such as "train robot". */
  readonly label: string;
  /** The step that the job ends with. */
  readonly total: number;
  /** Steps done before, when a run is resumed; 0 by default. */
  readonly done?: number;
  /** `process.stderr` by default. */
  readonly stream?: ProgressStream;
  /** Milliseconds of a clock that never goes back; for tests. */
  readonly now?: () => number;
}

/** Progress of one job. Disposing it ends the bar and leaves the last state on the screen. */
export interface Progress extends Disposable {
  /** Says that `step` is done, with its loss. */
  update(step: number, loss: number): void;
  /** Says that the next step begins now: what was done since the last one (samples, a checkpoint) counts for no speed. */
  begin(): void;
  /** Prints a line without disturbing the bar. */
  note(line: string): void;
}

/** At most one plain line in this time. */
const plainEveryMs = 5000;
/** Steps that the shown loss is averaged over. */
const lossWindow = 50;
/** The shown speed forgets what is older than about this. */
const speedWindowMs = 10_000;

/** Starts to show progress: on the terminal if the stream is one, else as lines. */
export function openProgress(options: ProgressOptions): Progress {
  const { label, total, done = 0, stream = process.stderr, now = () => performance.now() } = options;
  const meter = stepMeter(done, now);
  return stream.isTTY
    ? terminalProgress(label, total, done, stream, meter)
    : plainProgress(label, total, stream, meter, now);
}

type Meter = ReturnType<typeof stepMeter>;

/** Smoothed loss and speed. The first step is left out of the speed: it compiles. */
function stepMeter(done: number, now: () => number) {
  let last = { step: done, timeMs: now() };
  let stepMs = Number.NaN;
  let steps = 0;
  let average = 0;
  let weight = 0;
  return {
    update(step: number, loss: number): void {
      const timeMs = now();
      const perStep = (timeMs - last.timeMs) / Math.max(1, step - last.step);
      steps += 1;
      if (steps === 2) stepMs = perStep;
      if (steps > 2) {
        const keep = Math.exp(-(timeMs - last.timeMs) / speedWindowMs);
        stepMs = keep * stepMs + (1 - keep) * perStep;
      }
      last = { step, timeMs };
      if (!Number.isFinite(loss)) return;
      const keep = 1 - 1 / lossWindow;
      average = keep * average + (1 - keep) * loss;
      weight = keep * weight + (1 - keep);
    },
    begin(): void {
      last = { ...last, timeMs: now() };
    },
    /** What is shown, as words; null while it is not known. */
    words(total: number): { loss: string; speed: string | null; left: string | null } {
      return {
        loss: weight === 0 ? '-' : formatLoss(average / weight),
        speed: Number.isFinite(stepMs) ? formatSpeed(stepMs) : null,
        left: Number.isFinite(stepMs) ? formatDuration(((total - last.step) * stepMs) / 1000) : null,
      };
    },
  };
}

function formatLoss(loss: number): string {
  return loss !== 0 && Math.abs(loss) < 1e-3 ? loss.toExponential(2) : loss.toFixed(4);
}

/** "12.5 steps/s", or "3.1 s/step" when a step takes longer than a second. */
function formatSpeed(stepMs: number): string {
  return stepMs > 1000 ? `${(stepMs / 1000).toFixed(1)} s/step` : `${(1000 / stepMs).toPrecision(3)} steps/s`;
}

/** Seconds as "42s", "3m05s" or "2h07m"; negative and not finite counts as none. */
export function formatDuration(seconds: number): string {
  const whole = Number.isFinite(seconds) ? Math.max(0, Math.round(seconds)) : 0;
  const two = (value: number): string => String(value).padStart(2, '0');
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
}

function terminalProgress(
  label: string,
  total: number,
  done: number,
  stream: ProgressStream,
  meter: Meter,
): Progress {
  const bar = new SingleBar({
    format: `${label} [{bar}] {value}/{total}  loss {loss}  {speed}  {left} left`,
    barCompleteChar: '=',
    barIncompleteChar: ' ',
    barsize: 28,
    hideCursor: true,
    fps: 8,
    stopOnComplete: false,
    gracefulExit: false, // signals are ours
    stream,
  });
  const words = () => {
    const { loss, speed, left } = meter.words(total);
    return { loss, speed: speed ?? 'starting', left: left ?? '-' };
  };
  bar.start(total, done, words());
  // The bar hides the cursor and stops lines from wrapping: a process that ends at once must put that back.
  const stop = (): void => bar.stop();
  process.once('exit', stop);
  return {
    update(step, loss) {
      meter.update(step, loss);
      bar.update(step, words());
    },
    begin: meter.begin,
    note(line) {
      stream.write(`\r\u001b[K${line}\n`); // over the bar, which the next tick draws anew
      bar.render();
    },
    [Symbol.dispose]() {
      process.off('exit', stop);
      bar.stop();
    },
  };
}

function plainProgress(
  label: string,
  total: number,
  stream: ProgressStream,
  meter: Meter,
  now: () => number,
): Progress {
  let lastMs = Number.NEGATIVE_INFINITY;
  let unsaid: number | null = null;
  const say = (step: number): void => {
    const { loss, speed, left } = meter.words(total);
    const rest = left !== null && step < total ? `${left} left` : null;
    const parts = [`step ${step} of ${total}`, `loss ${loss}`, speed, rest].filter((part) => part !== null);
    stream.write(`${label}: ${parts.join(', ')}\n`);
    lastMs = now();
    unsaid = null;
  };
  return {
    update(step, loss) {
      meter.update(step, loss);
      unsaid = step;
      if (now() - lastMs >= plainEveryMs) say(step);
    },
    begin: meter.begin,
    note: (line) => void stream.write(`${line}\n`),
    [Symbol.dispose]() {
      if (unsaid !== null) say(unsaid);
    },
  };
}

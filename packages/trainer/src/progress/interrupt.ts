/** Ctrl-C: the first asks the work to stop at its next step, the second ends the process at once. */

/** Signals that ask for an end, with the exit status that says so. */
const statusOf = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type StopSignal = keyof typeof statusOf;

/** A terminal and a supervisor may both pass the same Ctrl-C on: what follows this soon is no second request. */
const echoMs = 300;

/** Listens for signals until disposed. */
export interface Interruption extends Disposable {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
  /** The exit status after a stop that was asked for: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP; else null. */
  readonly exitStatus: number | null;
}

/**
 * Takes over SIGINT, SIGTERM and SIGHUP.
 * @param tell prints a line for the user when the first signal comes
 */
export function interruptible(tell: (line: string) => void = (line) => console.error(line)): Interruption {
  const controller = new AbortController();
  let exitStatus: number | null = null;
  let askedMs = 0;
  const listener = (name: StopSignal): void => {
    if (exitStatus === null) {
      exitStatus = statusOf[name];
      askedMs = performance.now();
      tell('deft: stopping after this step, with a checkpoint (once more: at once, without)');
      controller.abort();
    } else if (performance.now() - askedMs > echoMs) {
      process.exit(statusOf[name]);
    }
  };
  const names = Object.keys(statusOf) as StopSignal[];
  for (const name of names) process.on(name, listener);
  return {
    signal: controller.signal,
    get exitStatus() {
      return exitStatus;
    },
    [Symbol.dispose]() {
      for (const name of names) process.off(name, listener);
    },
  };
}

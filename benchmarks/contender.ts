/** What a contender is, and the process that runs one: it prepares rows and times them when asked to. */
import { type HostTensor, type HostTensors, inputsOf, type Row, sampled } from './rows.ts';

export type Backend = 'webgpu' | 'wasm';

/** A row on a contender's device, its inputs uploaded. */
export interface Prepared {
  /** Runs once; resolves when the device has finished. */
  run(): Promise<void>;
  /** The results; of a training row the losses of its first steps. Called once, before `run`. */
  outputs(): Promise<readonly HostTensor[]>;
  dispose(): void;
}

export interface Contender {
  /** The device, for people. */
  readonly description: string;
  /** @throws when the contender cannot compute the row */
  prepare(row: Row, inputs: HostTensors): Promise<Prepared>;
}

/** What the parent asks for. Each request is answered once, in order. */
export type Request =
  | { readonly kind: 'prepare'; readonly row: Row }
  /** As many runs as fit into the time, at least one, at most `runs`. */
  | { readonly kind: 'time'; readonly milliseconds: number; readonly runs: number }
  | { readonly kind: 'dispose' };

export type Answer =
  | { readonly kind: 'ready'; readonly description: string }
  /** The compared parts of the results, and how long the first results took: compilation and all. */
  | { readonly kind: 'prepared'; readonly outputs: readonly HostTensor[]; readonly firstMs: number }
  | { readonly kind: 'times'; readonly milliseconds: readonly number[] }
  | { readonly kind: 'disposed' }
  | { readonly kind: 'failed'; readonly why: string };

/** Runs before the timed ones. */
const WARM_UPS = 2;

/** Answers the parent's requests with the contender until the parent goes. */
export async function serve(opening: Promise<Contender>): Promise<void> {
  let prepared: Prepared | null = null;
  const answer = async (request: Request): Promise<Answer> => {
    const contender = await opening;
    switch (request.kind) {
      case 'prepare': {
        const inputs = inputsOf(request.row);
        const started = performance.now();
        prepared = await contender.prepare(request.row, inputs);
        const outputs = (await prepared.outputs()).map((output) => sampled(request.row, output));
        const firstMs = performance.now() - started;
        for (let i = 0; i < WARM_UPS; i += 1) await prepared.run();
        return { kind: 'prepared', outputs, firstMs };
      }
      case 'time':
        return { kind: 'times', milliseconds: await timed(prepared!, request.milliseconds, request.runs) };
      case 'dispose':
        prepared?.dispose();
        prepared = null;
        return { kind: 'disposed' };
    }
  };
  const send = (message: Answer): void => void process.send!(message);
  const failure = (error: unknown): Answer => ({
    kind: 'failed',
    why: (error instanceof Error ? error.message : String(error)).split('\n')[0]!.slice(0, 200),
  });
  process.on('message', (request: Request) => {
    answer(request).catch(failure).then(send);
  });
  process.on('disconnect', () => process.exit());
  const { description } = await opening;
  send({ kind: 'ready', description });
}

async function timed({ run }: Prepared, budgetMs: number, runs: number): Promise<number[]> {
  const times: number[] = [];
  const started = performance.now();
  while (times.length === 0 || (times.length < runs && performance.now() - started < budgetMs)) {
    const began = performance.now();
    await run();
    times.push(performance.now() - began);
  }
  return times;
}

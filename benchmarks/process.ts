/** A contender's process as its parent sees it: started when it is needed, and again after it died. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Answer, Backend, Request } from './contender.ts';

const script = fileURLToPath(new URL('./child.js', import.meta.url));

type AnswerOf<K extends Answer['kind']> = Extract<Answer, { readonly kind: K }>;

export class ContenderProcess {
  readonly name: string;
  readonly #backend: Backend;
  #child: ChildProcess | null = null;
  /** The device, once it has answered. */
  description = '';

  constructor(name: string, backend: Backend) {
    this.name = name;
    this.#backend = backend;
  }

  /**
   * The answer to a request. A process that takes longer than the limit is ended.
   * @throws Error with the contender's own message, or why its process ended
   */
  async ask<K extends Answer['kind']>(kind: K, request: Request, limitMs: number): Promise<AnswerOf<K>> {
    if (this.#child === null) {
      this.#child = fork(script, [this.name, this.#backend], {
        serialization: 'advanced',
        stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      });
      this.description = (await this.#answer('ready', limitMs)).description;
    }
    this.#child.send(request);
    return this.#answer(kind, limitMs);
  }

  #answer<K extends Answer['kind']>(kind: K, limitMs: number): Promise<AnswerOf<K>> {
    const child = this.#child!;
    let complaint = '';
    const listen = (text: Buffer): void => {
      complaint = `${complaint}${text}`.slice(-400);
    };
    return new Promise<AnswerOf<K>>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.end();
        reject(new Error(`stopped after ${limitMs / 1000} s`));
      }, limitMs);
      const exited = (): void => {
        clearTimeout(timer);
        this.#child = null;
        reject(new Error(`its process ended: ${complaint.trim().split('\n').at(-1)}`));
      };
      child.stderr!.on('data', listen);
      child.once('exit', exited);
      child.once('message', (answer: Answer) => {
        clearTimeout(timer);
        child.off('exit', exited);
        child.stderr!.off('data', listen);
        if (answer.kind === kind) resolve(answer as AnswerOf<K>);
        else reject(new Error(answer.kind === 'failed' ? answer.why : `internal: answered ${answer.kind}`));
      });
    });
  }

  end(): void {
    this.#child?.kill('SIGKILL');
    this.#child = null;
  }
}

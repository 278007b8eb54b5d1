/** The part of the JavaScript API of WebAssembly that is used here: TypeScript knows it only with the DOM's types. */

export interface WasmMemory {
  readonly buffer: ArrayBuffer;
  /** @throws RangeError where the engine has no more */
  grow(pages: number): number;
}

/** Compiled code; may be posted to workers. */
export type WasmModule = object;

interface Engine {
  readonly Memory: new (limits: { initial: number; maximum: number; shared: boolean }) => WasmMemory;
  validate(bytes: Uint8Array): boolean;
  compile(bytes: Uint8Array): Promise<WasmModule>;
  instantiate(
    module: WasmModule,
    imports: { readonly env: { readonly memory: WasmMemory; readonly tables: number } },
  ): Promise<{ readonly exports: Readonly<Record<string, unknown>> }>;
}

export const engine = (globalThis as unknown as { readonly WebAssembly: Engine }).WebAssembly;

/**
 * What the engine's work settles to, with a timer pending until then. Node can hang where its event loop has
 * nothing left but such work: it waits for the compiler's threads, and they for a garbage collection of its (nodejs/node#54918).
 */
export async function awake<T>(work: Promise<T>): Promise<T> {
  const timer = setInterval(() => {}, 2 ** 30);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}

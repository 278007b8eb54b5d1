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

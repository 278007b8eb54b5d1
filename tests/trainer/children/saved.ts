/** What the checkpoint of a step holds in the tests: two files that are a pure function of the step. */
export function contentOf(step: number): Map<string, Uint8Array> {
  const bytes = (length: number, salt: number): Uint8Array =>
    Uint8Array.from({ length }, (_, i) => (Math.imul(step + salt, 2654435761) >>> (i % 24)) & 255);
  return new Map([
    ['weights.safetensors', bytes(40_000, 1)],
    ['state.json', bytes(100, 2)],
  ]);
}

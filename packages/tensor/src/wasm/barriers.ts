/** Where the threads that run a plan must meet. */
import type { Kernel, Plan, PlanBuffer } from '../kernel.ts';
import { outputsOf } from './target.ts';

/** Where a plan buffer is: two buffers at one place share its bytes. */
function placeOf(buffer: PlanBuffer): string {
  switch (buffer.role) {
    case 'temporary':
      return `slot ${buffer.slot}`;
    case 'input':
      return `input ${buffer.index}`;
    case 'output':
      return buffer.donated === undefined ? `output ${buffer.index}` : `input ${buffer.donated}`;
  }
}

/** Before which kernels threads must meet: those that touch what was written, or write what was read, since they met. */
export function barriers(plan: Plan, kernels: readonly Kernel[]): boolean[] {
  let [read, written] = [new Set<string>(), new Map<string, number>()];
  const places = (list: readonly { readonly buffer: number }[]) =>
    list.map(({ buffer }) => placeOf(plan.buffers[buffer]!));
  return kernels.map((kernel) => {
    const reads = places(kernel.bindings);
    const writes = outputsOf(kernel).map(({ buffer }) => [placeOf(plan.buffers[buffer]!), buffer] as const);
    // Kernels that write one buffer write ranges apart.
    const wait =
      reads.some((place) => written.has(place)) ||
      writes.some(([place, buffer]) => (written.get(place) ?? buffer) !== buffer || read.has(place));
    if (wait) [read, written] = [new Set(), new Map()];
    for (const place of reads) read.add(place);
    for (const [place, buffer] of writes) written.set(place, buffer);
    return wait;
  });
}

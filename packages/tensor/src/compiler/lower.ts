/**
 * The compiler: a graph becomes a plan that any backend generates code from.
 *
 *   readGraph      equal nodes once, dead ones not at all                                   ir.ts
 *   fuse           nodes become expressions, expressions kernels                            fuse.ts
 *     writeParts   parts of a concatenation written by those who compute them                 parts.ts
 *   placeOutputs   buffers of outputs, donated storages                                     place.ts
 *   schedule       the order of kernels                                                     schedule.ts
 *   planMemory     arena slots of temporaries                                               memory.ts
 *   finish         values become numbered buffers and bindings                              finish.ts
 */
import type { Graph } from '../device.ts';
import type { Plan } from '../kernel.ts';
import { numel } from '../shape.ts';
import { finish, type Placed } from './finish.ts';
import { fuse } from './fuse.ts';
import { readGraph } from './ir.ts';
import { planMemory } from './memory.ts';
import { partsOf } from './parts.ts';
import { placeOutputs } from './place.ts';
import { schedule } from './schedule.ts';

/**
 * The kernels that compute the graph's outputs from its inputs, and where every value lives.
 * @throws DTypeError when a value is f64, Error when a leaf is not among the graph's inputs
 */
export function lower(graph: Graph): Plan {
  const ir = readGraph(graph);
  const fusion = fuse(ir);
  const placement = placeOutputs(ir, fusion);
  const drafts = schedule(placement);
  const { outputs, avals } = placement;
  const arena = planMemory(drafts, avals, new Set(outputs));

  const stored = (value: number) => ({ dtype: avals[value]!.dtype, length: numel(avals[value]!.shape) });
  const inputs = graph.inputs.map((_, index) => index);
  const placed: Placed[] = [
    ...inputs.map((index): Placed => ({ value: index, buffer: { ...stored(index), role: 'input', index } })),
    ...outputs.map((value, index): Placed => {
      const donated = graph.donations.get(index);
      const role = { role: 'output', index, ...(donated === undefined ? {} : { donated }) } as const;
      return { value, buffer: { ...stored(value), ...role } };
    }),
    ...[...arena.slotOf].map(
      ([value, slot]): Placed => ({ value, buffer: { ...stored(value), role: 'temporary', slot } }),
    ),
  ];
  return finish(drafts, placed, arena.slots, { inputs, outputs }, partsOf(drafts, avals));
}

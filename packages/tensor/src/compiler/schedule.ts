/**
 * The order that kernels run in: every value before its readers, and temporaries freed early.
 *
 * Kernels keep the order of the graph's walk, except that one which frees at least as much as it takes runs as soon as
 * it can. In a backward pass that computes each weight gradient when its operands are there, instead of holding all
 * activations until the whole chain has been walked.
 */
import { numel } from '../shape.ts';
import { type Draft, storedBytes, valuesRead, writesOf } from './drafts.ts';
import type { Placement } from './place.ts';

/** The drafts in the order they run. */
export function schedule({ drafts, outputs, before, avals }: Placement): Draft[] {
  const writer = new Map(
    drafts.flatMap((draft, position) => writesOf(draft).map((value) => [value, position])),
  );
  const isTemporary = new Set(writer.keys());
  for (const output of outputs) isTemporary.delete(output);
  const bytes = (value: number): number => {
    const { dtype, shape } = avals[value]!;
    return isTemporary.has(value) ? storedBytes(dtype, numel(shape)) : 0;
  };

  const reads = drafts.map(valuesRead);
  const readersLeft = new Map<number, number>();
  for (const value of reads.flat()) readersLeft.set(value, (readersLeft.get(value) ?? 0) + 1);
  const successors = drafts.map((): number[] => []);
  const waitsFor = drafts.map((_, position) => {
    const own = reads[position]!.map((value) => writer.get(value)).filter((from) => from !== undefined);
    const needed = new Set([...own, ...(before.get(position) ?? [])]);
    for (const from of needed) successors[from]!.push(position);
    return needed.size;
  });

  const growth = (position: number): number => {
    const taken = writesOf(drafts[position]!).reduce((sum, value) => sum + bytes(value), 0);
    const freed = reads[position]!.filter((value) => readersLeft.get(value) === 1);
    return freed.reduce((sum, value) => sum - bytes(value), taken);
  };
  const ready = drafts.map((_, position) => position).filter((position) => waitsFor[position] === 0);
  const order: Draft[] = [];
  while (ready.length > 0) {
    let best = ready.findIndex((position) => growth(position) <= 0);
    if (best < 0) best = ready.indexOf(Math.min(...ready));
    const position = ready.splice(best, 1)[0]!;
    order.push(drafts[position]!);
    for (const value of reads[position]!) readersLeft.set(value, readersLeft.get(value)! - 1);
    for (const next of successors[position]!) {
      waitsFor[next]! -= 1;
      if (waitsFor[next] === 0) ready.push(next);
    }
  }
  if (order.length < drafts.length) throw new Error('internal: lower: kernels wait for one another');
  return order;
}

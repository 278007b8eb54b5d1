/** Runs compiled graphs in the plan interpreter, in the storages that the plan names, beside the reference device. */
import { lower } from '../../../packages/tensor/src/compiler/lower.ts';
import { validatePlan } from '../../../packages/tensor/src/compiler/validate.ts';
import type { Device, Graph } from '../../../packages/tensor/src/device.ts';
import { decode, type HostArray } from '../../../packages/tensor/src/dtype.ts';
import type { Kernel, Plan, PlanBuffer } from '../../../packages/tensor/src/kernel.ts';
import { referenceDevice } from '../../../packages/tensor/src/reference.ts';
import type { Tensor } from '../../../packages/tensor/src/tensor.ts';
import { interpretPlan } from '../../support/plan-interpreter.ts';

/** The leaves that the outputs depend on, as inputs. */
export function graphOf(
  outputs: readonly Tensor[],
  donations: ReadonlyMap<number, number> = new Map(),
): Graph {
  const seen = new Set<Tensor>();
  const visit = (x: Tensor): void => {
    if (seen.has(x)) return;
    if (x.source.kind === 'applied') x.source.inputs.forEach(visit);
    seen.add(x);
  };
  outputs.forEach(visit);
  const inputs = [...seen].filter((x) => x.source.kind !== 'applied');
  return { inputs, outputs, donations };
}

function hostValues(x: Tensor): HostArray {
  if (x.source.kind !== 'host') throw new Error('a test graph has host leaves');
  return x.source.values;
}

/** The outputs by the compiled plan, which must be valid. Storages that the plan shares are shared. */
export function runPlan(graph: Graph): Float64Array[] {
  const plan = lower(graph);
  validatePlan(plan);
  const inputs = graph.inputs.map((x) => decode(x.dtype, hostValues(x)));
  return interpretPlan(shared(plan), inputs);
}

/** The outputs by a device. */
export async function runDevice(device: Device, graph: Graph): Promise<Float64Array[]> {
  const program = await device.prepare(graph);
  const inputs = graph.inputs.map((x) => device.upload(x.dtype, hostValues(x)));
  const outputs = program.run(inputs);
  const values = await Promise.all(
    outputs.map(async (storage) => decode(storage.dtype, await device.read(storage))),
  );
  for (const storage of [...inputs, ...outputs]) storage.dispose();
  program.dispose();
  return values;
}

/** The outputs by the ops' definitions. */
export function runReference(graph: Graph): Promise<Float64Array[]> {
  return runDevice(referenceDevice(), { ...graph, donations: new Map() });
}

/** The same plan with one buffer for all that share a slot or a donated storage, as they do on a device. */
function shared(plan: Plan): Plan {
  const first = new Map<string, number>();
  const lengths = plan.buffers.map(({ length }) => length);
  const places = plan.buffers.map((buffer, i) => {
    const place = first.get(placeOf(buffer)) ?? i;
    first.set(placeOf(buffer), place);
    lengths[place] = Math.max(lengths[place]!, buffer.length);
    return place;
  });
  const move = <T extends { readonly buffer: number }>(of: T): T => ({ ...of, buffer: places[of.buffer]! });
  const kernels = plan.kernels.map((kernel): Kernel => {
    const bindings = kernel.bindings.map(move);
    if (kernel.kind === 'map') return { ...kernel, bindings, outputs: kernel.outputs.map(move) };
    if (kernel.kind === 'rows') return { ...kernel, bindings, outputs: kernel.outputs.map(move) };
    if (kernel.kind === 'attend') return { ...kernel, bindings, outputs: kernel.outputs.map(move) };
    return { ...kernel, bindings, output: move(kernel.output) };
  });
  const buffers = plan.buffers.map((buffer, i) => ({ ...buffer, length: lengths[i]! }));
  return { ...plan, kernels, buffers, outputs: plan.outputs.map((buffer) => places[buffer]!) };
}

function placeOf(buffer: PlanBuffer): string {
  if (buffer.role === 'temporary') return `slot ${buffer.slot}`;
  if (buffer.role === 'output' && buffer.donated === undefined) return `output ${buffer.index}`;
  return `input ${buffer.role === 'output' ? buffer.donated : buffer.index}`;
}

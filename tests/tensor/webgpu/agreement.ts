import { expect } from 'vitest';
import type { Device, Program } from '../../../packages/tensor/src/device.ts';
import { decode, type HostArray } from '../../../packages/tensor/src/dtype.ts';
import type { Plan } from '../../../packages/tensor/src/kernel.ts';
import { interpretPlan } from '../../support/plan-interpreter.ts';
import { type AddKernel, PlanBuilder } from './plans.ts';

/** A device that takes plans as they are. */
export interface PlanDevice extends Device {
  preparePlan(plan: Plan): Promise<Program>;
}

/** The plan's outputs from the device, decoded; inputs and program are freed. */
export async function runPlan(
  device: PlanDevice,
  plan: Plan,
  values: readonly HostArray[],
): Promise<Float64Array[]> {
  const program = await device.preparePlan(plan);
  const inputs = plan.inputs.map((buffer, i) => device.upload(plan.buffers[buffer]!.dtype, values[i]!));
  const outputs = program.run(inputs);
  const results = await Promise.all(
    outputs.map(async (output) => decode(output.dtype, await device.read(output))),
  );
  for (const storage of [...inputs, ...outputs]) storage.dispose();
  program.dispose();
  return results;
}

/**
 * Fails unless the device computes what the interpreter does. Bounds: f32 rounding through short expressions with
 * factors up to 10 and sums up to a few hundred terms of size up to 4; half precision rounds to 2^-11.
 */
export async function expectAgreement(device: PlanDevice, kernels: readonly AddKernel[]): Promise<void> {
  const builder = new PlanBuilder();
  for (const add of kernels) add(builder);
  const { plan, values } = builder.build();
  const decoded = values.map((array, i) => decode(plan.buffers[plan.inputs[i]!]!.dtype, array));
  const expected = interpretPlan(plan, decoded);
  const results = await runPlan(device, plan, values);
  results.forEach((got, o) => {
    const { dtype } = plan.buffers[plan.outputs[o]!]!;
    const label = plan.kernels.find((kernel) =>
      ('outputs' in kernel ? kernel.outputs : [kernel.output]).some(
        ({ buffer }) => buffer === plan.outputs[o],
      ),
    )!.label;
    const bound = dtype === 'f16' ? 2e-3 : 2e-5;
    const scale = Math.max(1, ...expected[o]!.map(Math.abs).filter(Number.isFinite));
    got.forEach((x, i) => {
      const want = expected[o]![i]!;
      const close = Number.isFinite(want) ? Math.abs(x - want) <= bound * scale : Object.is(x, want);
      if (!close)
        expect.fail(
          `${label} (${dtype}): element ${i} is ${x}; expected ${want}\n${JSON.stringify(plan.kernels.find((k) => k.label === label))}`,
        );
    });
  });
}

/** What a plan may ask of the device: refused with need and limit before anything is compiled or allocated. */
import { expressionsOf, outputsOf, shapeOf } from '../compiler/drafts.ts';
import type { DType } from '../dtype.ts';
import { DeviceError, DTypeError } from '../errors.ts';
import type { Kernel, Operand, Plan } from '../kernel.ts';
import { numel, type Shape } from '../shape.ts';
import { rangeOf } from '../view.ts';
import { type Capabilities, pageBytes } from './capabilities.ts';
import type { Launch } from './launch.ts';
import { functionsOf } from './map.ts';

/** Kernels count elements in i32, up to four at a time. */
export const MOST_ELEMENTS = 2 ** 31 - 4;

/** @throws DTypeError, DeviceError naming the kernel that holds or counts what the device cannot */
export function checkPlan({ kernels, buffers }: Plan, dtypes: readonly DType[]): void {
  for (const kernel of kernels) {
    for (const { buffer, dtype } of [...kernel.bindings, ...outputsOf(kernel)]) {
      if (!dtypes.includes(dtype)) {
        throw new DTypeError(`kernel "${kernel.label}": webgpu holds ${dtypes.join(', ')}; got ${dtype}`);
      }
      requireCountable(kernel, 'elements', buffers[buffer]!.length);
    }
    for (const shape of spacesOf(kernel)) requireCountable(kernel, 'steps', numel(shape));
    for (const { low, high } of addressesOf(kernel)) {
      requireCountable(kernel, 'addresses', Math.max(-low, high));
    }
  }
}

function requireCountable({ label }: Kernel, what: string, count: number): void {
  if (count <= MOST_ELEMENTS) return;
  throw new DeviceError(
    `kernel "${label}": too many ${what}; expected at most ${MOST_ELEMENTS}; got ${count}`,
    { need: count, limit: MOST_ELEMENTS },
  );
}

/** The index spaces that a kernel counts through, each in one number. */
function spacesOf(kernel: Kernel): Shape[] {
  switch (kernel.kind) {
    case 'map':
      return [kernel.shape];
    case 'reduce':
      return [kernel.shape, kernel.reduced];
    case 'rows':
      return [shapeOf(kernel)];
    case 'contract':
      return [kernel.batch, kernel.m, kernel.n, kernel.k];
    case 'scatter':
      return [[kernel.outer, kernel.count, kernel.inner]];
    case 'attend':
      return [kernel.batch, ...kernel.outputs.map((output) => shapeOf(kernel, output))];
  }
}

/** What the affine functions of the index that a kernel computes can come to. */
function addressesOf(kernel: Kernel): { low: number; high: number }[] {
  switch (kernel.kind) {
    case 'map':
      return functionsOf(...kernel.outputs.map(({ expr }) => expr)).map((f) => rangeOf(f, kernel.shape));
    case 'reduce': {
      const within = functionsOf(kernel.body).map((f) => rangeOf(f, [...kernel.shape, ...kernel.reduced]));
      return [...within, ...functionsOf(kernel.output.expr).map((f) => rangeOf(f, kernel.shape))];
    }
    case 'rows':
      return functionsOf(...expressionsOf(kernel)).map((f) => rangeOf(f, shapeOf(kernel)));
    case 'contract': {
      const results = [...kernel.batch, ...kernel.m, ...kernel.n];
      const operands = [kernel.a.view, kernel.b.view].flatMap((view) =>
        [view, ...view.guards].map((f) => rangeOf(f, view.shape)),
      );
      return [...operands, ...functionsOf(kernel.output.expr).map((f) => rangeOf(f, results))];
    }
    case 'attend':
      return Object.values(kernel.operands).flatMap(({ view }: Operand) =>
        [view, ...view.guards].map((f) => rangeOf(f, view.shape)),
      );
    case 'scatter':
      return [];
  }
}

/** @throws DeviceError naming a kernel that binds more buffers than the device allows */
export function checkBindings(launches: readonly Launch[], capabilities: Capabilities): void {
  const most = capabilities.maxStorageBuffers;
  for (const { label, bindings } of launches) {
    if (bindings.length <= most) continue;
    const paged = bindings.some(({ page }) => page > 0)
      ? ` (buffers of more than ${pageBytes(capabilities)} bytes count once for each such page)`
      : '';
    throw new DeviceError(
      `kernel "${label}": too many buffers; expected at most ${most}; got ${bindings.length}${paged}`,
      { need: bindings.length, limit: most },
    );
  }
}

/** Weights from files into modules. */
import { type Module, namedParameters, type Parameter } from '@deftjs/autograd/nn';
import {
  asFloat16,
  asFloat32,
  type Device,
  formatShape,
  sameShape,
  type Tensor,
  type TensorSource,
  tensor,
  upload,
} from '@deftjs/tensor';

/** Weights that do not fit the model: which, and how. */
export class WeightsError extends Error {
  override readonly name = 'WeightsError';
  /** Parameters without a tensor. */
  readonly missing: readonly string[];
  /** Tensors without a parameter. */
  readonly unexpected: readonly string[];
  /** Names whose shapes differ, with both shapes. */
  readonly misshaped: readonly string[];

  constructor(source: string, missing: string[], unexpected: string[], misshaped: string[]) {
    const parts = Object.entries({ missing, unexpected, 'wrong shape': misshaped })
      .filter(([, names]) => names.length > 0)
      .map(([problem, names]) => `${problem}: ${listed(names)}`);
    super(`weights: ${source}: ${parts.join('; ')}`);
    this.missing = missing;
    this.unexpected = unexpected;
    this.misshaped = misshaped;
  }
}

// Some formats hold hundreds of names; ten tell what is wrong.
function listed(names: readonly string[]): string {
  const shown = names.slice(0, 10).map((name) => JSON.stringify(name));
  return shown.join(', ') + (names.length > 10 ? ` and ${names.length - 10} more` : '');
}

/** Where weights go. */
export interface LoadOptions {
  /** The device that alone holds them; default: the host keeps them, and devices get copies when they need them. */
  readonly device?: Device;
  /** How the device stores them; default f32. */
  readonly dtype?: 'f32' | 'f16';
}

/**
 * Gives every parameter of the module its values from the source. Names and shapes are compared before anything is
 * read; either all parameters are given or none. One tensor is read at a time: with a device, the host never holds
 * more than that.
 *
 * @throws WeightsError when a parameter is missing, a tensor is left over or a shape differs; SafetensorsError;
 *   DeviceError when the device's memory is used up
 */
export async function loadWeights(
  module: Module,
  source: TensorSource,
  { device, dtype = 'f32' }: LoadOptions = {},
): Promise<void> {
  const parameters = namedParameters(module);
  checkNames(parameters, source);
  const values: Tensor[] = [];
  try {
    for (const [name, { shape }] of parameters) {
      const read = await source.read(name);
      const stored = dtype === 'f16' ? asFloat16(read) : asFloat32(read);
      values.push(device ? upload(stored, shape, dtype, device) : tensor(stored, shape, dtype));
    }
  } catch (error) {
    for (const value of values) value.dispose();
    throw error;
  }
  for (const [i, parameter] of [...parameters.values()].entries()) parameter.value = values[i]!;
}

function checkNames(parameters: ReadonlyMap<string, Parameter>, source: TensorSource): void {
  const names = new Set(source.names);
  const missing = [...parameters.keys()].filter((name) => !names.has(name));
  const unexpected = source.names.filter((name) => !parameters.has(name));
  const misshaped = [...parameters].flatMap(([name, { shape }]) => {
    if (!names.has(name) || sameShape(source.info(name).shape, shape)) return [];
    return [`${name}: expected ${formatShape(shape)}, got ${formatShape(source.info(name).shape)}`];
  });
  if (missing.length + unexpected.length + misshaped.length > 0) {
    throw new WeightsError(source.source, missing, unexpected, misshaped);
  }
}

/** The source under other names; a tensor whose new name is null is left out. */
export function renamed(source: TensorSource, rename: (name: string) => string | null): TensorSource {
  const original = new Map<string, string>();
  for (const name of source.names) {
    const changed = rename(name);
    if (changed !== null) original.set(changed, name);
  }
  return {
    source: source.source,
    names: [...original.keys()],
    info: (name) => source.info(original.get(name) ?? name),
    read: (name) => source.read(original.get(name) ?? name),
  };
}

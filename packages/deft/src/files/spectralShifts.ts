/**
 * SVDiff's file, spectral_shifts.safetensors: the shift of each layer's singular values under `<path of the layer>.delta`,
 * as the implementation for diffusers writes it. The scale c goes into the numbers: what is stored is c d.
 */
import type { Module } from '@deftjs/autograd/nn';
import {
  asFloat32,
  type Device,
  formatShape,
  memorySource,
  openSafetensors,
  read,
  SafetensorsError,
  sameShape,
  tensor,
  writeSafetensors,
} from '@deftjs/tensor';
import { type AdaptedRow, attach } from '../adapt.ts';
import { attachedAdapters, requireAdapters } from '../adapter.ts';
import { svdiff } from '../parametrizations/svdiff.ts';
import { adaptableLayers } from '../targets.ts';

const suffix = '.delta';

/** The file of the SVDiff adapter as it is now. @throws Error when there is none of the name, or of another method */
export async function writeSpectralShifts(module: Module, adapterName = 'default'): Promise<Uint8Array> {
  const entries = requireAdapters('writeSpectralShifts', module, adapterName).map(
    async ({ path, adapter }) => {
      const { method } = adapter;
      if (method.name !== 'svdiff')
        throw new Error(`writeSpectralShifts: expected the method svdiff; ${path} has ${method.name}`);
      const { value } = adapter.parameters.svdiff_d!;
      const data = Float32Array.from(await read(value), (d) => method.options.scale * d);
      return [`${path}${suffix}`, { dtype: 'f32', shape: value.shape, data }] as const;
    },
  );
  return writeSafetensors(Object.fromEntries(await Promise.all(entries)), { format: 'pt' });
}

/**
 * Attaches the SVDiff adapter in the file, frozen, to the layers that it names, whose weights are decomposed again.
 * @param name what messages call the file
 * @throws SafetensorsError naming a tensor of no layer, of another shape or not finite; Error when the name is taken
 */
export async function loadSpectralShifts(
  module: Module,
  bytes: Uint8Array,
  {
    name = 'spectral_shifts.safetensors',
    adapterName = 'default',
    device,
  }: { readonly name?: string; readonly adapterName?: string; readonly device?: Device } = {},
): Promise<AdaptedRow[]> {
  const file = await openSafetensors(memorySource(name, bytes));
  const shifts = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const key of file.names) {
    if (!key.endsWith(suffix)) throw new SafetensorsError(name, `expected a key like <layer>${suffix}`, key);
    const values = await file.read(key);
    const data = asFloat32(values);
    if (!data.every(Number.isFinite)) throw new SafetensorsError(name, 'it holds NaN or infinity', key);
    shifts.set(key.slice(0, -suffix.length), { shape: values.shape, data });
  }
  if (shifts.size === 0) throw new SafetensorsError(name, 'it holds no tensors');
  const method = svdiff();
  const layers = adaptableLayers(module);
  for (const [path, { shape }] of shifts) {
    const layer = layers.get(path);
    const key = `${path}${suffix}`;
    if (!layer) throw new SafetensorsError(name, 'the model has no Linear or Conv2d layer of that path', key);
    const expected = method.shapes(layer.weight.shape).svdiff_d!;
    if (sameShape(expected, shape)) continue;
    const shapes = `expected ${formatShape(expected)}; got ${formatShape(shape)}`;
    throw new SafetensorsError(name, `its shape does not fit the layer; ${shapes}`, key);
  }
  const rows = await attach(module, {
    method,
    targetModules: [...shifts.keys()],
    adapterName,
    seed: 0, // nothing of this method is random
    ...(device && { device }),
  });
  for (const { path, adapter } of attachedAdapters(module, adapterName)) {
    const { shape, data } = shifts.get(path)!;
    const parameter = adapter.parameters.svdiff_d!;
    parameter.value = tensor(data, shape);
    parameter.trainable = false;
  }
  return rows;
}

/**
 * The files of SVDiff and Custom Diffusion as stored adapters, for whoever goes layer by layer: SVDiff's `<layer>.delta`
 * also of weights with one axis (norms), and Custom Diffusion's whole keys and values of cross-attention.
 */
import {
  formatShape,
  SafetensorsError,
  type Shape,
  sameShape,
  sub,
  type TensorSource,
  tensor,
} from '@deftjs/tensor';
import type { AdapterRequest } from '../adapter.ts';
import { full } from '../parametrizations/full.ts';
import type { Method } from '../parametrizations/index.ts';
import { svdiff } from '../parametrizations/svdiff.ts';
import {
  type LayerShapes,
  nearest,
  readValues,
  type StoredAdapter,
  type StoredLayer,
  type StoredValues,
} from './storedAdapter.ts';

export interface ReadWeightsOptions {
  /** The part of a pipeline that the file is for. */
  readonly part: string;
  readonly layers: LayerShapes;
}

const shiftKey = /^(.+)\.delta$/;
const diffusionKey = /^(.+)\.processor\.(to_k|to_v|to_q|to_out)_custom_diffusion(\.0)?\.weight$/;

/** Whether a key is of SVDiff's file. */
export const isShiftKey = (key: string): boolean => shiftKey.test(key);

/** Whether a key is of Custom Diffusion's file. */
export const isCustomDiffusionKey = (key: string): boolean => key.includes('_custom_diffusion.');

/** SVDiff's shifts of singular values. @throws SafetensorsError naming a tensor of no layer, another shape, not finite */
export function readStoredShifts(file: TensorSource, options: ReadWeightsOptions): Promise<StoredAdapter> {
  const method = svdiff();
  return readStored(file, options, {
    format: 'SVDiff',
    method,
    pathOf: (key) => shiftKey.exec(key)?.[1] ?? null,
    shapeOf: (weight) => method.shapes(weight).svdiff_d!,
    thetaOf: ({ data, shape }) => {
      const theta = { svdiff_d: tensor(data, shape) };
      return () => theta;
    },
  });
}

/** Custom Diffusion's weights. @throws SafetensorsError naming a tensor of no layer, another shape, not finite */
export function readStoredWeights(file: TensorSource, options: ReadWeightsOptions): Promise<StoredAdapter> {
  return readStored(file, options, {
    format: 'Custom Diffusion',
    method: full(),
    pathOf: (key) => {
      const [, attention, name, index = ''] = diffusionKey.exec(key) ?? [];
      return attention === undefined ? null : `${attention}.${name}${index}`;
    },
    shapeOf: (weight) => weight,
    thetaOf:
      ({ data, shape }) =>
      (W0) => {
        if (W0 === null) throw new Error('Custom Diffusion: the weights in the file need those of the base');
        return { full_D: sub(tensor(data, shape), W0) };
      },
  });
}

/** How one of the formats names and holds what a layer gets. */
interface Format {
  readonly format: string;
  readonly method: Method;
  /** null for a key of another kind. */
  pathOf(key: string): string | null;
  shapeOf(weight: Shape): Shape;
  thetaOf(values: StoredValues): StoredLayer['theta'];
}

async function readStored(
  file: TensorSource,
  { part, layers }: ReadWeightsOptions,
  { format, method, pathOf, shapeOf, thetaOf }: Format,
): Promise<StoredAdapter> {
  const { source } = file;
  const values = await readValues(file);
  const found = Array.from(values, ([key, own]) => {
    const path = pathOf(key);
    const shape = path === null ? undefined : layers.get(path);
    if (path === null) throw new SafetensorsError(source, `it does not belong in a file of ${format}`, key);
    if (!shape) {
      throw new SafetensorsError(source, `the model has no such layer; ${nearest(path, layers.keys())}`, key);
    }
    const expected = shapeOf(shape);
    if (!sameShape(own.shape, expected)) {
      const shapes = `expected ${formatShape(expected)}; got ${formatShape(own.shape)}`;
      throw new SafetensorsError(source, `its shape does not fit the layer; ${shapes}`, key);
    }
    return { part, path, shape, method, theta: thetaOf(own) };
  });
  if (found.length === 0) throw new SafetensorsError(source, 'it holds no tensors');
  const request: AdapterRequest = {
    method,
    targetModules: found.map(({ path }) => path),
    excludeModules: null,
  };
  return { format, name: source, layers: found.map((layer) => ({ ...layer, request })), baseHash: null };
}

/** Layers as linear maps over channels, so that a method need not know whether a layer multiplies or convolves. */
import { Conv2d, Linear } from '@deftjs/autograd/nn';
import { cast, conv2d, linear, reshape, type Shape, type Tensor } from '@deftjs/tensor';

/** The layers that adapters attach to. */
export type AdaptedLayer = Linear | Conv2d;

export function isAdaptable(module: object): module is AdaptedLayer {
  return module instanceof Linear || module instanceof Conv2d;
}

/**
 * The two products that a low-rank method needs. Letters: m outputs, n inputs of the layer's weight as a matrix
 * [m, n] (a convolution's n is ci kh kw), r any other number of channels.
 */
export interface LinearMap {
  /** The layer with A [r, n] in place of its weight: x -> r channels, by the layer's own geometry. */
  read(x: Tensor, A: Tensor): Tensor;
  /** B [q, r] applied to r channels at every position. */
  mix(h: Tensor, B: Tensor): Tensor;
  /** W0 as a matrix [m, n] where y0 is W0 of the x that is read, in float32; null where it is not. */
  readonly weight: Tensor | null;
}

/** The layer's weight as a matrix [m, n]. */
export function matrixShape(weight: Shape): readonly [number, number] {
  return [weight[0]!, weight.slice(1).reduce((product, extent) => product * extent, 1)];
}

// Factors are float32; activations may be narrower and decide the type of the product.
const overFeatures: Omit<LinearMap, 'weight'> = {
  read: (x, A) => linear(x, cast(A, x.dtype)),
  mix: (h, B) => linear(h, cast(B, h.dtype)),
};

/**
 * The layer's two products.
 * @param whole whether x is read as the layer has it, and the layer has its weight: no entry of x was dropped
 */
export function linearMapOf(layer: AdaptedLayer, whole = true): LinearMap {
  const W0 = whole ? layer.weight.value : null;
  const weight = W0?.dtype === 'f32' ? reshape(W0, matrixShape(W0.shape)) : null;
  if (layer instanceof Linear) return { ...overFeatures, weight };
  const kernel = layer.weight.shape.slice(1);
  return {
    read: (x, A) => conv2d(x, cast(reshape(A, [A.shape[0]!, ...kernel]), x.dtype), null, layer.options),
    mix: (h, B) => conv2d(h, cast(reshape(B, [...B.shape, 1, 1]), h.dtype)),
    weight,
  };
}

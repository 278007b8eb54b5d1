import {
  DTypeError,
  formatShape,
  isFloat,
  type Key,
  type Shape,
  ShapeError,
  sameShape,
  type Tensor,
} from '@deftjs/tensor';

/** Values for a new parameter of the given shape: a pure function of the key. */
export type Initializer = (shape: Shape, key: Key) => Tensor;

/** A named place for a tensor of a module. It has no value until it is initialised or loaded. */
export class Parameter {
  readonly shape: Shape;
  /** How `initialize` fills it; a model with conventions of its own may replace it. */
  initializer: Initializer;
  /** Whether training changes it. */
  trainable = true;
  #value: Tensor | null = null;

  constructor(shape: Shape, initializer: Initializer) {
    this.shape = shape;
    this.initializer = initializer;
  }

  get hasValue(): boolean {
    return this.#value !== null;
  }

  /** @throws Error when there is no value yet; on assignment ShapeError, DTypeError */
  get value(): Tensor {
    if (this.#value === null) {
      throw new Error(
        `parameter ${formatShape(this.shape)}: no value yet; load weights or call initialize(module, seed)`,
      );
    }
    return this.#value;
  }

  set value(value: Tensor) {
    if (!sameShape(value.shape, this.shape)) {
      throw new ShapeError(`parameter: expected ${formatShape(this.shape)}; got ${formatShape(value.shape)}`);
    }
    if (!isFloat(value.dtype)) throw new DTypeError(`parameter: expected floats; got ${value.dtype}`);
    this.#value = value;
  }
}

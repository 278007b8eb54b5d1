/** Shapes, axes or indices that an operation cannot take. Thrown where the operation is called. */
export class ShapeError extends Error {
  override readonly name = 'ShapeError';
}

/** Element types that an operation cannot take, or values that do not fit one. */
export class DTypeError extends Error {
  override readonly name = 'DTypeError';
}

/** What a request asked for and the most that the device gives, in the unit that the message names. */
export interface Excess {
  readonly need: number;
  readonly limit: number;
}

/**
 * Something that the device refused or lost: memory, limits, a kernel that did not compile, the device itself.
 * A request beyond a limit says what it needed and what the limit is, as numbers too.
 */
export class DeviceError extends Error {
  override readonly name = 'DeviceError';
  readonly need: number | undefined;
  readonly limit: number | undefined;

  constructor(message: string, excess?: Excess) {
    super(message);
    this.need = excess?.need;
    this.limit = excess?.limit;
  }
}

/** A tensor whose values are gone: disposed, donated to a compiled function, or on a device that was lost. */
export class DisposedError extends Error {
  override readonly name = 'DisposedError';
}

/** "[2, 3]": a shape as messages print it. */
export function formatShape(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

/** "[2, 3] and [4]": shapes as messages print them. */
export function formatShapes(shapes: readonly (readonly number[])[]): string {
  return shapes.map(formatShape).join(' and ');
}

/** Every method, by the name that configs use. */
import { type Deft, type DeftOptions, deft } from './deft.ts';
import { full } from './full.ts';
import { lora } from './lora.ts';
import { svdiff } from './svdiff.ts';

/** PaRa: removal alone, with the QR projector unless another is given. @throws as `deft` */
function para(given: Partial<DeftOptions> = {}): Deft {
  return deft({ projector: 'qr', ...given, para: true });
}

export const methods = { deft, para, lora, svdiff, full } as const;

/** A method of the list, with its options decided. */
export type Method = ReturnType<(typeof methods)[keyof typeof methods]>;

/**
 * The method with another rank or alpha, where one is given.
 * @throws RangeError for a method that has none, or a bad one
 */
export function variantOf(method: Method, rank?: number, alpha?: number): Method {
  if (rank === undefined && alpha === undefined) return method;
  const changes = { ...(rank === undefined ? {} : { rank }), ...(alpha === undefined ? {} : { alpha }) };
  switch (method.name) {
    case 'deft':
      return deft({ ...method.options, ...changes });
    case 'lora':
      return lora({ ...method.options, ...changes });
    default:
      throw new RangeError(`attach: the method ${method.name} has no rank or alpha to vary by layer`);
  }
}

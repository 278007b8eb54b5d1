/** Every method, by the name that configs use. */
import { deft } from './deft.ts';
import { lora } from './lora.ts';

export const methods = { deft, lora } as const;

/** A method of the list, with its options decided. */
export type Method = ReturnType<(typeof methods)[keyof typeof methods]>;

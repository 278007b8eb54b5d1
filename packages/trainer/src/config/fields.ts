/** Building blocks of the configuration schemas: each says in one phrase what it expects, whatever is wrong. */
import { z } from 'zod';
import { isSubject, type Subject, subjects } from '../world/subjects.ts';
import { toyCount } from '../world/toys.ts';

/** A whole number in [min, max]. */
export function whole(min: number, max: number) {
  const error = `expected a whole number from ${min} to ${max}`;
  return z.number({ error }).int({ error }).min(min, { error }).max(max, { error });
}

/** A finite number in [min, max], or in (min, max] when `above` is true. */
export function real(min: number, max: number, { above = false } = {}) {
  const error = `expected a number ${above ? `above ${min} and at most ${max}` : `from ${min} to ${max}`}`;
  const number = z.number({ error });
  return (above ? number.gt(min, { error }) : number.min(min, { error })).max(max, { error });
}

/** A step size: positive and at most 1. */
export function rate() {
  return real(0, 1, { above: true });
}

/** One line of text of 1 to `max` characters. */
export function text(max: number) {
  const error = `expected one line of text, 1 to ${max} characters`;
  return z
    .string({ error })
    .trim()
    .min(1, { error })
    .max(max, { error })
    .regex(/^[^\r\n]*$/, { error });
}

/** One of a few words. */
export function choice<const T extends readonly [string, ...string[]]>(words: T) {
  return z.enum(words, { error: `expected ${words.join(', ').replace(/, ([^,]*)$/, ' or $1')}` });
}

/** true or false. */
export function flag() {
  return z.boolean({ error: 'expected true or false' });
}

/** The value, or null, which is the default. */
export function nullable<T extends z.ZodType>(of: T) {
  return of.nullable().default(null);
}

/** A regular expression. */
export function pattern() {
  return text(300).refine(isPattern, { error: 'expected a regular expression' });
}

function isPattern(source: string): boolean {
  try {
    new RegExp(source);
    return true;
  } catch {
    return false;
  }
}

/** A list of `min` to `max` values. */
export function list<T extends z.ZodType>(of: T, min: number, max: number) {
  const error = `expected a list of ${min} to ${max} values`;
  return z.array(of, { error }).min(min, { error }).max(max, { error });
}

/** A mapping of names, each one line of text, to values. */
export function named<T extends z.ZodType>(of: T) {
  return z.record(text(50), of, { error: 'expected a mapping of names to values' });
}

/** A subject of the picture world. */
export function subjectName() {
  const error = `expected ${subjects.join(', ')} or one of toy-1 to toy-${toyCount}`;
  return z.string({ error }).refine(isSubject, { error }) as unknown as z.ZodType<Subject>;
}

/** A mapping with these keys and no others. */
export function section<T extends z.ZodRawShape>(shape: T) {
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'invalid_type' ? 'expected a mapping of keys to values' : undefined),
  });
}

/** The name of a run: what its folder is called. */
export function runName() {
  const error = 'expected 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit';
  return z.string({ error }).regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, { error });
}

/** A folder: absolute, or relative to the file that names it. */
export function folder() {
  return text(4096);
}

/** Backends that can be asked for; `auto` is WebGPU where a hardware adapter answers, else wasm. */
export const deviceNames = ['auto', 'webgpu', 'wasm', 'reference'] as const;

/** A seed of the random number generators. */
export function seed() {
  return whole(0, 2 ** 32 - 1);
}

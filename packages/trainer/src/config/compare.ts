import { z } from 'zod';
import { subjects } from '../world/subjects.ts';
import { choice, list, runName, section, seed, text } from './fields.ts';

const keys = () => z.record(z.string(), z.unknown(), { error: 'expected keys of a deft train file' });

/** What `deft compare` reads: rows of a table, each a way to train, and what every row is trained on. */
export const compareSchema = section({
  name: runName(),
  title: text(200),
  /** Subjects of the picture world: each row is trained on each of them alone. */
  subjects: list(choice(subjects), 1, subjects.length),
  seeds: list(seed(), 1, 32),
  /** Keys of every row whose method has them. */
  common: keys().default({}),
  rows: list(section({ label: text(60), keys: keys() }), 1, 64),
});

/** A `deft compare` job with every default filled in. */
export type CompareConfig = z.output<typeof compareSchema>;

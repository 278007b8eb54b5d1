import { merges } from '@deftjs/deft';
import { z } from 'zod';
import type { Condition } from '../metrics/index.ts';
import { styles } from '../world/styles.ts';
import { subjects } from '../world/subjects.ts';
import { toyCount } from '../world/toys.ts';
import { choice, list, nullable, runName, section, seed, text, whole } from './fields.ts';

/** Tasks from picture to picture whose results can be scored. */
const tasks = ['canny', 'depth'] as const satisfies readonly Condition[];

const keys = () => z.record(z.string(), z.unknown(), { error: 'expected keys of a deft train file' });

/** What `deft compare` reads: rows of a table, each a way to train, and what every row is trained on. */
export const compareSchema = section({
  name: runName(),
  title: text(200),
  /** Subjects of the picture world: each row is trained on each of them alone. */
  subjects: list(choice(subjects), 0, subjects.length).default([]),
  /** In their place: styles of the picture world, each row trained on each of them alone. */
  styles: list(choice(styles), 0, styles.length).default([]),
  /** In their place: numbers of toys that each row is trained on together, and steps for each toy where `steps` are fewer. */
  concepts: list(whole(1, toyCount), 0, 16).default([]),
  steps_each: whole(1, 100_000).default(200),
  /** In their place: tasks from picture to picture, on which each row is trained alone, and how many examples there are. */
  tasks: list(choice(tasks), 0, tasks.length).default([]),
  examples: whole(1, 10_000).default(100),
  held_out: whole(1, 1000).default(16),
  seeds: list(seed(), 1, 32),
  /** Keys of every row whose method has them. */
  common: keys().default({}),
  /** With `merge` a row is trained on each toy alone, and its adapters become one as deft's `combineAdapters` does. */
  rows: list(section({ label: text(60), keys: keys(), merge: nullable(choice(merges)) }), 1, 64),
})
  .refine(
    (job) =>
      [job.subjects, job.styles, job.concepts, job.tasks].filter(({ length }) => length > 0).length === 1,
    {
      path: ['subjects'],
      error: 'expected one of subjects, styles, concepts and tasks',
    },
  )
  .refine(({ concepts, rows }) => concepts.length > 0 || rows.every(({ merge }) => merge === null), {
    path: ['rows'],
    error: 'expected merge in tables of concepts only',
  });

/** A `deft compare` job with every default filled in. */
export type CompareConfig = z.output<typeof compareSchema>;

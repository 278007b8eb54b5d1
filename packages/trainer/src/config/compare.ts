import { z } from 'zod';
import type { Condition } from '../metrics/index.ts';
import { subjects } from '../world/subjects.ts';
import { choice, list, runName, section, seed, text, whole } from './fields.ts';

/** Tasks from picture to picture whose results can be scored. */
const tasks = ['canny', 'depth'] as const satisfies readonly Condition[];

const keys = () => z.record(z.string(), z.unknown(), { error: 'expected keys of a deft train file' });

/** What `deft compare` reads: rows of a table, each a way to train, and what every row is trained on. */
export const compareSchema = section({
  name: runName(),
  title: text(200),
  /** Subjects of the picture world: each row is trained on each of them alone. */
  subjects: list(choice(subjects), 0, subjects.length).default([]),
  /** In their place: tasks from picture to picture, on which each row is trained alone, and how many examples there are. */
  tasks: list(choice(tasks), 0, tasks.length).default([]),
  examples: whole(1, 10_000).default(100),
  held_out: whole(1, 1000).default(16),
  seeds: list(seed(), 1, 32),
  /** Keys of every row whose method has them. */
  common: keys().default({}),
  rows: list(section({ label: text(60), keys: keys() }), 1, 64),
}).refine(({ subjects: some, tasks: others }) => some.length > 0 !== others.length > 0, {
  path: ['subjects'],
  error: 'expected subjects or tasks, and not both',
});

/** A `deft compare` job with every default filled in. */
export type CompareConfig = z.output<typeof compareSchema>;

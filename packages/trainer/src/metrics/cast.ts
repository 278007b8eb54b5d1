/** Which subjects of the world prompts ask for. */
import type { TrainConfig } from '../config/index.ts';
import type { Subject } from '../world/subjects.ts';

export interface Cast {
  /** All of them, each once. */
  readonly subjects: readonly Subject[];
  /** The subject that a prompt names; null where it names none of them. */
  of(prompt: string): Subject | null;
}

/** One subject, whatever a prompt calls it. */
export function castOfOne(subject: Subject): Cast {
  return { subjects: [subject], of: () => subject };
}

/** Subjects by the names that stand for them in prompts: "a small NAME toy ...". */
export function castOfNames(names: Readonly<Record<string, Subject>>): Cast {
  return {
    subjects: [...new Set(Object.values(names))],
    of: (prompt) => Object.entries(names).find(([name]) => prompt.includes(` ${name} toy`))?.[1] ?? null,
  };
}

/** The cast of a job: its subject, or its names of several; null where it has neither. */
export function castOf({ subject, cast }: Pick<TrainConfig, 'subject' | 'cast'>): Cast | null {
  if (subject !== null) return castOfOne(subject);
  return Object.keys(cast).length > 0 ? castOfNames(cast) : null;
}

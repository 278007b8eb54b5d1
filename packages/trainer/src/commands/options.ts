/** Options that several commands take. */
import type { Command } from 'commander';
import type { RunMode } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { numberOption } from './numbers.ts';

export interface JobOptions {
  readonly set: readonly string[];
  readonly resume?: boolean;
  readonly fresh?: boolean;
  readonly device?: string;
  readonly runs: string;
  readonly supervise?: boolean;
  readonly hangTimeout?: number;
}

/** Adds the options of a command that reads the configuration of a job. */
export function withConfigOptions(command: Command): Command {
  const append = (value: string, before: readonly string[]): string[] => [...before, value];
  return command
    .option('--set <key=value>', 'override a key of the configuration (repeatable)', append, [])
    .option('--device <name>', 'auto, webgpu, wasm or reference');
}

/** Adds the options of a command that runs a configured job in a run folder. */
export function withJobOptions(command: Command): Command {
  return withConfigOptions(command)
    .option('--resume', 'go on with the run of this name')
    .option('--fresh', 'delete what deft wrote in the run of this name and start anew')
    .option('--runs <folder>', 'where runs are kept', 'runs')
    .option('--supervise', 'watch the job from another process, which starts it again when it hangs or dies')
    .option(
      '--hang-timeout <seconds>',
      'how long a step of a supervised job may take; default: 20 times the median, 60 at least',
      numberOption('hang-timeout', 1, 86_400),
    );
}

/** Overrides for the configuration: those written, and the device where it is given as an option. */
export function overridesOf({ set, device }: Pick<JobOptions, 'set' | 'device'>): readonly string[] {
  return device === undefined ? set : [...set, `device=${device}`];
}

/** @throws {UserError} when both are asked for */
export function runModeOf({ resume, fresh }: JobOptions): RunMode {
  if (resume && fresh) throw new UserError('give --resume or --fresh, not both', 2);
  return resume ? 'resume' : fresh ? 'fresh' : 'new';
}

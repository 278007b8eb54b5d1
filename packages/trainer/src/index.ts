/** Datasets, configurations, runs, measurements and reports: what the `deft` command is made of. */
export * from './config/index.ts';
export * from './data/index.ts';
export * from './metrics/index.ts';
export * from './progress/index.ts';
export * from './report/index.ts';
export * from './runs/index.ts';
export { type ExitStatus, UserError } from './userError.ts';
export * from './world/index.ts';

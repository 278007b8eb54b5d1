import type { Command } from 'commander';
import { adviseCommand } from './advise.ts';
import { benchCommand } from './bench.ts';
import { compareCommand } from './compare.ts';
import { convertCommand } from './convert.ts';
import { datasetCommand } from './dataset.ts';
import { diagnoseCommand } from './diagnose.ts';
import { doctorCommand } from './doctor.ts';
import { evalCommand } from './eval.ts';
import { inspectCommand } from './inspect.ts';
import { mergeCommand } from './merge.ts';
import { planCommand } from './plan.ts';
import { pretrainCommand } from './pretrain.ts';
import { sampleCommand } from './sample.ts';
import { scoreCommand } from './score.ts';
import { trainCommand } from './train.ts';
import { verifyCommand } from './verify.ts';

/**
 * Every command of `deft`, in the order of the help. A command loads what it needs inside its action, so that the help
 * of all of them is quick.
 */
export const commands: readonly (() => Command)[] = [
  trainCommand,
  planCommand,
  adviseCommand,
  sampleCommand,
  evalCommand,
  scoreCommand,
  compareCommand,
  benchCommand,
  pretrainCommand,
  inspectCommand,
  diagnoseCommand,
  convertCommand,
  mergeCommand,
  datasetCommand,
  verifyCommand,
  doctorCommand,
];

/** Every primitive of the engine, in reading order. Contract tests, documentation and coverage walk this list. */
import type { Op } from '../op.ts';
import {
  attentionKeyOp,
  attentionLogSumOp,
  attentionOp,
  attentionQueryOp,
  attentionValueOp,
} from './attention.ts';
import { bitsOp } from './bits.ts';
import { concatOp } from './concat.ts';
import { conv2dOp, conv2dWeightOp } from './conv.ts';
import { afterOp, aliasOp, stopGradientOp } from './custom.ts';
import * as elementwise from './elementwise.ts';
import { expandOp, sumOp } from './expand.ts';
import { gatherOp, scatterAddOp } from './gather.ts';
import { matmulOp } from './matmul.ts';
import { padOp, permuteOp, reshapeOp, sliceOp } from './movement.ts';
import { argmaxOp, maxOp } from './reduce.ts';
import { fullOp, iotaOp } from './source.ts';
import { unfoldOp } from './unfold.ts';

// biome-ignore format: one line per family
export const ops: readonly Op<never>[] = [
  fullOp, iotaOp,
  elementwise.negOp, elementwise.absOp, elementwise.signOp,
  elementwise.floorOp, elementwise.ceilOp, elementwise.roundOp,
  elementwise.expOp, elementwise.logOp, elementwise.sqrtOp, elementwise.rsqrtOp, elementwise.reciprocalOp,
  elementwise.sinOp, elementwise.cosOp, elementwise.tanhOp, elementwise.erfOp, elementwise.notOp,
  elementwise.addOp, elementwise.subOp, elementwise.mulOp, elementwise.divOp, elementwise.modOp,
  elementwise.maximumOp, elementwise.minimumOp, elementwise.powOp,
  elementwise.lessOp, elementwise.lessEqualOp, elementwise.equalOp, elementwise.notEqualOp,
  elementwise.andOp, elementwise.orOp, elementwise.xorOp, elementwise.shiftLeftOp, elementwise.shiftRightOp,
  elementwise.whereOp, elementwise.castOp, bitsOp, elementwise.threefryOp,
  reshapeOp, permuteOp, sliceOp, padOp, unfoldOp, aliasOp, stopGradientOp, afterOp,
  expandOp, sumOp, maxOp, argmaxOp,
  gatherOp, scatterAddOp, concatOp,
  matmulOp, conv2dOp, conv2dWeightOp,
  attentionOp, attentionLogSumOp, attentionQueryOp, attentionKeyOp, attentionValueOp,
];

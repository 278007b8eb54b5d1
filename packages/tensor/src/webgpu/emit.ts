/** Kernels to launches: one emitter for each loop of the kernel language. */

import { type Cost, costOf } from '../compiler/kernelCost.ts';
import type { Kernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import { emitAttend } from './attend.ts';
import type { Buffers } from './bindings.ts';
import type { Capabilities } from './capabilities.ts';
import { emitContract } from './contract.ts';
import type { Launch } from './launch.ts';
import { emitMap } from './map.ts';
import { emitColumns, emitReduce, rowsOf } from './reduce.ts';
import { emitRows } from './rows.ts';
import { emitScatter } from './scatter.ts';
import type { Choose } from './tune.ts';

/** The launch of a kernel and what it costs, or none where it computes no element. */
export function emitKernel(
  kernel: Kernel,
  buffers: Buffers,
  capabilities: Capabilities,
  choose: Choose = () => undefined,
): readonly (Launch & Cost)[] {
  const cost = costOf(kernel);
  return emit(kernel, buffers, capabilities, choose).map((launch) => ({ ...launch, ...cost }));
}

function emit(kernel: Kernel, buffers: Buffers, capabilities: Capabilities, choose: Choose): Launch[] {
  switch (kernel.kind) {
    case 'map':
      return numel(kernel.shape) === 0 ? [] : [emitMap(kernel, buffers, capabilities)];
    case 'reduce': {
      if (numel(kernel.shape) === 0) return [];
      const rows = rowsOf(kernel, capabilities);
      return [rows ? emitRows(rows, buffers, capabilities) : emitReduce(kernel, buffers, capabilities)];
    }
    case 'rows':
      return numel(kernel.shape) === 0
        ? []
        : [emitColumns(kernel, buffers, capabilities) ?? emitRows(kernel, buffers, capabilities)];
    case 'contract': {
      const empty = numel([...kernel.batch, ...kernel.m, ...kernel.n]) === 0;
      return empty ? [] : [emitContract(kernel, buffers, capabilities, choose)];
    }
    case 'attend':
      return [emitAttend(kernel, buffers, capabilities)];
    case 'scatter':
      return numel([kernel.outer, kernel.count, kernel.inner]) === 0
        ? []
        : [emitScatter(kernel, buffers, capabilities)];
  }
}

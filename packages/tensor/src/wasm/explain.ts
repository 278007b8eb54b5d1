/** Kernels in words. */

import { costOf, formatCount } from '../compiler/kernelCost.ts';
import { formatShape } from '../errors.ts';
import type { Kernel } from '../kernel.ts';
import type { WrittenKernel } from './target.ts';

/** The index space, as text. */
function spaceOf(kernel: Kernel): string {
  switch (kernel.kind) {
    case 'map':
      return formatShape(kernel.shape);
    case 'reduce':
    case 'rows':
      return `${formatShape(kernel.shape)} of ${formatShape(kernel.reduced)}`;
    case 'contract': {
      const [batch, m, n, k] = [kernel.batch, kernel.m, kernel.n, kernel.k].map(formatShape);
      return `batch ${batch} m ${m} n ${n} k ${k}`;
    }
    case 'attend':
      return `batch ${formatShape(kernel.batch)} queries ${kernel.queries} keys ${kernel.keys} width ${kernel.width}`;
    case 'scatter':
      return formatShape([kernel.outer, kernel.count, kernel.inner]);
  }
}

/** "3 contract conv2d+add: batch [16] m [64] n [16, 16] k [64, 3, 3], 302 Mflop, 5.4 MB, 32 chunks". */
export function describeKernel(kernel: Kernel, written: WrittenKernel, position: number): string {
  const { flops, bytes } = costOf(kernel);
  const chunks = written.phases.map((phase) => phase.chunks).join(' + ');
  const cost = `${formatCount(flops, 'flop')}, ${formatCount(bytes, 'B')}, ${chunks} chunks`;
  return `${position} ${kernel.kind} ${kernel.label}: ${spaceOf(kernel)}, ${cost}`;
}

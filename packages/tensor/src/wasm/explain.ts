/** Kernels in words. */
import { bytesPerElement } from '../dtype.ts';
import { formatShape } from '../errors.ts';
import type { Kernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import { outputsOf, type WrittenKernel } from './target.ts';

/** The index space, as text. */
function spaceOf(kernel: Kernel): string {
  switch (kernel.kind) {
    case 'map':
      return formatShape(kernel.shape);
    case 'reduce':
      return `${formatShape(kernel.shape)} of ${formatShape(kernel.reduced)}`;
    case 'contract':
      return [kernel.batch, kernel.m, kernel.n, kernel.k].map(formatShape).join(' ');
    case 'scatter':
      return formatShape([kernel.outer, kernel.count, kernel.inner]);
  }
}

/** Multiply-adds count twice; an elementwise expression counts once for each element. */
function flopsOf(kernel: Kernel): number {
  switch (kernel.kind) {
    case 'map':
      return numel(kernel.shape) * kernel.outputs.length;
    case 'reduce':
      return numel(kernel.shape) * numel(kernel.reduced);
    case 'contract':
      return 2 * numel([...kernel.batch, ...kernel.m, ...kernel.n, ...kernel.k]);
    case 'scatter':
      return kernel.outer * kernel.count * kernel.inner;
  }
}

/** "3 contract conv2d+add: [16] [64] [16, 16] [64, 3, 3], 0.30 GFLOP, out 1048576 B, 16 chunks". */
export function describeKernel(kernel: Kernel, written: WrittenKernel, position: number): string {
  const elements =
    kernel.kind === 'scatter' ? kernel.outer * kernel.extent * kernel.inner : outputElements(kernel);
  const bytes = outputsOf(kernel).reduce((sum, { dtype }) => sum + elements * bytesPerElement(dtype), 0);
  const chunks = written.phases.map((phase) => phase.chunks).join(' + ');
  return `${position} ${kernel.kind} ${kernel.label}: ${spaceOf(kernel)}, ${flopsOf(kernel)} flops, writes ${bytes} bytes, ${chunks} chunks`;
}

function outputElements(kernel: Exclude<Kernel, { kind: 'scatter' }>): number {
  return kernel.kind === 'contract'
    ? numel([...kernel.batch, ...kernel.m, ...kernel.n])
    : numel(kernel.shape);
}

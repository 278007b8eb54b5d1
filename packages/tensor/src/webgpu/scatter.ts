/** Scatter kernels: one invocation adds up a column, in the order of the index, so that equal runs agree bitwise. */
import type { ScatterKernel } from '../kernel.ts';
import { loadOne, storeOne } from './access.ts';
import { type Buffers, KernelBindings } from './bindings.ts';
import type { Capabilities } from './capabilities.ts';
import { GROUP, LANE, type Launch, launch, spaces, workgroupSizeFor } from './launch.ts';
import { Module, Statements } from './module.ts';
import { Point } from './point.ts';

/** The launch that adds the values to an output that holds zeros (see rewrite.ts). */
export function emitScatter(kernel: ScatterKernel, buffers: Buffers, capabilities: Capabilities): Launch {
  const { outer, count, inner, extent } = kernel;
  const module = new Module(capabilities);
  const bindings = new KernelBindings(module, buffers, kernel, [kernel.output]);
  const [index, values, output] = [
    bindings.at(kernel.index.binding),
    bindings.at(kernel.values.binding),
    bindings.output(kernel.output),
  ];
  const columns = outer * inner;
  const size = workgroupSizeFor(columns, capabilities);
  const body = new Statements(module);
  body.line(`let column = ${GROUP} * ${size}u + ${LANE};`);
  body.line(`if (column >= ${columns}u) { return; }`);
  const o = body.let('u32', `column / ${inner}u`);
  const d = body.let('u32', `column % ${inner}u`);
  const loop = new Statements(module, body);
  const i = loop.let('u32', `u32(${loadOne(module, index.binding, index.dtype, 'j')})`);
  const target = loop.let('u32', `(${o} * ${extent}u + ${i}) * ${inner}u + ${d}`);
  const source = loop.let('u32', `(${o} * ${count}u + j) * ${inner}u + ${d}`);
  const before = loadOne(module, output.binding, output.dtype, target);
  const added = loadOne(module, values.binding, values.dtype, source);
  const sum = storeOne(module, output, target, `${before} + ${added}`);
  loop.line(`if (${Point.within(i, extent)}) { ${sum} }`);
  body.nest(`for (var j = 0u; j < ${count}u; j += 1u)`, loop);
  return launch(module, {
    label: kernel.label,
    description: `scatter ${spaces([outer, count, inner])} -> ${spaces([outer, extent, inner])}`,
    workgroupSize: size,
    workgroups: Math.ceil(columns / size),
    body,
  });
}

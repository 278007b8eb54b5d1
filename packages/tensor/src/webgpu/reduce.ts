/**
 * Reduce kernels: P lanes of a workgroup fold one output, or four neighbouring ones, then combine in a fixed tree.
 *
 * Loads go in quads: along the folded axis where that is contiguous, else along the output's last axis. A lane adds
 * up blocks of 32 before it adds to its total, so that rounding grows with the square root of the length, not with
 * the length.
 */
import { readsOf } from '../compiler/expression.ts';
import type { Expr, ReduceKernel, Scalar } from '../kernel.ts';
import { numel } from '../shape.ts';
import { storeOne, storeQuad } from './access.ts';
import { type Buffers, KernelBindings } from './bindings.ts';
import type { Capabilities } from './capabilities.ts';
import { Emitter, type Value } from './emitter.ts';
import { GROUP, LANE, type Launch, launch, loopStart, spaces, workgroupSizeFor } from './launch.ts';
import { functionsOf } from './map.ts';
import { Module, registerType, Statements } from './module.ts';
import {
  type Coordinate,
  coordinatesOf,
  decompose,
  decomposeRuns,
  type NamedCoordinate,
  Point,
} from './point.ts';

/** Terms that a lane adds before it adds their sum to its total. */
export const BLOCK = 32;

interface Parts {
  readonly kernel: ReduceKernel;
  readonly module: Module;
  readonly bindings: KernelBindings;
  readonly outer: readonly Coordinate[];
  readonly folded: readonly Coordinate[];
  /** Which neighbours are computed four at a time. */
  readonly quads: 'folded' | 'outer' | 'none';
  /** Outputs, or quads of them. */
  readonly outputs: number;
  /** Terms of an output, or quads of them. */
  readonly terms: number;
  readonly lanes: number;
  readonly workgroupSize: number;
}

/** The launch of a reduce kernel. */
export function emitReduce(kernel: ReduceKernel, buffers: Buffers, capabilities: Capabilities): Launch {
  const module = new Module(capabilities);
  const bindings = new KernelBindings(module, buffers, kernel, [kernel.output]);
  const rank = kernel.shape.length;
  const space = [...kernel.shape, ...kernel.reduced];
  const bodyFunctions = functionsOf(kernel.body);
  const outer = coordinatesOf(space, [...bodyFunctions, ...functionsOf(kernel.output.expr)], 0, rank);
  const folded = coordinatesOf(space, bodyFunctions, rank);
  const quads = quadDirection(kernel.body, outer, folded);
  const outputs = numel(kernel.shape) / (quads === 'outer' ? 4 : 1);
  const terms = numel(kernel.reduced) / (quads === 'folded' ? 4 : 1);
  const lanes = lanesFor(outputs, terms, quads, capabilities);
  const workgroupSize = lanes === 1 ? workgroupSizeFor(outputs, capabilities) : Math.max(64, lanes);
  return emit({ kernel, module, bindings, outer, folded, quads, outputs, terms, lanes, workgroupSize });
}

function quadDirection(
  body: Expr,
  outer: readonly Coordinate[],
  folded: readonly Coordinate[],
): Parts['quads'] {
  const reads = readsOf(body);
  const contiguous = (coordinate: Coordinate | undefined) =>
    coordinate !== undefined &&
    coordinate.extent % 4 === 0 &&
    reads.some(({ view }) => view.strides[coordinate.axis] === 1);
  if (contiguous(folded.at(-1))) return 'folded';
  return contiguous(outer.at(-1)) ? 'outer' : 'none';
}

/** Lanes to an output, a power of two: one on software, where a barrier costs more than a row's worth of loads. */
function lanesFor(outputs: number, terms: number, quads: Parts['quads'], capabilities: Capabilities): number {
  if (capabilities.software || terms < 8) return 1;
  const most = Math.min(256, capabilities.maxInvocationsPerWorkgroup);
  // Lanes side by side on a contiguous row read side by side; across rows, they only help to fill the device.
  const wanted = quads === 'folded' ? terms / 2 : Math.min(terms / 4, 16384 / outputs);
  let lanes = 1;
  while (lanes * 2 <= Math.min(most, wanted)) lanes *= 2;
  return lanes;
}

function emit(parts: Parts): Launch {
  const { kernel, module, bindings, outer, folded, quads, outputs, terms, lanes, workgroupSize } = parts;
  const perGroup = workgroupSize / lanes;
  const body = new Statements(module);
  // Adjacent lanes share an output where its terms are adjacent in memory, else they have adjacent outputs.
  const byTerm = quads === 'folded';
  const lane = byTerm ? `${LANE} % ${lanes}u` : `${LANE} / ${perGroup}u`;
  const slot = byTerm ? `${LANE} / ${lanes}u` : `${LANE} % ${perGroup}u`;
  body.line(`let wanted = ${GROUP} * ${perGroup}u + ${lanes === 1 ? LANE : slot};`);
  if (lanes === 1) body.line(`if (wanted >= ${outputs}u) { return; }`);
  body.line(`let first = ${lanes === 1 ? loopStart(module.capabilities) : lane};`);
  // Where barriers follow, a lane without an output repeats the last one.
  const position = lanes === 1 ? 'wanted' : body.let('u32', `min(wanted, ${outputs - 1}u)`);
  const named =
    quads === 'outer' ? decomposeRuns(body, 0, outer, position, 4) : decompose(body, 0, outer, position);
  const quad = quads === 'outer' ? named.at(-1)! : null;
  declareQuads(parts);
  const fold = new Fold(kernel, module, quads);
  fold.declare(body, 'total');
  if (terms > 0) emitLoop(parts, body, fold, named, quad);
  if (quads === 'folded') fold.narrow(body);
  if (lanes > 1) fold.combineLanes(body, workgroupSize, lanes, byTerm ? 1 : perGroup);
  const tail = lanes === 1 ? body : new Statements(module, body);
  emitStore(parts, tail, fold, new Point([tail], named, quad), position);
  if (lanes > 1) body.nest(`if (first == 0u && wanted < ${outputs}u)`, tail);
  return launch(module, {
    label: kernel.label,
    description: `${kernel.fold} ${spaces([...kernel.shape, ...kernel.reduced])} -> ${spaces(kernel.shape)}`,
    workgroupSize,
    workgroups: Math.ceil(outputs / perGroup),
    body,
  });

  function declareQuads({ quads: direction }: Parts): void {
    const epilogue = readsOf(kernel.output.expr).map((read) => bindings.at(read.binding).binding);
    const output = bindings.output(kernel.output).binding;
    const coordinates = [...outer, ...folded];
    if (direction === 'folded') {
      bindings.declareQuads([kernel.body], [], coordinates, folded.at(-1)!, [...epilogue, output]);
    }
    if (direction === 'outer') {
      bindings.declareQuads([kernel.body, kernel.output.expr], [kernel.output], coordinates, outer.at(-1)!);
    }
  }
}

/** The loop of one lane over its terms, into `total`. */
function emitLoop(
  { kernel, module, bindings, folded, quads, terms, lanes }: Parts,
  body: Statements,
  fold: Fold,
  named: readonly NamedCoordinate[],
  outerQuad: NamedCoordinate | null,
): void {
  const blocked = kernel.fold === 'sum' && kernel.body.type === 'f32' && terms / lanes > 2 * BLOCK;
  const block = blocked ? new Statements(module, body) : body;
  const inner = new Statements(module, block);
  const inLoop =
    quads === 'folded' ? decomposeRuns(inner, 1, folded, 'term', 4) : decompose(inner, 1, folded, 'term');
  const quad = quads === 'folded' ? inLoop.at(-1)! : outerQuad;
  const point = new Point([body, inner], [...named, ...inLoop], quad);
  const emitter = new Emitter(module, bindings, point);
  const value = emitter.value(kernel.body);
  const name = fold.wide ? emitter.wide(value) : value.name;
  fold.add(inner, blocked ? 'part' : 'total', name, quads === 'folded' ? 'term * 4u' : 'term');
  if (!blocked) {
    body.nest(`for (var term = first; term < ${terms}u; term += ${lanes}u)`, inner);
    return;
  }
  const stride = BLOCK * lanes;
  fold.declare(block, 'part');
  block.nest(`for (var term = start; term < min(start + ${stride}u, ${terms}u); term += ${lanes}u)`, inner);
  block.line('total += part;');
  body.nest(`for (var start = first; start < ${terms}u; start += ${stride}u)`, block);
}

function emitStore(
  { kernel, module, bindings, quads }: Parts,
  tail: Statements,
  fold: Fold,
  point: Point,
  position: string,
): void {
  const folded = fold.value(tail, quads === 'outer');
  const emitter = new Emitter(module, bindings, point, [folded]);
  const value = emitter.value(kernel.output.expr);
  const access = bindings.output(kernel.output);
  if (quads !== 'outer') {
    tail.line(storeOne(module, access, position, value.name));
    return;
  }
  const wide = emitter.wide(value);
  if (access.binding.quads) {
    tail.line(storeQuad(module, access, `${position} * 4u`, wide));
    return;
  }
  ['x', 'y', 'z', 'w'].forEach((component, j) => {
    tail.line(storeOne(module, access, `${position} * 4u + ${j}u`, `${wide}.${component}`));
  });
}

/** The running value of a fold, in WGSL variables; for argmax, `<name>At` holds where it was met first. */
class Fold {
  readonly #kind: ReduceKernel['fold'];
  readonly #module: Module;
  readonly #type: Scalar;
  readonly #bodyType: Scalar;
  readonly #quadsAreTerms: boolean;
  #wide: boolean;
  #name = 'total';

  constructor(kernel: ReduceKernel, module: Module, quads: Parts['quads']) {
    this.#quadsAreTerms = quads === 'folded';
    this.#kind = kernel.fold;
    this.#module = module;
    this.#bodyType = kernel.body.type;
    this.#type = kernel.body.type === 'bool' ? 'u32' : kernel.body.type; // WGSL has no max of bools
    this.#wide = quads !== 'none';
  }

  get wide(): boolean {
    return this.#wide;
  }

  #registers(type = this.#type, wide = this.#wide): string {
    return registerType(type, wide);
  }

  declare(block: Statements, name: string): void {
    block.line(`var ${name} = ${this.#registers()}(${this.#kind === 'sum' ? '' : this.#lowest()});`);
    if (this.#kind === 'argmax') block.line(`var ${name}At = ${this.#registers('i32')}();`);
  }

  #lowest(): string {
    if (this.#type === 'f32') return `-${this.#module.call('infinity')}()`;
    return this.#type === 'i32' ? 'i32(-2147483648)' : '0u';
  }

  /** Folds in a value; `term` (u32) is its position, the first of four where it is wide. */
  add(block: Statements, name: string, value: string, term: string): void {
    const own = this.#bodyType === 'bool' ? `${this.#registers()}(${value})` : value;
    if (this.#kind === 'sum') block.line(`${name} += ${own};`);
    if (this.#kind === 'max') block.line(`${name} = max(${name}, ${own});`);
    if (this.#kind !== 'argmax') return;
    // Terms come in rising order, so only a larger value moves the position.
    const first = this.#wide ? `vec4i(i32(${term}))` : `i32(${term})`;
    const at = this.#quadsAreTerms ? `${first} + vec4i(0, 1, 2, 3)` : first;
    const better = block.let(registerType('bool', this.#wide), `${own} > ${name}`);
    block.line(`${name}At = select(${name}At, ${at}, ${better});`);
    block.line(`${name} = select(${name}, ${own}, ${better});`);
  }

  /** The four folded values of `total` into one. */
  narrow(block: Statements): void {
    const components = ['x', 'y', 'z', 'w'];
    if (this.#kind === 'argmax') {
      block.line('var best = total.x;');
      block.line('var bestAt = totalAt.x;');
      for (const c of components.slice(1))
        block.line(this.#prefer('best', 'bestAt', `total.${c}`, `totalAt.${c}`));
    } else {
      const [x, y, z, w] = components.map((c) => `total.${c}`);
      const pairs =
        this.#kind === 'sum' ? `(${x} + ${y}) + (${z} + ${w})` : `max(max(${x}, ${y}), max(${z}, ${w}))`;
      block.line(`var best = ${pairs};`);
    }
    this.#wide = false;
    this.#name = 'best';
  }

  /** Replaces (a, aAt) by (b, bAt) where b is larger, or equal and met earlier. */
  #prefer(a: string, aAt: string, b: string, bAt: string): string {
    const type = this.#wide ? '&' : '&&';
    const or = this.#wide ? '|' : '||';
    const better = `(${b} > ${a}) ${or} ((${b} == ${a}) ${type} (${bAt} < ${aAt}))`;
    if (!this.#wide) return `if (${better}) { ${a} = ${b}; ${aAt} = ${bAt}; }`;
    return `{ let better = ${better}; ${a} = select(${a}, ${b}, better); ${aAt} = select(${aAt}, ${bAt}, better); }`;
  }

  /** The tree over a workgroup's lanes; afterwards the first lane of each output has its value. */
  combineLanes(block: Statements, workgroupSize: number, lanes: number, stride: number): void {
    const name = this.#name;
    const argmax = this.#kind === 'argmax';
    this.#module.declare(`var<workgroup> shared_values: array<${this.#registers()}, ${workgroupSize}>;`);
    block.line(`shared_values[${LANE}] = ${name};`);
    if (argmax) {
      this.#module.declare(`var<workgroup> shared_at: array<${this.#registers('i32')}, ${workgroupSize}>;`);
      block.line(`shared_at[${LANE}] = ${name}At;`);
    }
    block.line('workgroupBarrier();');
    for (let half = lanes / 2; half >= 1; half /= 2) {
      const step = new Statements(this.#module, block);
      const other = `${LANE} + ${half * stride}u`;
      if (argmax) {
        step.line(`let other = shared_values[${other}];`);
        step.line(`let otherAt = shared_at[${other}];`);
        step.line(this.#prefer(name, `${name}At`, 'other', 'otherAt'));
        step.line(`shared_at[${LANE}] = ${name}At;`);
      } else if (this.#kind === 'sum') step.line(`${name} += shared_values[${other}];`);
      else step.line(`${name} = max(${name}, shared_values[${other}]);`);
      step.line(`shared_values[${LANE}] = ${name};`);
      block.nest(`if (first < ${half}u)`, step);
      block.line('workgroupBarrier();');
    }
  }

  /** What the epilogue's `folded` stands for. */
  value(block: Statements, wide: boolean): Value {
    const name = this.#name;
    if (this.#kind === 'argmax')
      return { name: block.let(registerType('i32', wide), `${name}At`), type: 'i32', wide, level: 0 };
    if (this.#bodyType !== 'bool')
      return { name: block.let(this.#registers(), name), type: this.#type, wide, level: 0 };
    return {
      name: block.let(registerType('bool', wide), `${name} != ${this.#registers()}()`),
      type: 'bool',
      wide,
      level: 0,
    };
  }
}

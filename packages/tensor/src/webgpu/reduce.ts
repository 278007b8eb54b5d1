/**
 * Reduce kernels: P lanes of a workgroup fold one output, or four neighbouring ones, then combine in a fixed tree.
 *
 * Loads go in quads: along the folded axis where that is contiguous, else along the output's last axis. A lane adds
 * up blocks of 32 before it adds to its total, so that rounding grows with the square root of the length, not with
 * the length.
 */
import { readsOf } from '../compiler/expression.ts';
import { isFolds } from '../compiler/folds.ts';
import type { Expr, Output, ReduceKernel, RowsKernel, Scalar } from '../kernel.ts';
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

/** Folds over the same terms, and outputs of their results. */
type Folds = Pick<ReduceKernel, 'label' | 'bindings' | 'shape' | 'reduced'> & {
  readonly folds: readonly Pick<ReduceKernel, 'fold' | 'body'>[];
  readonly outputs: readonly Output[];
};

interface Parts {
  readonly kernel: Folds;
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
  return emitFolds({ ...kernel, folds: [kernel], outputs: [kernel.output] }, module, bindings);
}

/** The launch of a rows kernel of nothing but folds where neighbours in memory are in different rows; else null. */
export function emitColumns(kernel: RowsKernel, buffers: Buffers, capabilities: Capabilities): Launch | null {
  if (!isFolds(kernel) || spaceOf(kernel).quads !== 'outer') return null;
  const module = new Module(capabilities);
  return emitFolds(kernel, module, new KernelBindings(module, buffers, kernel, kernel.outputs));
}

/**
 * A fold along memory as a kernel of rows, whose subgroups read side by side; null for other folds, and where there are
 * GPUs, whose lanes do so here.
 */
export function rowsOf(kernel: ReduceKernel, { software }: Capabilities): RowsKernel | null {
  const { fold, body, output, label, bindings, shape, reduced } = kernel;
  if (!software || fold === 'argmax' || body.type !== 'f32') return null;
  const outputs = [{ ...output, per: 'row' as const }];
  const rows: RowsKernel = {
    kind: 'rows',
    label,
    bindings,
    shape,
    reduced,
    folds: [{ fold, body }],
    outputs,
  };
  return spaceOf(rows).quads === 'folded' ? rows : null;
}

function spaceOf({ shape, reduced, folds, outputs }: Folds): Pick<Parts, 'outer' | 'folded' | 'quads'> {
  const space = [...shape, ...reduced];
  const bodies = folds.map(({ body }) => body);
  const functions = [...functionsOf(...bodies), ...functionsOf(...outputs.map(({ expr }) => expr))];
  const outer = coordinatesOf(space, functions, 0, shape.length);
  const folded = coordinatesOf(space, functionsOf(...bodies), shape.length);
  return { outer, folded, quads: quadDirection(bodies, outer, folded) };
}

function emitFolds(kernel: Folds, module: Module, bindings: KernelBindings): Launch {
  const { capabilities } = module;
  const { outer, folded, quads } = spaceOf(kernel);
  const outputs = numel(kernel.shape) / (quads === 'outer' ? 4 : 1);
  const terms = numel(kernel.reduced) / (quads === 'folded' ? 4 : 1);
  const lanes = lanesFor(outputs, terms, quads, capabilities);
  const workgroupSize = lanes === 1 ? workgroupSizeFor(outputs, capabilities) : Math.max(64, lanes);
  return emit({ kernel, module, bindings, outer, folded, quads, outputs, terms, lanes, workgroupSize });
}

function quadDirection(
  bodies: readonly Expr[],
  outer: readonly Coordinate[],
  folded: readonly Coordinate[],
): Parts['quads'] {
  const reads = readsOf(...bodies);
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
  const folds = kernel.folds.map((fold, i) => new Fold(fold, module, quads, i));
  for (const fold of folds) fold.declare(body, 'total');
  if (terms > 0) emitLoop(parts, body, folds, named, quad);
  for (const fold of folds) {
    if (quads === 'folded') fold.narrow(body);
    if (lanes > 1) fold.combineLanes(body, workgroupSize, lanes, byTerm ? 1 : perGroup);
  }
  const tail = lanes === 1 ? body : new Statements(module, body);
  emitStores(parts, tail, folds, new Point([tail], named, quad), position);
  if (lanes > 1) body.nest(`if (first == 0u && wanted < ${outputs}u)`, tail);
  return launch(module, {
    label: kernel.label,
    description: `${kernel.folds.map(({ fold }) => fold).join(' ')} ${spaces([...kernel.shape, ...kernel.reduced])} -> ${spaces(kernel.shape)}`,
    workgroupSize,
    workgroups: Math.ceil(outputs / perGroup),
    body,
  });

  function declareQuads({ quads: direction }: Parts): void {
    const bodies = kernel.folds.map((fold) => fold.body);
    const results = kernel.outputs.map(({ expr }) => expr);
    const epilogue = readsOf(...results).map((read) => bindings.at(read.binding).binding);
    const written = kernel.outputs.map((output) => bindings.output(output).binding);
    const coordinates = [...outer, ...folded];
    if (direction === 'folded') {
      bindings.declareQuads(bodies, [], coordinates, folded.at(-1)!, [...epilogue, ...written]);
    }
    if (direction === 'outer') {
      bindings.declareQuads([...bodies, ...results], kernel.outputs, coordinates, outer.at(-1)!);
    }
  }
}

/** The loop of one lane over its terms, into the totals. */
function emitLoop(
  { kernel, module, bindings, folded, quads, terms, lanes }: Parts,
  body: Statements,
  folds: readonly Fold[],
  named: readonly NamedCoordinate[],
  outerQuad: NamedCoordinate | null,
): void {
  const isLong = kernel.folds.some(({ fold, body: { type } }) => fold === 'sum' && type === 'f32');
  const blocked = isLong && terms / lanes > 2 * BLOCK;
  const block = blocked ? new Statements(module, body) : body;
  const inner = new Statements(module, block);
  const inLoop =
    quads === 'folded' ? decomposeRuns(inner, 1, folded, 'term', 4) : decompose(inner, 1, folded, 'term');
  const quad = quads === 'folded' ? inLoop.at(-1)! : outerQuad;
  const point = new Point([body, inner], [...named, ...inLoop], quad);
  const emitter = new Emitter(module, bindings, point);
  kernel.folds.forEach(({ body: expr }, i) => {
    const value = emitter.value(expr);
    const fold = folds[i]!;
    const name = fold.wide ? emitter.wide(value) : value.name;
    fold.add(inner, blocked ? 'part' : 'total', name, quads === 'folded' ? 'term * 4u' : 'term');
  });
  if (!blocked) {
    body.nest(`for (var term = first; term < ${terms}u; term += ${lanes}u)`, inner);
    return;
  }
  const stride = BLOCK * lanes;
  for (const fold of folds) fold.declare(block, 'part');
  block.nest(`for (var term = start; term < min(start + ${stride}u, ${terms}u); term += ${lanes}u)`, inner);
  for (const fold of folds) fold.takeIn(block);
  body.nest(`for (var start = first; start < ${terms}u; start += ${stride}u)`, block);
}

function emitStores(
  { kernel, module, bindings, quads }: Parts,
  tail: Statements,
  folds: readonly Fold[],
  point: Point,
  position: string,
): void {
  const folded = folds.map((fold) => fold.value(tail, quads === 'outer'));
  const emitter = new Emitter(module, bindings, point, folded);
  for (const output of kernel.outputs) {
    const value = emitter.value(output.expr);
    const access = bindings.output(output);
    if (quads !== 'outer') {
      tail.line(storeOne(module, access, position, value.name));
      continue;
    }
    const wide = emitter.wide(value);
    if (access.binding.quads) {
      tail.line(storeQuad(module, access, `${position} * 4u`, wide));
      continue;
    }
    ['x', 'y', 'z', 'w'].forEach((component, j) => {
      tail.line(storeOne(module, access, `${position} * 4u + ${j}u`, `${wide}.${component}`));
    });
  }
}

/** The running value of fold `index`, in WGSL variables; for argmax, `<name>At` holds where it was met first. */
class Fold {
  readonly #kind: ReduceKernel['fold'];
  readonly #module: Module;
  readonly #type: Scalar;
  readonly #bodyType: Scalar;
  readonly #quadsAreTerms: boolean;
  #wide: boolean;
  readonly #index: number;
  #name: string;

  constructor(kernel: Folds['folds'][number], module: Module, quads: Parts['quads'], index: number) {
    this.#index = index;
    this.#name = `total${index}`;
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

  declare(block: Statements, prefix: 'total' | 'part'): void {
    const name = prefix + this.#index;
    block.line(`var ${name} = ${this.#registers()}(${this.#kind === 'sum' ? '' : this.#lowest()});`);
    if (this.#kind === 'argmax') block.line(`var ${name}At = ${this.#registers('i32')}();`);
  }

  #lowest(): string {
    if (this.#type === 'f32') return `-${this.#module.call('infinity')}()`;
    return this.#type === 'i32' ? 'i32(-2147483648)' : '0u';
  }

  /** Folds in a value; `term` (u32) is its position, the first of four where it is wide. */
  add(block: Statements, prefix: 'total' | 'part', value: string, term: string): void {
    const name = prefix + this.#index;
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

  /** Takes a part into the total. */
  takeIn(block: Statements): void {
    const [total, part] = [`total${this.#index}`, `part${this.#index}`];
    block.line(this.#kind === 'sum' ? `${total} += ${part};` : `${total} = max(${total}, ${part});`);
  }

  /** The four folded values of the total into one. */
  narrow(block: Statements): void {
    const components = ['x', 'y', 'z', 'w'];
    const [total, best] = [this.#name, `best${this.#index}`];
    if (this.#kind === 'argmax') {
      block.line(`var ${best} = ${total}.x;`);
      block.line(`var ${best}At = ${total}At.x;`);
      for (const c of components.slice(1))
        block.line(this.#prefer(best, `${best}At`, `${total}.${c}`, `${total}At.${c}`));
    } else {
      const [x, y, z, w] = components.map((c) => `${total}.${c}`);
      const pairs =
        this.#kind === 'sum' ? `(${x} + ${y}) + (${z} + ${w})` : `max(max(${x}, ${y}), max(${z}, ${w}))`;
      block.line(`var ${best} = ${pairs};`);
    }
    this.#wide = false;
    this.#name = best;
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
    // Folds of one type take turns with one array: a barrier ends the tree of each.
    const shared = `shared_${this.#wide ? 'quads_' : ''}${this.#type}`;
    this.#module.declare(`var<workgroup> ${shared}: array<${this.#registers()}, ${workgroupSize}>;`);
    block.line(`${shared}[${LANE}] = ${name};`);
    if (argmax) {
      this.#module.declare(`var<workgroup> shared_at: array<${this.#registers('i32')}, ${workgroupSize}>;`);
      block.line(`shared_at[${LANE}] = ${name}At;`);
    }
    block.line('workgroupBarrier();');
    for (let half = lanes / 2; half >= 1; half /= 2) {
      const step = new Statements(this.#module, block);
      const other = `${LANE} + ${half * stride}u`;
      if (argmax) {
        step.line(`let other = ${shared}[${other}];`);
        step.line(`let otherAt = shared_at[${other}];`);
        step.line(this.#prefer(name, `${name}At`, 'other', 'otherAt'));
        step.line(`shared_at[${LANE}] = ${name}At;`);
      } else if (this.#kind === 'sum') step.line(`${name} += ${shared}[${other}];`);
      else step.line(`${name} = max(${name}, ${shared}[${other}]);`);
      step.line(`${shared}[${LANE}] = ${name};`);
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

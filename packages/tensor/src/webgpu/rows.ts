/**
 * Rows: the lanes of a row fold it together, pass by pass, then write its elements.
 *
 * On a GPU a row is the work of a workgroup or a part of one, whose lanes combine in a fixed tree. On software, where
 * barriers are dear, it is that of one subgroup, which is a workgroup of its own, or of one invocation. What several
 * passes need is computed in each: an exponential costs less than to store and load it.
 */
import { readsOf, walk } from '../compiler/expression.ts';
import type { Expr, RowsKernel, RowsOutput } from '../kernel.ts';
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
import { BLOCK } from './reduce.ts';

type Fold = RowsKernel['folds'][number];

interface Parts {
  readonly kernel: RowsKernel;
  /** Its outputs that have a number for each element, and for each row. */
  readonly elements: readonly RowsOutput[];
  readonly ofRows: readonly RowsOutput[];
  readonly module: Module;
  readonly bindings: KernelBindings;
  readonly along: readonly Coordinate[];
  /** Whether four neighbours in a row are computed at a time. */
  readonly wide: boolean;
  /** Elements of a row, or quads of them. */
  readonly terms: number;
  readonly lanes: number;
  readonly workgroupSize: number;
  /** Rows that the lanes fold one after the other and write together. */
  readonly tall: number;
}

/** Rows that share what their elements read, such as weights: on software adapters reads are what costs. */
const TALL = 4;
/** Elements from which that is worth it: the code of four rows takes software's compilers three times as long. */
const WORTHWHILE = 2 ** 18;

/** The launch of a rows kernel. */
export function emitRows(kernel: RowsKernel, buffers: Buffers, capabilities: Capabilities): Launch {
  const module = new Module(capabilities);
  const bindings = new KernelBindings(module, buffers, kernel, kernel.outputs);
  const rank = kernel.shape.length;
  const space = [...kernel.shape, ...kernel.reduced];
  const [rows, length] = [numel(kernel.shape), numel(kernel.reduced)];
  const elements = kernel.outputs.filter(({ per }) => per === 'element');
  const ofRows = kernel.outputs.filter(({ per }) => per === 'row');
  const roots = [...kernel.folds.map(({ body }) => body), ...elements.map(({ expr }) => expr)];
  const functions = functionsOf(...roots, ...ofRows.map(({ expr }) => expr));
  const outer = coordinatesOf(space, functions, 0, rank);
  const along = coordinatesOf(space, functions, rank);
  const quad = along.at(-1);
  const wide = quad !== undefined && quad.extent % 4 === 0;
  const terms = length / (wide ? 4 : 1);
  const lanes = lanesFor(terms, capabilities);
  const workgroupSize = workgroupFor(rows, lanes, capabilities);
  const isShared = functionsOf(...elements.map(({ expr }) => expr)).some(
    ({ strides }) =>
      strides.slice(0, rank).every((stride) => stride === 0) && strides.some((stride) => stride !== 0),
  );
  const suits = capabilities.software && lanes > 1 && rows % TALL === 0 && rows * length >= WORTHWHILE;
  const tall = isShared && suits ? TALL : 1;
  const parts = {
    kernel,
    elements,
    ofRows,
    module,
    bindings,
    along,
    wide,
    terms,
    lanes,
    workgroupSize,
    tall,
  };
  if (wide) {
    const single = readsOf(...ofRows.map(({ expr }) => expr)).map(
      (read) => bindings.at(read.binding).binding,
    );
    const written = ofRows.map((output) => bindings.output(output).binding);
    bindings.declareQuads(roots, elements, [...outer, ...along], quad, [...single, ...written]);
  }

  const perGroup = (workgroupSize / lanes) * tall;
  const body = new Statements(module);
  if (lanes === 1) {
    body.line(`let row = ${GROUP} * ${workgroupSize}u + ${LANE};`);
    body.line(`if (row >= ${rows}u) { return; }`);
    body.line(`let first = ${loopStart(capabilities)};`);
  } else {
    body.line(`let wanted = ${GROUP} * ${perGroup}u + ${LANE} / ${lanes}u;`);
    // Barriers follow: one without a row repeats the last.
    if (tall === 1) body.line(`let row = min(wanted, ${rows - 1}u);`);
    body.line(`let first = ${LANE} % ${lanes}u;`);
  }
  const folding = tall === 1 ? body : new Statements(module, body);
  if (tall > 1) folding.line('let row = wanted + r;');
  const folded: Value[] = [];
  const own = decompose(folding, 0, outer, 'row');
  for (const pass of passesOf(kernel)) emitPass(parts, folding, own, pass, folded);
  const stores = new Statements(module, body);
  if (tall === 1) emitOutputs(parts, stores, [{ row: 'row', named: own, folded }]);
  else {
    folded.forEach(({ name, type }, i) => {
      body.line(`var kept${i}: array<${registerType(type, false)}, ${tall}>;`);
      folding.line(`kept${i}[r] = ${name};`);
    });
    body.nest(`for (var r = ${loopStart(capabilities)}; r < ${tall}u; r += 1u)`, folding);
    const done = Array.from({ length: tall }, (_, r): Row => {
      const row = body.let('u32', `wanted + ${r}u`);
      const kept = folded.map((value, i) => ({
        ...value,
        name: body.let(registerType(value.type, false), `kept${i}[${r}]`),
      }));
      return { row, named: decompose(body, 0, outer, row), folded: kept };
    });
    emitOutputs(parts, stores, done);
  }
  body.nest(lanes === 1 ? '' : `if (wanted < ${rows}u)`, stores);
  return launch(module, {
    label: kernel.label,
    description: `rows ${spaces(kernel.shape, kernel.reduced)}, ${kernel.folds.map(({ fold }) => fold).join(' ')}`,
    workgroupSize,
    workgroups: Math.ceil(rows / perGroup),
    body,
  });
}

/** Lanes to a row, a power of two. */
function lanesFor(
  terms: number,
  { software, subgroupSize, maxInvocationsPerWorkgroup }: Capabilities,
): number {
  if (software) return subgroupSize > 1 && terms >= 2 * subgroupSize ? subgroupSize : 1;
  let lanes = 1;
  while (lanes * 4 <= terms && lanes * 2 <= Math.min(256, maxInvocationsPerWorkgroup)) lanes *= 2;
  return lanes;
}

function workgroupFor(rows: number, lanes: number, capabilities: Capabilities): number {
  if (lanes === 1) return workgroupSizeFor(rows, capabilities);
  return capabilities.software ? lanes : Math.max(64, lanes);
}

/** The folds by passes over the row: those that need no result of one another go together. */
function passesOf({ folds }: RowsKernel): number[][] {
  const passes: number[][] = [];
  const passOf: number[] = [];
  folds.forEach(({ body }, i) => {
    const before = walk(body).map((expr) => (expr.kind === 'folded' ? passOf[expr.fold!]! : -1));
    const pass = 1 + Math.max(...before);
    passOf.push(pass);
    passes[pass] = [...(passes[pass] ?? []), i];
  });
  return passes;
}

/** The coordinates of the lane's term, and where four of them are computed at once, their axis. */
function termIn({ along, wide }: Parts, inner: Statements): NamedCoordinate[] {
  return wide ? decomposeRuns(inner, 1, along, 'term', 4) : decompose(inner, 1, along, 'term');
}

function pointOf(
  parts: Parts,
  body: Statements,
  inner: Statements,
  named: readonly NamedCoordinate[],
): Point {
  const term = termIn(parts, inner);
  return new Point([body, inner], [...named, ...term], parts.wide ? term.at(-1)! : null);
}

/** The folds of one pass, their results for every lane of the row in `folded`. */
function emitPass(
  parts: Parts,
  body: Statements,
  named: readonly NamedCoordinate[],
  pass: readonly number[],
  folded: Value[],
): void {
  const { kernel, module, bindings, wide, terms, lanes } = parts;
  const folds = pass.map((index) => ({ index, ...kernel.folds[index]! }));
  const blocked =
    terms / lanes > 2 * BLOCK && folds.some(({ fold, body: { type } }) => isLongSum(fold, type));
  const block = blocked ? new Statements(module, body) : body;
  const inner = new Statements(module, block);
  const emitter = new Emitter(module, bindings, pointOf(parts, body, inner, named), folded);
  const declare = (
    statements: Statements,
    prefix: string,
    { index, ...fold }: (typeof folds)[number],
  ): void => {
    const type = registerType(fold.body.type, wide);
    statements.line(`var ${prefix}${index} = ${type}(${start(module, fold)});`);
  };
  for (const fold of folds) {
    declare(body, 'total', fold);
    if (blocked) declare(block, 'part', fold);
    const value = emitter.value(fold.body);
    const name = `${blocked ? 'part' : 'total'}${fold.index}`;
    inner.line(`${name} = ${together(fold, name, wide ? emitter.wide(value) : value.name)};`);
  }
  if (blocked) {
    const stride = BLOCK * lanes;
    const head = `for (var term = start; term < min(start + ${stride}u, ${terms}u); term += ${lanes}u)`;
    block.nest(head, inner);
    for (const fold of folds) {
      block.line(`total${fold.index} = ${together(fold, `total${fold.index}`, `part${fold.index}`)};`);
    }
    body.nest(`for (var start = first; start < ${terms}u; start += ${stride}u)`, block);
  } else body.nest(`for (var term = first; term < ${terms}u; term += ${lanes}u)`, inner);

  for (const fold of folds) {
    const total = `total${fold.index}`;
    const [x, y, z, w] = ['x', 'y', 'z', 'w'].map((component) => `${total}.${component}`) as [
      string,
      string,
      string,
      string,
    ];
    const one = wide ? together(fold, together(fold, x, y), together(fold, z, w)) : total;
    body.line(`var own${fold.index} = ${one};`);
  }
  if (lanes > 1) combineLanes(parts, body, folds);
  for (const {
    index,
    body: { type },
  } of folds) {
    folded[index] = { name: body.let(registerType(type, false), `own${index}`), type, wide: false, level: 0 };
  }
}

function isLongSum(fold: Fold['fold'], type: Expr['type']): boolean {
  return fold === 'sum' && type === 'f32';
}

function start(module: Module, { fold, body }: Fold): string {
  if (fold === 'sum') return '';
  if (body.type === 'f32') return `-${module.call('infinity')}()`;
  return body.type === 'i32' ? 'i32(-2147483648)' : '0u';
}

function together({ fold }: Pick<Fold, 'fold'>, a: string, b: string): string {
  return fold === 'sum' ? `(${a} + ${b})` : `max(${a}, ${b})`;
}

/** Every lane's part of the row's folds becomes the whole, by the same tree every time. */
function combineLanes(
  { module, lanes, workgroupSize }: Parts,
  body: Statements,
  folds: readonly (Fold & { readonly index: number })[],
): void {
  if (module.capabilities.software) {
    module.useSubgroups();
    for (let step = 1; step < lanes; step *= 2) {
      for (const fold of folds) {
        const own = `own${fold.index}`;
        body.line(`${own} = ${together(fold, own, `subgroupShuffleXor(${own}, ${step}u)`)};`);
      }
    }
    return;
  }
  for (const {
    index,
    body: { type },
  } of folds) {
    module.declare(`var<workgroup> shared${index}: array<${registerType(type, false)}, ${workgroupSize}>;`);
    body.line(`shared${index}[${LANE}] = own${index};`);
  }
  body.line('workgroupBarrier();');
  for (let half = lanes / 2; half >= 1; half /= 2) {
    const step = new Statements(module, body);
    for (const fold of folds) {
      const own = `own${fold.index}`;
      step.line(`${own} = ${together(fold, own, `shared${fold.index}[${LANE} + ${half}u]`)};`);
      step.line(`shared${fold.index}[${LANE}] = ${own};`);
    }
    body.nest(`if (first < ${half}u)`, step);
    body.line('workgroupBarrier();');
  }
  for (const { index } of folds) body.line(`own${index} = shared${index}[${LANE} - first];`);
}

/** A row whose folds are known. */
interface Row {
  /** u32. */
  readonly row: string;
  readonly named: readonly NamedCoordinate[];
  readonly folded: readonly Value[];
}

/** Writes the elements of the rows, term by term, and what there is one of for a row. */
function emitOutputs(parts: Parts, stores: Statements, rows: readonly Row[]): void {
  const { elements, ofRows, module, bindings, terms, lanes } = parts;
  if (elements.length > 0) {
    const inner = new Statements(module, stores);
    for (const row of rows) emitElements(parts, stores, inner, row);
    stores.nest(`for (var term = first; term < ${terms}u; term += ${lanes}u)`, inner);
  }
  if (ofRows.length === 0) return;
  const own = new Statements(module, stores);
  for (const { row, named, folded } of rows) {
    const emitter = new Emitter(module, bindings, new Point([own], named), folded);
    const values = ofRows.map(({ expr }) => emitter.value(expr).name);
    ofRows.forEach((output, i) => {
      own.line(storeOne(module, bindings.output(output), row, values[i]!));
    });
  }
  stores.nest('if (first == 0u)', own);
}

function emitElements(
  parts: Parts,
  stores: Statements,
  inner: Statements,
  { row, named, folded }: Row,
): void {
  const { kernel, elements, module, bindings, wide } = parts;
  const emitter = new Emitter(module, bindings, pointOf(parts, stores, inner, named), folded);
  // Every value before any store: an output may overwrite what the same element reads.
  const values = elements.map(({ expr }) => {
    const value = emitter.value(expr);
    return wide ? emitter.wide(value) : value.name;
  });
  const start = stores.let('u32', `${row} * ${numel(kernel.reduced)}u`);
  elements.forEach((output, i) => {
    const access = bindings.output(output);
    const value = values[i]!;
    if (!wide) inner.line(storeOne(module, access, `${start} + term`, value));
    else if (access.binding.quads) inner.line(storeQuad(module, access, `${start} + term * 4u`, value));
    else {
      ['x', 'y', 'z', 'w'].forEach((component, j) => {
        inner.line(storeOne(module, access, `${start} + term * 4u + ${j}u`, `${value}.${component}`));
      });
    }
  });
}

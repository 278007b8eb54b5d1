/**
 * From nodes to kernels: which values get a buffer, and which are recomputed inside their consumers.
 *
 * Every node is first an expression over its own shape. Elementwise ops and sources build on the expressions of their
 * inputs, views move those to another index space, and only what needs a loop of its own (a fold, a contraction, a
 * scatter) starts a kernel. A node whose expression is read from a buffer is called a value.
 */
import { formatShape } from '../errors.ts';
import type { AttendKernel, AttendOperands, Expr, Output } from '../kernel.ts';
import type { Aval, Lowering } from '../op.ts';
import { scalarOf } from '../ops/elementwise.ts';
import { numel, type Shape } from '../shape.ts';
import { contiguousView, padView, permuteView, type View } from '../view.ts';
import { consumersOf, countUsers, demandedNodes } from './consumers.ts';
import { readThroughCopies } from './copies.ts';
import { isWorthKeeping, isWorthKeepingBefore } from './cost.ts';
import { type Draft, maxBuffers, valuesRead, withExpressions, withLoopReads, writesOf } from './drafts.ts';
import { foldEpilogues } from './epilogue.ts';
import { Expressions, isWhole, type Load, readsOf, type ViewMap, walk } from './expression.ts';
import { joinFolds } from './folds.ts';
import { attrsKey, type Ir, maxParts, type Node } from './ir.ts';
import { mergeMaps } from './merge.ts';
import { orderLoops, orderMaps } from './order.ts';
import { writeParts } from './parts.ts';
import { joinRows } from './rows.ts';

/** Larger expressions are cut: compilers of shaders and registers have limits. */
const maxExpressionSize = 64;

type LoweringOf<Kind extends Lowering<unknown>['kind']> = Extract<Lowering<unknown>, { kind: Kind }>;

/** Kernels in an order that computes values before they are read, and the value that holds each output. */
export interface Fusion {
  readonly drafts: Draft[];
  readonly outputs: readonly number[];
  readonly expressions: Expressions;
  /** Shape and type of every value: the nodes, then parts of wholes. */
  readonly avals: readonly Aval[];
}

/** The graph's nodes gathered into kernels. */
export function fuse(ir: Ir): Fusion {
  const builder = new Builder(ir);
  for (const node of ir.nodes) builder.add(node);
  const outputs = ir.outputs.map((id) => builder.first(builder.value(id)));
  const { expressions } = builder;
  const { drafts: found, late } = withoutSeconds(builder, expressions);
  let drafts = neededDrafts(readThroughCopies(found), outputs);
  for (const pass of [orderLoops, orderMaps, foldEpilogues, writeParts]) {
    drafts = pass(drafts, outputs, expressions);
  }
  for (const pass of [joinRows, joinFolds]) drafts = pass(drafts, outputs, expressions, late);
  const donated = new Map([...ir.donations].map(([output, input]) => [outputs[output]!, input]));
  drafts = mergeMaps(drafts, outputs, expressions, late, donated);
  return { drafts, outputs, expressions, avals: builder.avals };
}

/**
 * The drafts that read each value itself where they read it under a second name, and for what those compute directly
 * from it, the name: such kernels are late, and stay apart from kernels that are not.
 */
function withoutSeconds(
  builder: Builder,
  expressions: Expressions,
): { readonly drafts: readonly Draft[]; readonly late: ReadonlyMap<number, number> } {
  const late = new Map<number, number>();
  const { drafts, seconds } = builder;
  if (seconds.size === 0) return { drafts, late };
  const renamed = drafts.map((draft) => {
    const second = valuesRead(draft).find((value) => seconds.has(value));
    if (second === undefined) return draft;
    for (const value of writesOf(draft)) late.set(value, second);
    return withReads(draft, (value) => builder.first(value), expressions);
  });
  return { drafts: renamed, late };
}

/** The drafts that an output depends on: a value can have lost its readers while expressions were cut to size. */
function neededDrafts(drafts: readonly Draft[], outputs: readonly number[]): Draft[] {
  const read = new Set(outputs);
  const needed: Draft[] = [];
  for (const draft of drafts.toReversed()) {
    if (!writesOf(draft).some((value) => read.has(value))) continue;
    needed.push(draft);
    for (const value of valuesRead(draft)) read.add(value);
  }
  return needed.reverse();
}

/** The draft with every value that it reads under another name. */
function withReads(draft: Draft, rename: (value: number) => number, expressions: Expressions): Draft {
  const renamed = withExpressions(draft, (expr) => expressions.rename(expr, rename));
  return withLoopReads(renamed, (read) => ({ ...read, binding: rename(read.binding) }));
}

class Builder {
  readonly drafts: Draft[] = [];
  /** Values under a second name (ops `after`), and the values. */
  readonly seconds = new Map<number, number>();
  readonly expressions = new Expressions();
  /** Shape and type of every value: the nodes, then parts of wholes. */
  readonly avals: Aval[];
  readonly #ir: Ir;
  readonly #demanded: ReadonlySet<number>;
  readonly #users: readonly number[];
  readonly #consumers: readonly (readonly number[])[];
  readonly #outputs: ReadonlySet<number>;
  /** The expression of each node, over its shape. */
  readonly #exprs: Expr[] = [];
  /** The names of the ops in each expression. */
  readonly #names: string[][] = [];
  /** Nodes that have a buffer of their own. */
  readonly #stored = new Set<number>();
  /** Where among the drafts is the kernel of attention over some operands. */
  readonly #attending = new Map<string, number>();

  constructor(ir: Ir) {
    this.#ir = ir;
    this.avals = [...ir.nodes];
    this.#demanded = demandedNodes(ir);
    this.#users = countUsers(ir, this.#demanded);
    this.#consumers = consumersOf(ir);
    this.#outputs = new Set(ir.outputs);
  }

  /** Takes up a node; its inputs have been taken up before. */
  add(node: Node): void {
    const { id, op, inputs } = node;
    const own = op === null || op.lower.kind === 'view' || op.name === 'full' ? [] : [op.name];
    this.#names[id] = [...new Set([...inputs.flatMap((input) => this.#names[input]!), ...own])];
    if (op === null || numel(node.shape) === 0) {
      this.#become(node);
      return;
    }
    this.#exprs[id] = this.#lower(node, op.lower);
    if (this.#deservesBuffer(node)) this.value(id);
  }

  #lower(node: Node, lowering: Lowering<unknown>): Expr {
    const type = scalarOf(node.dtype);
    switch (lowering.kind) {
      case 'source':
        return this.expressions.of(lowering.expr(node.shape, node.attrs, type));
      case 'elementwise':
        return this.#bounded(node.inputs, () => {
          const inputs = node.inputs.map((input) => this.#exprs[input]!);
          return this.expressions.of(lowering.expr(inputs, node.attrs, type));
        });
      case 'identity': // readGraph leaves none
        return this.#exprs[node.inputs[0]!]!;
      case 'after':
        this.seconds.set(node.id, this.first(this.value(node.inputs[0]!)));
        this.#become(node);
        return this.#exprs[node.id]!;
      case 'view':
        // A pad of nothing: there is no buffer to read.
        if (numel(this.#ir.nodes[node.inputs[0]!]!.shape) === 0) return this.#nothingFolded(node, 0);
        this.#keepBeforeRepeating(node);
        return this.#view(node.inputs[0]!, (view) => lowering.view(view, node.attrs, node.shape));
      case 'concat':
        return this.#concat(node.inputs, lowering.axis(node.attrs));
      case 'whole':
        return this.#whole(node, lowering.axis(node.attrs));
      case 'gather':
        return this.#bounded(node.inputs, () => this.#gather(node, lowering.axis(node.attrs)));
      case 'reduce':
        return this.#reduce(node, lowering);
      case 'contract':
        return this.#contract(node, lowering);
      case 'scatter':
        return this.#scatter(node, lowering.axis(node.attrs));
      case 'attend':
        return this.#attend(node, lowering);
    }
  }

  /** An expression of the inputs; the largest of them get buffers until it is small enough. */
  #bounded(inputs: readonly number[], build: () => Expr): Expr {
    for (;;) {
      const expr = build();
      const buffers = new Set(readsOf(expr).map(({ binding }) => binding));
      if (walk(expr).length <= maxExpressionSize && buffers.size < maxBuffers) return expr;
      const sizes = inputs.map((input) => {
        const own = this.#exprs[input]!;
        return isLoad(own) ? 0 : walk(own).length;
      });
      const largest = sizes.indexOf(Math.max(...sizes));
      if (sizes[largest] === 0) return expr;
      this.value(inputs[largest]!);
    }
  }

  #view(input: number, map: ViewMap): Expr {
    const { shape } = this.#ir.nodes[input]!;
    const moved = this.expressions.through(this.#exprs[input]!, shape, map);
    return moved ?? this.expressions.of(this.#loadOf(input, map));
  }

  #concat(inputs: readonly number[], axis: number): Expr {
    return this.#bounded(inputs, () => this.#sideBySide(inputs, axis));
  }

  /**
   * The buffer that all parts are written into. Each that is computed has a kernel of its own, which its loop or what it
   * copies can become (parts.ts); others come from one kernel for several.
   */
  #whole(node: Node, axis: number): Expr {
    const { inputs, dtype } = node;
    if (inputs.length <= maxParts && !inputs.some((input) => this.#isComputed(input))) {
      return this.#concat(inputs, axis);
    }
    const groups: number[][] = [];
    let open: number[] | null = null;
    for (const input of inputs) {
      const apart = this.#isComputed(input);
      if (open && !apart && open.length < maxParts) open.push(input);
      else {
        groups.push([input]);
        open = apart ? null : groups.at(-1)!;
      }
    }
    const parts = groups.map((group) => {
      const expr = this.#concat(group, axis);
      const extent = group.reduce((sum, input) => sum + this.#ir.nodes[input]!.shape[axis]!, 0);
      const shape = node.shape.with(axis, extent);
      const label = [...new Set(group.flatMap((input) => this.#names[input]!))].join('+') || 'copy';
      const part = this.avals.push({ shape, dtype }) - 1;
      this.drafts.push({
        kind: 'map',
        label,
        bindings: [],
        shape,
        outputs: [{ buffer: part, dtype, expr }],
      });
      return part;
    });
    return this.#start(node, (output) => ({
      kind: 'whole',
      label: node.op!.name,
      bindings: [],
      shape: node.shape,
      parts,
      output,
    }));
  }

  /** Whether the node is read from what a kernel computes, element by element. */
  #isComputed(id: number): boolean {
    return readsOf(this.#exprs[id]!).some(({ kind, binding, view }) => {
      const held = this.#ir.nodes[binding]!;
      const once =
        numel(held.shape) === numel(view.shape) &&
        !view.strides.some((stride, axis) => stride === 0 && view.shape[axis] !== 1);
      return held.op !== null && kind === 'load' && once && view.guards.length === 0;
    });
  }

  /** Part i where its guard holds: places between its start and its end. */
  #sideBySide(inputs: readonly number[], axis: number): Expr {
    let start = 0;
    let joined: Expr | null = null;
    const nodes = inputs.map((input) => this.#ir.nodes[input]!);
    const length = nodes.reduce((sum, { shape }) => sum + shape[axis]!, 0);
    const type = scalarOf(nodes[0]!.dtype);
    for (const { id: input, shape } of nodes) {
      const extent = shape[axis]!;
      if (numel(shape) === 0) continue;
      const before = shape.map((_, i) => (i === axis ? start : 0));
      const after = shape.map((_, i) => (i === axis ? length - start - extent : 0));
      const part = this.#view(input, (view) => padView(view, before, after));
      const { guards } = padView(contiguousView(shape), before, after);
      const condition: Expr = { kind: 'inside', type: 'bool', guards };
      joined =
        joined === null
          ? part
          : this.expressions.of({ kind: 'select', type, condition, yes: part, no: joined });
      start += extent;
    }
    return joined!;
  }

  #gather(node: Node, axis: number): Expr {
    const [table, index] = node.inputs;
    const shape = this.#ir.nodes[table!]!.shape;
    const indexShape = this.#ir.nodes[index!]!.shape;
    const read = this.#loadOf(table!, (view) => (view.guards.length > 0 ? null : view));
    // The table without its gathered axis, repeated along the index's axes.
    const strides = read.view.strides.toSpliced(axis, 1, ...indexShape.map(() => 0));
    const view: View = { shape: node.shape, offset: read.view.offset, strides, guards: [] };
    const rows = indexShape.length;
    const moved = this.#view(index!, (input) => spread(input, node.shape, axis, rows));
    return this.expressions.of({
      kind: 'gather',
      type: scalarOf(node.dtype),
      binding: read.binding,
      view,
      index: moved,
      stride: read.view.strides[axis]!,
      extent: shape[axis]!,
    });
  }

  #reduce(node: Node, lowering: LoweringOf<'reduce'>): Expr {
    const input = node.inputs[0]!;
    const { shape } = this.#ir.nodes[input]!;
    const reducedAxes = lowering.axes(node.attrs);
    const kept = shape.map((_, axis) => axis).filter((axis) => !reducedAxes.includes(axis));
    const body = this.#view(input, (view) => permuteView(view, [...kept, ...reducedAxes]));
    const reduced = reducedAxes.map((axis) => shape[axis]!);
    if (numel(reduced) === 0) return this.#nothingFolded(node, lowering.fold === 'max' ? -Infinity : 0);
    return this.#start(node, (output) => ({
      kind: 'reduce',
      label: this.#names[node.id]!.join('+'),
      bindings: [],
      shape: kept.map((axis) => shape[axis]!),
      reduced,
      fold: lowering.fold,
      body,
      output,
    }));
  }

  #contract(node: Node, lowering: LoweringOf<'contract'>): Expr {
    const [a, b] = node.inputs;
    const shapes = node.inputs.map((input) => this.#ir.nodes[input]!.shape);
    const contraction = lowering.contraction(shapes[0]!, shapes[1]!, node.attrs);
    const { batch, m, n, k } = contraction;
    if (numel(k) === 0) return this.#nothingFolded(node, 0);
    const first = this.#loadOf(a!, (view) => contraction.a(view));
    const second = this.#loadOf(b!, (view) => contraction.b(view));
    return this.#start(node, (output) => ({
      kind: 'contract',
      label: node.op!.name,
      bindings: [],
      batch,
      m,
      n,
      k,
      a: { binding: first.binding, view: first.view },
      b: { binding: second.binding, view: second.view },
      output,
    }));
  }

  #scatter(node: Node, axis: number): Expr {
    const [values, index] = node.inputs;
    const { shape } = this.#ir.nodes[values!]!;
    if (numel(shape) === 0) return this.#nothingFolded(node, 0);
    const from = { values: this.value(values!), index: this.value(index!) };
    return this.#start(node, (output) => ({
      kind: 'scatter',
      label: node.op!.name,
      bindings: [],
      outer: numel(shape.slice(0, axis)),
      count: shape[axis]!,
      inner: numel(shape.slice(axis + 1)),
      extent: node.shape[axis]!,
      index: { binding: from.index },
      values: { binding: from.values },
      output,
    }));
  }

  /** Attention, or a gradient of it; another result of the same operands comes from the same kernel. */
  #attend(node: Node, { result, settings }: LoweringOf<'attend'>): Expr {
    const gradient = result !== 'mean' && result !== 'logSum';
    const names = ['query', 'key', 'value', ...(gradient ? ['cotangent', 'logSum', 'rowSum'] : []), 'mask'];
    const [query, key, value] = node.inputs.map((input) => this.#ir.nodes[input]!.shape);
    const [queries, keys] = [query!.at(-2)!, key!.at(-2)!];
    if (queries * keys === 0) return this.#nothingFolded(node, result === 'logSum' ? Infinity : 0);
    const operands = Object.fromEntries(
      node.inputs.map((input, i) => {
        const { binding, view } = this.#loadOf(input, (own) => own);
        return [names[i], { binding, view }];
      }),
    ) as unknown as AttendOperands;
    const loop = {
      batch: query!.slice(0, -2),
      queries,
      keys,
      width: query!.at(-1)!,
      valueWidth: value!.at(-1)!,
      ...settings(node.attrs),
      operands,
    };
    const id = attrsKey([gradient, loop]);
    const expr: Expr = { kind: 'folded', type: scalarOf(node.dtype) };
    const output = { buffer: node.id, dtype: node.dtype, expr, result };
    const at = this.#attending.get(id);
    if (at === undefined) {
      this.#attending.set(id, this.drafts.length);
      const label = gradient ? 'attentionGradient' : 'attention';
      this.drafts.push({ kind: 'attend', label, bindings: [], ...loop, outputs: [output] });
    } else {
      const draft = this.drafts[at] as AttendKernel;
      this.drafts[at] = { ...draft, outputs: [...draft.outputs, output] };
    }
    this.#become(node);
    return this.#exprs[node.id]!;
  }

  #nothingFolded(node: Node, value: number): Expr {
    return this.expressions.of({ kind: 'constant', type: scalarOf(node.dtype), value });
  }

  /** The whole of a value that a kernel of its own computes. */
  #start(node: Node, draft: (output: Output) => Draft): Expr {
    const type = scalarOf(node.dtype);
    this.drafts.push(draft({ buffer: node.id, dtype: node.dtype, expr: { kind: 'folded', type } }));
    this.#become(node);
    return this.#exprs[node.id]!;
  }

  /** Makes the node's expression a read of its own buffer. */
  #become(node: Node): void {
    this.#exprs[node.id] = this.expressions.load(node.id, scalarOf(node.dtype), node.shape);
    this.#names[node.id] = [];
    this.#stored.add(node.id);
  }

  /** The value itself, where it is a second name. */
  first(value: number): number {
    return this.seconds.get(value) ?? value;
  }

  /** A value that holds the node, row-major: one that is there already, or a new kernel's. */
  value(id: number): number {
    const node = this.#ir.nodes[id]!;
    const expr = this.#exprs[id]!;
    if (isLoad(expr)) {
      const held = this.#ir.nodes[expr.binding]!;
      if (held.dtype === node.dtype && isWhole(expr, numel(held.shape))) return held.id;
    }
    if (!this.#stored.has(id)) this.#store(node);
    return id;
  }

  #store(node: Node): void {
    const expr = this.#exprs[node.id]!;
    const label = this.#names[node.id]!.join('+') || 'copy';
    const outputs = [{ buffer: node.id, dtype: node.dtype, expr }];
    this.drafts.push({ kind: 'map', label, bindings: [], shape: node.shape, outputs });
    // A copy is for the reader that cannot use a view; others go on reading the original.
    if (isLoad(expr)) this.#stored.add(node.id);
    else this.#become(node);
  }

  /** A read of the node through a change of index space, of a copy of the node if need be. */
  #loadOf(id: number, map: ViewMap): Load {
    const node = this.#ir.nodes[id]!;
    const expr = this.#exprs[id]!;
    const type = scalarOf(node.dtype);
    const view = isLoad(expr) ? map(expr.view) : null;
    if (isLoad(expr) && view) return { kind: 'load', type, binding: expr.binding, view };
    const copied = map(contiguousView(node.shape));
    if (!copied) throw new Error(`internal: lower: no view of a copy of ${formatShape(node.shape)}`);
    return { kind: 'load', type, binding: this.value(id), view: copied };
  }

  /** Gives the input of a view that repeats it a buffer, so that it is not evaluated once for each repetition. */
  #keepBeforeRepeating(view: Node): void {
    const input = this.#ir.nodes[view.inputs[0]!]!;
    const expr = this.#exprs[input.id]!;
    const [once, repeated] = [numel(input.shape), numel(view.shape)];
    if (repeated < 2 * once || isLoad(expr)) return;
    const isFree = this.#ownsLoop(input);
    if (isFree || isWorthKeepingBefore(expr, repeated - once)) this.value(input.id);
  }

  #deservesBuffer(node: Node): boolean {
    const { id, op } = node;
    const expr = this.#exprs[id]!;
    if (op!.lower.kind === 'view' || isLoad(expr)) return false;
    if (this.#demanded.has(id)) return true;
    const users = this.#users[id]!;
    if (users < 2) return false;
    return this.#ownsLoop(node) ? !this.#goesOn(node) : isWorthKeeping(expr, numel(node.shape), users);
  }

  /**
   * Whether some loop's result is needed only to compute this node. Then a buffer costs nothing: the node takes the
   * place of the result (epilogue.ts).
   */
  #ownsLoop(node: Node): boolean {
    const length = numel(node.shape);
    const loops = readsOf(this.#exprs[node.id]!).filter((read) => {
      const kind = this.#ir.nodes[read.binding]!.op?.lower.kind;
      return (kind === 'reduce' || kind === 'contract') && read.kind === 'load' && isWhole(read, length);
    });
    if (loops.length === 0) return false;
    const inlined = new Set([node.id]);
    for (const id of inlined) {
      for (const input of this.#ir.nodes[id]!.inputs) if (!this.#stored.has(input)) inlined.add(input);
    }
    return loops.some((read) => this.#leadsOnlyThrough(inlined, read.binding, node.id));
  }

  /** Whether the node has one reader, elementwise and as large: then that one can take the place of the loop's result. */
  #goesOn(node: Node): boolean {
    let last = node;
    for (;;) {
      const consumers = this.#consumers[last.id]!;
      if (consumers.length !== 1 || this.#outputs.has(last.id)) return false;
      last = this.#ir.nodes[consumers[0]!]!;
      const kind = last.op!.lower.kind;
      if (numel(last.shape) !== numel(node.shape)) return false;
      if (kind !== 'view') return kind === 'elementwise';
    }
  }

  /** Whether all that is computed from `from` outside `inlined` is computed from `end`. */
  #leadsOnlyThrough(inlined: ReadonlySet<number>, from: number, end: number): boolean {
    const reached = new Set([from]);
    for (const id of reached) {
      if (this.#outputs.has(id)) return false;
      for (const consumer of this.#consumers[id]!) {
        if (!inlined.has(consumer)) return false;
        if (consumer !== end) reached.add(consumer);
      }
    }
    return true;
  }
}

function isLoad(expr: Expr): expr is Load {
  return expr.kind === 'load';
}

/** A view of the index [...j] as one of the output [...o, ...j, ...i] of a gather along `axis`. */
function spread(index: View, shape: Shape, axis: number, rank: number): View {
  const around = (strides: readonly number[]): number[] =>
    shape.map((_, i) => (i >= axis && i < axis + rank ? strides[i - axis]! : 0));
  return {
    shape,
    offset: index.offset,
    strides: around(index.strides),
    guards: index.guards.map((guard) => ({ ...guard, strides: around(guard.strides) })),
  };
}

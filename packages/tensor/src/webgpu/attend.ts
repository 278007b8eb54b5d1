/**
 * Attention and its gradients (ops/attention.ts, equations 1 to 3). A team of invocations holds rows, queries or keys,
 * and sweeps the other axis a few items at a time: products with held rows give scores, scores give weights, and the
 * weights' products with swept rows are added to the results, which stay in registers.
 *
 *            holds     sweeps     products     weights   results
 *   mean     queries   keys       Q K          P         P V
 *   dQ       queries   keys       Q K, dO V    dS        dS K
 *   dK, dV   keys      queries    K Q, V dO    dS, P     dS Q, P dO
 *
 * What a team is depends on the adapter, as it does for contractions (attendTeams.ts).
 */
import type { AttendKernel, AttendOperands } from '../kernel.ts';
import { numel } from '../shape.ts';
import { storeOne, storeQuad } from './access.ts';
import { sharingTeam, subgroupTeam, type Team } from './attendTeams.ts';
import { type Buffers, KernelBindings, type OutputAccess } from './bindings.ts';
import type { Capabilities } from './capabilities.ts';
import { COMPONENTS } from './contract.ts';
import { type Launch, launch, loopStart, spaces } from './launch.ts';
import { Module, Statements } from './module.ts';
import { Operand } from './operand.ts';

/** The lowest finite number: what m begins at (see attend.ts of the wasm device). */
const LOWEST = '-3.4028234663852886e38';

/** Rows of a result: weights times the rows of an operand. */
export interface Gathered {
  /** Prefix of the names of the weights, a vec4f for each held row, and of the sums, `<sums><row>_<group of columns>`. */
  readonly weights: string;
  readonly sums: string;
  readonly rows: Operand;
  readonly columns: number;
  readonly factor: number;
  readonly access: OutputAccess;
}

/** An attention kernel as a team sees it. */
export interface Attending {
  readonly module: Module;
  readonly batch: number;
  readonly held: number;
  readonly swept: number;
  readonly products: readonly {
    readonly name: string;
    readonly a: Operand;
    readonly b: Operand;
    readonly depth: number;
  }[];
  readonly results: readonly Gathered[];
  /** Whether weights need the largest score and the sum of each row. */
  readonly folds: boolean;
}

/** The launch of an attend kernel: of attention, of dQ, or of dK and dV. */
export function emitAttend(kernel: AttendKernel, buffers: Buffers, capabilities: Capabilities): Launch {
  const module = new Module(capabilities);
  const writer = new Writer(module, new KernelBindings(module, buffers, kernel, kernel.outputs), kernel);
  const body = new Statements(module);
  const team = writer.write(body);
  return launch(module, {
    label: kernel.label,
    description: `attend ${spaces(kernel.batch, [kernel.queries], [kernel.keys], [kernel.width])}`,
    workgroupSize: team.workgroupSize,
    workgroups: team.workgroups,
    body,
  });
}

class Writer {
  readonly #module: Module;
  readonly #bindings: KernelBindings;
  readonly #kernel: AttendKernel;
  readonly #holdsKeys: boolean;
  readonly #isGradient: boolean;
  readonly #operands: Operand[] = [];
  readonly #attending: Attending;
  readonly #mask: Operand | null;
  readonly #logSum: Operand | null;
  readonly #rowSum: Operand | null;
  readonly #team: Team;

  constructor(module: Module, bindings: KernelBindings, kernel: AttendKernel) {
    this.#module = module;
    this.#bindings = bindings;
    this.#kernel = kernel;
    const results = kernel.outputs.map(({ result }) => result);
    this.#holdsKeys = results.some((result) => result === 'key' || result === 'value');
    this.#isGradient = this.#holdsKeys || results.includes('query');
    const { width, valueWidth } = kernel;
    const [heldName, sweptName] = this.#holdsKeys ? (['key', 'query'] as const) : (['query', 'key'] as const);
    const scores = { name: 's', a: this.#rows(heldName), b: this.#rows(sweptName), depth: width };
    const [heldValue, sweptValue] = this.#holdsKeys
      ? (['value', 'cotangent'] as const)
      : (['cotangent', 'value'] as const);
    const needsT = results.includes('query') || results.includes('key');
    const products = needsT
      ? [scores, { name: 't', a: this.#rows(heldValue), b: this.#rows(sweptValue), depth: valueWidth }]
      : [scores];
    const gathered = kernel.outputs.flatMap((output, i): Gathered[] => {
      if (output.result === 'logSum') return [];
      const ofP = output.result === 'mean' || output.result === 'value';
      const name = ofP ? sweptValue : sweptName;
      return [
        {
          weights: ofP ? 's' : 't',
          sums: `o${i}_`,
          rows: this.#columns(name),
          columns: ofP ? valueWidth : width,
          factor: ofP ? 1 : kernel.scale,
          access: bindings.output(output),
        },
      ];
    });
    this.#mask = kernel.operands.mask ? this.#maskRows() : null;
    this.#logSum = this.#isGradient ? this.#sumsOfRows('logSum') : null;
    this.#rowSum = needsT ? this.#sumsOfRows('rowSum') : null;
    this.#attending = {
      module,
      batch: numel(kernel.batch),
      held: this.#holdsKeys ? kernel.keys : kernel.queries,
      swept: this.#holdsKeys ? kernel.queries : kernel.keys,
      products,
      results: gathered,
      folds: !this.#isGradient,
    };
    this.#declareQuads();
    this.#team = module.capabilities.software ? subgroupTeam(this.#attending) : sharingTeam(this.#attending);
  }

  #operand(name: keyof AttendOperands, free: number | null, k: number | null): Operand {
    const { binding, view } = this.#kernel.operands[name]!;
    const lead = this.#kernel.batch.length;
    const axis = (at: number | null) =>
      at === null ? ([view.shape.length, view.shape.length] as const) : ([lead + at, lead + at + 1] as const);
    const access = this.#bindings.at(binding);
    const operand = new Operand(this.#module, access, view, {
      batch: [0, lead],
      free: axis(free),
      k: axis(k),
    });
    this.#operands.push(operand);
    return operand;
  }

  /** Rows whose columns are multiplied; four neighbouring columns are read at once. */
  #rows(name: keyof AttendOperands): Operand {
    const operand = this.#operand(name, 0, 1);
    if (operand.quads !== 'k') operand.readSingly();
    return operand;
  }

  /** Rows that are added up with weights. */
  #columns(name: keyof AttendOperands): Operand {
    const operand = this.#operand(name, 1, 0);
    if (operand.quads !== 'free') operand.readSingly();
    return operand;
  }

  #sumsOfRows(name: 'logSum' | 'rowSum'): Operand {
    const operand = this.#operand(name, 0, null);
    operand.readSingly();
    return operand;
  }

  /** The mask with held rows as its free axis and swept items along k. */
  #maskRows(): Operand {
    const operand = this.#holdsKeys ? this.#operand('mask', 1, 0) : this.#operand('mask', 0, 1);
    operand.readSingly();
    return operand;
  }

  /** A binding is declared as quads if everything that touches it takes aligned quads. */
  #declareQuads(): void {
    const touched = this.#operands.map(({ access, quads }) => ({
      binding: access.binding,
      quads: quads !== 'none',
    }));
    for (const { access, columns } of this.#attending.results)
      touched.push({ binding: access.binding, quads: columns % 4 === 0 });
    for (const { binding } of touched)
      binding.quads = touched.every((other) => other.binding !== binding || other.quads);
    for (const operand of this.#operands) operand.settle();
  }

  write(body: Statements): Team {
    const { held, swept, results } = this.#attending;
    const { causal } = this.#kernel;
    const team = this.#team;
    team.open(body);
    const { height } = team;
    const rows = Array.from({ length: height }, (_, r) => r);
    for (const { sums, columns } of results) {
      for (const r of rows)
        for (let c = 0; c < team.groups(columns); c += 1) body.line(`var ${sums}${r}_${c} = vec4f();`);
    }
    const sumsOf = (operand: Operand | null): string[] =>
      operand === null || this.#holdsKeys
        ? []
        : rows.map((r) => this.#sumOf(operand, body, team.row(r), held));
    const [logSums, rowSums] = [sumsOf(this.#logSum), sumsOf(this.#rowSum)];
    if (!this.#isGradient) {
      for (const r of rows) body.line(`var m${r} = f32(${LOWEST});`);
      for (const r of rows) body.line(`var l${r} = 0.0f;`);
    }
    const start = loopStart(this.#module.capabilities);
    const last = body.let('u32', `${team.top} + ${team.rows}u`);
    // A query sees no key after it: later keys are not swept, nor queries before the first key held.
    const end = causal && !this.#holdsKeys ? body.let('u32', `min(${swept}u, ${last})`) : `${swept}u`;
    const first =
      causal && this.#holdsKeys
        ? body.let('u32', `${start} + ${team.top} / ${team.width}u * ${team.width}u`)
        : start;
    const sweep = new Statements(this.#module, body);
    const item = sweep.let('u32', `j + ${team.place} * 4u`);
    team.sweep(body, sweep, first, () => this.#takeUp(body, sweep, item, logSums, rowSums));
    body.nest(`for (var j = ${first}; j < ${end}; j += ${team.width}u)`, sweep);
    this.#finish(body);
    return team;
  }

  /** An element of L or D, at a row or item that is kept within the axis. */
  #sumOf(operand: Operand, block: Statements, at: string, extent: number): string {
    const fixed = operand.fixed(block, this.#team.slice, block.let('u32', `min(${at}, ${extent - 1}u)`));
    return operand.read(
      block,
      fixed,
      fixed.map(() => '0'),
      false,
    );
  }

  /** Scores `s` (and `t`) of four items to weights, for each row; sums are scaled where a maximum grows. */
  #takeUp(
    body: Statements,
    sweep: Statements,
    item: string,
    logSums: readonly string[],
    rowSums: readonly string[],
  ): void {
    const { swept, held, results } = this.#attending;
    const { scale, causal } = this.#kernel;
    const team = this.#team;
    const rows = Array.from({ length: team.height }, (_, r) => r);
    const items = sweep.let('vec4u', `vec4u(${item}) + vec4u(0u, 1u, 2u, 3u)`);
    const four = (operand: Operand): string =>
      sweep.let(
        'vec4f',
        `vec4f(${[0, 1, 2, 3].map((i) => this.#sumOf(operand, sweep, `${item} + ${i}u`, swept)).join(', ')})`,
      );
    const [fourL, fourD] = this.#holdsKeys
      ? [this.#logSum && four(this.#logSum), this.#rowSum && four(this.#rowSum)]
      : [null, null];
    const hidden = rows.map((r) => {
      const row = sweep.let('u32', team.row(r));
      const tests = swept % team.width === 0 ? [] : [`(${items} >= vec4u(${swept}u))`];
      if (causal) tests.push(this.#holdsKeys ? `(${items} < vec4u(${row}))` : `(${items} > vec4u(${row}))`);
      const bias = this.#mask && this.#maskAt(sweep, this.#mask, row, held, item, swept);
      if (bias && this.#maskIsBool) tests.push(`!${bias}`);
      sweep.line(`s${r} = s${r} * f32(${scale})${bias && !this.#maskIsBool ? ` + ${bias}` : ''};`);
      // A mask's -infinity is told by its bits: shaders may assume that there is none.
      if (bias && !this.#maskIsBool) tests.push(`(bitcast<vec4u>(s${r}) == vec4u(0xff800000u))`);
      return tests.length === 0 ? null : sweep.let('vec4<bool>', tests.join(' | '));
    });
    const shown = (r: number, value: string, otherwise: string): string =>
      hidden[r] === null ? value : `select(${value}, vec4f(${otherwise}), ${hidden[r]})`;
    if (this.#isGradient) {
      for (const r of rows) {
        sweep.line(`s${r} = ${shown(r, `exp(s${r} - ${fourL ?? `vec4f(${logSums[r]})`})`, '0.0')};`);
        if (this.#rowSum) sweep.line(`t${r} = s${r} * (t${r} - ${fourD ?? `vec4f(${rowSums[r]})`});`);
      }
      return;
    }
    const own = rows.map((r) => {
      const x = sweep.let('vec4f', shown(r, `s${r}`, LOWEST));
      return sweep.let('f32', `max(max(${x}.x, ${x}.y), max(${x}.z, ${x}.w))`);
    });
    const largest = team.largest(body, sweep, own);
    for (const r of rows) {
      const m = sweep.let('f32', `max(m${r}, ${largest[r]})`);
      const change = sweep.let('f32', `exp(max(m${r} - ${m}, -100.0))`);
      sweep.line(`m${r} = ${m};`);
      sweep.line(`s${r} = ${shown(r, `exp(s${r} - vec4f(${m}))`, '0.0')};`);
      sweep.line(`l${r} = l${r} * ${change} + (s${r}.x + s${r}.y) + (s${r}.z + s${r}.w);`);
      for (const { sums, columns } of results)
        for (let c = 0; c < team.groups(columns); c += 1) sweep.line(`${sums}${r}_${c} *= ${change};`);
    }
  }

  get #maskIsBool(): boolean {
    return this.#mask!.dtype === 'bool';
  }

  #maskAt(block: Statements, mask: Operand, row: string, held: number, item: string, swept: number): string {
    const fixed = mask.fixed(block, this.#team.slice, block.let('u32', `min(${row}, ${held - 1}u)`));
    const parts = [0, 1, 2, 3].map((i) => {
      const at = block.let('u32', `min(${item} + ${i}u, ${swept - 1}u)`);
      return mask.read(block, fixed, mask.step(block, at), false);
    });
    return block.let(
      this.#maskIsBool ? 'vec4<bool>' : 'vec4f',
      `${this.#maskIsBool ? 'vec4<bool>' : 'vec4f'}(${parts.join(', ')})`,
    );
  }

  /** Stores results; where there is a maximum, after the division by the sum of the weights. */
  #finish(body: Statements): void {
    const team = this.#team;
    const { results } = this.#attending;
    const rows = Array.from({ length: team.height }, (_, r) => r);
    const totals = this.#isGradient
      ? []
      : team.total(
          body,
          rows.map((r) => `l${r}`),
        );
    for (const r of rows) {
      const block = new Statements(this.#module, body);
      for (const result of results) {
        const factor = this.#isGradient
          ? `f32(${result.factor})`
          : block.let('f32', `select(1.0 / ${totals[r]}, 0.0, ${totals[r]} == 0.0)`);
        this.#store(block, result, r, factor);
      }
      if (!this.#isGradient) this.#storeLogSum(block, r, totals[r]!);
      body.nest(`if (${team.row(r)} < ${this.#attending.held}u)`, block);
    }
  }

  #store(block: Statements, { sums, columns, access }: Gathered, r: number, factor: string): void {
    const team = this.#team;
    const start = `(${team.slice} * ${this.#attending.held}u + ${team.row(r)}) * ${columns}u`;
    for (let c = 0; c < team.groups(columns); c += 1) {
      const column = block.let('u32', `${c * team.width}u + ${team.place} * 4u`);
      const value = `(${sums}${r}_${c} * ${factor})`;
      if (access.binding.quads) {
        const store = storeQuad(this.#module, access, `${start} + ${column}`, value);
        block.line(`if (${column} < ${columns}u) { ${store} }`);
        continue;
      }
      COMPONENTS.forEach((component, i) => {
        const store = storeOne(this.#module, access, `${start} + ${column} + ${i}u`, `${value}.${component}`);
        block.line(`if (${column} + ${i}u < ${columns}u) { ${store} }`);
      });
    }
  }

  #storeLogSum(block: Statements, r: number, total: string): void {
    const output = this.#kernel.outputs.find(({ result }) => result === 'logSum');
    if (output === undefined) return;
    const access = this.#bindings.output(output);
    const team = this.#team;
    const address = `${team.slice} * ${this.#attending.held}u + ${team.row(r)}`;
    const value = `select(m${r} + log(${total}), ${this.#module.call('infinity')}(), ${total} == 0.0)`;
    block.line(`if (${team.place} == 0u) { ${storeOne(this.#module, access, address, value)} }`);
  }
}

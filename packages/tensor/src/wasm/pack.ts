/**
 * Packing: a panel of an operand, `width` rows (or columns) of `k` elements, copied to [k][width] so that the
 * microkernel reads it in order. Panels are cut into groups of up to four neighbours.
 *
 *   along the panel  where neighbours are evenly spaced: one vector load for each group and each k
 *   along k          where four successive k are adjacent: vector loads along k, transposed
 *   one by one       anything else
 *
 * Elements that a guard excludes become zeros: lanes are masked, and a vector of which no lane is inside is not read.
 */
import { bytesPerElement } from '../dtype.ts';
import { type Code, FunctionBuilder, type Local } from './assembler.ts';
import { halfToFloat } from './half.ts';
import { Lanes, openContext } from './lanes.ts';
import { forRange } from './loops.ts';
import { type Masks, maskTable } from './masks.ts';
import { innerSteps, isRegular, type Operand, type Part, type Steps } from './operand.ts';
import type { Target } from './target.ts';

type Path = 'panel' | 'k' | 'single';

/** Farther apart than this, a masked lane could lie outside the memory's margins. */
const maxStepBytes = 8192;

/**
 * Function (base, v, k0, k1, to, pointer, ...guards): packs panel entries v ... v + width - 1 and k0 ... k1 - 1.
 * `base` is the buffer's address plus the batch's offset, `pointer` the buffer's address, guards the batch's share.
 * Panels begin at multiples of `unit`; only the last one may have another width. k0 is a multiple of 4.
 */
export function packFunction(target: Target, operand: Operand, width: number, unit: number): number {
  return target.module.named(`pack ${width} of ${unit} from ${operand.key}`, () => {
    const guards = operand.limits.map(() => 'i32' as const);
    const fn = new FunctionBuilder(['i32', 'i32', 'i32', 'i32', 'i32', 'i32', ...guards]);
    new PackWriter(target, operand, width, unit, fn).write();
    return fn;
  });
}

/** One row of a panel: its address without k, and its guards without k. */
interface Column {
  readonly address: Local;
  readonly guards: readonly Local[];
}

/** Up to four neighbours of a panel. */
interface Group {
  readonly start: number;
  readonly count: number;
}

/** Tables that a path reads; null where it is not open to the operand. */
type Tables = { readonly masks: Masks | null } | null;

class PackWriter {
  private readonly target: Target;
  private readonly operand: Operand;
  private readonly width: number;
  private readonly unit: number;
  private readonly fn: FunctionBuilder;
  private readonly body: Code;
  private readonly m: Lanes;
  private readonly groups: readonly Group[];
  private readonly k: Local;
  /** The current k in bytes of a table. */
  private readonly index: Local;
  /** Address and guards of the current k, read from its tables. */
  private readonly atK: Column;
  private readonly columns: readonly Column[];
  private readonly to = 4;
  private readonly pointer = 5;

  constructor(target: Target, operand: Operand, width: number, unit: number, fn: FunctionBuilder) {
    this.target = target;
    this.operand = operand;
    this.width = width;
    this.unit = unit;
    this.fn = fn;
    this.body = fn.body;
    this.m = new Lanes(openContext(target.module, fn, target.relaxed), fn.body);
    this.groups = Array.from({ length: Math.ceil(width / 4) }, (_, q) => ({
      start: 4 * q,
      count: Math.min(4, width - 4 * q),
    }));
    this.k = fn.local('i32');
    this.index = fn.local('i32');
    const column = (): Column => ({
      address: fn.local('i32'),
      guards: operand.limits.map(() => fn.local('i32')),
    });
    this.atK = column();
    this.columns = Array.from({ length: width }, column);
  }

  write(): void {
    const { panel, k } = this.operand;
    const panelSteps = innerSteps(panel);
    const kSteps = innerSteps(k);
    const starts = this.groupStarts();
    const panelFlags = Int32Array.from(starts, (start, i) => {
      const { count } = this.groups[i % this.groups.length]!;
      return Number(isRegular(panel, start, start + count, panelSteps));
    });
    const kFlags = Int32Array.from({ length: Math.floor(k.address.length / 4) }, (_, i) =>
      Number(isRegular(k, 4 * i, 4 * i + 4, kSteps)),
    );
    const last = panel.address.length - 1;
    const clamped = starts.map((start) => Math.min(start, last));
    const alongPanel = this.tables(panel, clamped, panelSteps, k);
    const alongK = this.tables(
      k,
      Array.from(kFlags.keys(), (i) => 4 * i),
      kSteps,
      panel,
    );
    switch (this.choosePath(alongPanel && panelSteps, panelFlags, alongK && kSteps, kFlags)) {
      case 'panel':
        this.writePanelPath(panelSteps, panelFlags, alongPanel?.masks ?? null);
        return;
      case 'k':
        this.writeKPath(kSteps, kFlags, alongK?.masks ?? null);
        return;
      case 'single':
        this.readColumns();
        this.body.get(2).set(this.k);
        forRange(this.body, this.k, 3, 0, () => this.packOne());
    }
  }

  /** Where the groups of the panels that this function packs begin. */
  private groupStarts(): number[] {
    const extent = this.operand.panel.address.length;
    const first = this.firstPanel;
    const panels = this.width === this.unit ? Math.ceil(extent / this.unit) : 1;
    return Array.from({ length: panels }, (_, p) => p + first).flatMap((p) =>
      this.groups.map(({ start }) => p * this.unit + start),
    );
  }

  private get firstPanel(): number {
    return this.width === this.unit ? 0 : Math.floor(this.operand.panel.address.length / this.unit);
  }

  private tables(along: Part, starts: readonly number[], steps: Steps, other: Part): Tables {
    if (this.operand.limits.length === 0) return { masks: null };
    const masks = this.operand.isNear ? maskTable(this.operand, along, starts, steps, other) : null;
    return masks && { masks };
  }

  /** One vector for each group and each k. */
  private writePanelPath(steps: Steps, flags: Int32Array, masks: Masks | null): void {
    const { body, groups } = this;
    const { tables } = this.target;
    const allRegular = flags.every((flag) => flag === 1);
    this.readColumns(!allRegular);
    const panelIndex = this.fn.local('i32');
    body.get(1).i32(this.unit).op('i32.div_u').i32(this.firstPanel).op('i32.sub');
    body
      .i32(4 * groups.length)
      .op('i32.mul')
      .set(panelIndex);
    const perGroup = (table: Int32Array): Local[] =>
      groups.map((_, q) => {
        const local = this.fn.local('i32');
        tables.read(body.get(panelIndex), table, 4 * q).set(local);
        return local;
      });
    const regular = allRegular ? null : perGroup(flags);
    const rows = masks && perGroup(masks.group);
    for (const row of rows ?? []) this.toRowOfMasks(masks!, row);
    const maskOfK = this.fn.local('i32');
    body.get(2).set(this.k);
    forRange(body, this.k, 3, 0, () => {
      this.readK();
      if (masks) tables.read(body.get(this.index), masks.other).set(maskOfK);
      groups.forEach((group, q) => {
        const vector = () => {
          const mask = rows && this.sum(rows[q]!, maskOfK);
          this.storeLanes(this.loadVector(this.columns[group.start]!, steps, mask), group, 0);
        };
        if (regular) {
          body.get(regular[q]!).if(vector, () => {
            this.readGuards();
            this.packSingles(group);
          });
        } else vector();
      });
      this.next(1);
    });
  }

  /** Vectors along k, transposed four by four; the rest of k one by one. */
  private writeKPath(steps: Steps, flags: Int32Array, masks: Masks | null): void {
    const { body, fn } = this;
    const { tables } = this.target;
    const allRegular = flags.every((flag) => flag === 1);
    this.readColumns(!allRegular || this.operand.k.address.length % 4 > 0);
    const columnMasks = masks && this.columns.map(() => fn.local('i32'));
    columnMasks?.forEach((local, j) => {
      this.readTable(masks!.other, this.columnIndex(j), null, local);
    });
    const row = fn.local('i32');
    const stop = fn.local('i32');
    body.get(2).set(this.k);
    body.get(3).get(2).op('i32.sub').i32(-4).op('i32.and').get(2).op('i32.add').set(stop);
    forRange(body, this.k, stop, 0, () => {
      const vectors = () => {
        this.readK();
        // Entry k / 4 of a table of words is at byte k.
        if (masks) {
          tables.read(body.get(this.k), masks.group).set(row);
          this.toRowOfMasks(masks, row);
        }
        this.packTransposed(steps, columnMasks && ((j) => this.sum(row, columnMasks[j]!)));
        this.next(4);
      };
      if (allRegular) vectors();
      else {
        tables.read(body.get(this.k), flags).if(vectors, () => {
          for (let u = 0; u < 4; u += 1) this.packOne();
        });
      }
    });
    forRange(body, this.k, 3, 0, () => this.packOne());
  }

  /** The place of a row in the table of masks, as an address. */
  private toRowOfMasks({ table }: Masks, row: Local): void {
    this.target.tables.address(this.body, table);
    this.body.get(row).op('i32.add').set(row);
  }

  /** All columns at the current k one by one, and on to the next k. */
  private packOne(): void {
    this.readK();
    this.readGuards();
    this.packSingles({ start: 0, count: this.width });
    this.next(1);
  }

  private sum(x: Local, y: Local): Local {
    const local = this.fn.local('i32');
    this.body.get(x, y).op('i32.add').set(local);
    return local;
  }

  /** Entry v + j of the panel's tables, in bytes: beyond the last one nobody uses the result, and any value does. */
  private columnIndex(j: number): Local {
    const index = this.fn.local('i32');
    const last = this.operand.panel.address.length - 1;
    this.body.get(1).i32(j).op('i32.add').tee(index).i32(last).get(index).i32(last);
    this.body.op('i32.lt_u').op('select').i32(2).op('i32.shl').set(index);
    return index;
  }

  /** Reads addresses, and where elements are read one by one guards, of the columns. */
  private readColumns(withGuards = true): void {
    const { panel } = this.operand;
    this.columns.forEach((column, j) => {
      const index = this.columnIndex(j);
      this.readTable(panel.address, index, 0, column.address);
      if (!withGuards) return;
      panel.guards.forEach((table, g) => {
        this.readTable(table, index, 6 + g, column.guards[g]!);
      });
    });
  }

  /** The path with the most vector loads among those open; lane-by-lane loads count for less. */
  private choosePath(
    panelSteps: Steps | null,
    panelFlags: Int32Array,
    kSteps: Steps | null,
    kFlags: Int32Array,
  ): Path {
    const size = bytesPerElement(this.operand.dtype);
    const share = (flags: Int32Array) =>
      flags.reduce((sum, flag) => sum + flag, 0) / Math.max(1, flags.length);
    const step = Math.abs(panelSteps?.address ?? Number.POSITIVE_INFINITY);
    const panelWorth = step === 0 || panelSteps?.address === size ? 1 : step <= maxStepBytes ? 0.4 : 0;
    const byPanel = share(panelFlags) * panelWorth;
    const byK = kSteps?.address === size ? share(kFlags) * 0.9 : 0;
    if (Math.max(byPanel, byK) < 0.25) return 'single';
    return byPanel >= byK ? 'panel' : 'k';
  }

  /** into = table[index] plus a parameter; `index` counts bytes. */
  private readTable(table: Int32Array, index: Local, parameter: Local | null, into: Local): void {
    this.target.tables.read(this.body.get(index), table);
    if (parameter !== null) this.body.get(parameter).op('i32.add');
    this.body.set(into);
  }

  private next(steps: number): void {
    this.body.get(this.k).i32(steps).op('i32.add').set(this.k);
    this.body
      .get(this.to)
      .i32(4 * this.width * steps)
      .op('i32.add')
      .set(this.to);
  }

  private readK(): void {
    this.body.get(this.k).i32(2).op('i32.shl').set(this.index);
    this.readTable(this.operand.k.address, this.index, null, this.atK.address);
  }

  private readGuards(): void {
    this.operand.k.guards.forEach((table, g) => {
      this.readTable(table, this.index, null, this.atK.guards[g]!);
    });
  }

  /** All columns at four successive k; `mask` gives the address of a column's mask. */
  private packTransposed(steps: Steps, mask: ((column: number) => Local) | null): void {
    const { body, m } = this;
    for (const group of this.groups) {
      const rows = [0, 1, 2, 3].map((j) => {
        const column = group.start + j;
        if (j >= group.count) return m.i32(0);
        return this.loadVector(this.columns[column]!, steps, mask?.(column) ?? null);
      }) as [Local, Local, Local, Local];
      const zip = (x: Local, y: Local, lanes: readonly number[]) => {
        body.get(x, y).shuffle32(...lanes);
        return m.keep();
      };
      const [low01, high01] = [zip(rows[0], rows[1], [0, 4, 1, 5]), zip(rows[0], rows[1], [2, 6, 3, 7])];
      const [low23, high23] = [zip(rows[2], rows[3], [0, 4, 1, 5]), zip(rows[2], rows[3], [2, 6, 3, 7])];
      this.storeLanes(zip(low01, low23, [0, 1, 4, 5]), group, 0);
      this.storeLanes(zip(low01, low23, [2, 3, 6, 7]), group, 1);
      this.storeLanes(zip(high01, high23, [0, 1, 4, 5]), group, 2);
      this.storeLanes(zip(high01, high23, [2, 3, 6, 7]), group, 3);
    }
  }

  private storeLanes(value: Local, { start, count }: Group, row: number): void {
    const { body, to } = this;
    const at = 4 * (row * this.width + start);
    if (count === 4) body.get(to, value).op('v128.store', at);
    if (count === 2 || count === 3) body.get(to, value).op('v128.store64_lane', at, 0);
    if (count === 3) body.get(to, value).op('v128.store32_lane', at + 8, 2);
    if (count === 1) body.get(to, value).op('v128.store32_lane', at, 0);
  }

  /** f32x4 of elements the given steps apart, from a column at the current k; mask is an address. */
  private loadVector(column: Column, steps: Steps, mask: Local | null): Local {
    const { body, m, fn, atK } = this;
    const from = fn.local('i32');
    body.get(column.address, atK.address).op('i32.add').set(from);
    const loaded = this.readVector(from, steps.address);
    if (mask === null) return loaded;
    body.get(loaded, mask).op('v128.load', 0).op('v128.and');
    return m.keep();
  }

  private readVector(from: Local, step: number): Local {
    const { body, m } = this;
    const half = this.operand.dtype === 'f16';
    if (step === 0 && !half) body.get(from).op('v128.load32_splat', 0);
    else if (step === 0) body.get(from).op('i32.load16_u', 0).op('i32x4.splat');
    else if (step === 4 && !half) body.get(from).op('v128.load', 0);
    else if (step === 2 && half) body.get(from).op('v128.load64_zero', 0).op('i32x4.extend_low_i16x8_u');
    else {
      body.get(
        m.eachLane((lane) => {
          body
            .get(from)
            .i32(step * lane)
            .op('i32.add')
            .op(half ? 'i32.load16_u' : 'i32.load', 0);
        }),
      );
    }
    const stored = m.keep();
    return half ? halfToFloat(m, stored) : stored;
  }

  /** Columns one by one at the current k. */
  private packSingles({ start, count }: Group): void {
    const { body, m, fn, operand, atK } = this;
    const half = operand.dtype === 'f16';
    for (let j = start; j < start + count; j += 1) {
      const column = this.columns[j]!;
      const inside = fn.local('i32');
      body.get(this.to).get(column.address, atK.address).op('i32.add');
      if (operand.limits.length > 0) {
        operand.limits.forEach((limit, g) => {
          body.get(column.guards[g]!, atK.guards[g]!).op('i32.add').i32(limit).op('i32.lt_u');
          if (g > 0) body.op('i32.and');
        });
        body.set(inside).get(this.pointer, inside).op('select');
      }
      body.op(half ? 'i32.load16_u' : 'i32.load', 0);
      if (operand.limits.length > 0) body.i32(0).get(inside).op('i32.sub').op('i32.and');
      if (half) {
        body.op('i32x4.splat');
        body.get(halfToFloat(m, m.keep())).op('i32x4.extract_lane', 0);
      }
      body.op('i32.store', 4 * j);
    }
  }
}

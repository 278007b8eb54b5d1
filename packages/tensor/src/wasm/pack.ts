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
import { innerSteps, isRegular, type Operand, type Steps } from './operand.ts';
import type { Target } from './target.ts';

type Path = 'panel' | 'k' | 'single';

/** Farther apart than this, a masked lane could lie outside the memory's margins. */
const maxStepBytes = 8192;

/**
 * Function (base, v, k0, k1, to, pointer, ...guards): packs panel entries v ... v + width - 1 and k0 ... k1 - 1.
 * `base` is the buffer's address plus the batch's offset, `pointer` the buffer's address, guards the batch's share.
 */
export function packFunction(target: Target, operand: Operand, width: number): number {
  const fn = new FunctionBuilder([
    'i32',
    'i32',
    'i32',
    'i32',
    'i32',
    'i32',
    ...operand.limits.map(() => 'i32' as const),
  ]);
  new PackWriter(target, operand, width, fn).write();
  return target.module.add(fn);
}

/** One row of a panel: its address without k, and its guards without k. */
interface Column {
  readonly address: Local;
  readonly guards: readonly Local[];
}

class PackWriter {
  private readonly target: Target;
  private readonly operand: Operand;
  private readonly width: number;
  private readonly fn: FunctionBuilder;
  private readonly body: Code;
  private readonly m: Lanes;
  private readonly k: Local;
  /** Address and guards of the current k, read from its tables. */
  private readonly atK: Column;
  private readonly columns: readonly Column[];
  private readonly to = 4;
  private readonly pointer = 5;

  constructor(target: Target, operand: Operand, width: number, fn: FunctionBuilder) {
    this.target = target;
    this.operand = operand;
    this.width = width;
    this.fn = fn;
    this.body = fn.body;
    this.m = new Lanes(openContext(target.module, fn, target.relaxed), fn.body);
    this.k = fn.local('i32');
    const column = (): Column => ({
      address: fn.local('i32'),
      guards: operand.limits.map(() => fn.local('i32')),
    });
    this.atK = column();
    this.columns = Array.from({ length: width }, column);
  }

  write(): void {
    const { body } = this;
    const { panel, k } = this.operand;
    this.columns.forEach((column, j) => {
      const index = this.fn.local('i32');
      // Beyond the last entry there is nothing to pack: any values do, as nobody uses the result.
      const last = panel.address.length - 1;
      body.get(1).i32(j).op('i32.add').tee(index).i32(last).get(index).i32(last);
      body.op('i32.lt_u').op('select').i32(2).op('i32.shl').set(index);
      this.readTable(panel.address, index, 0, column.address);
      panel.guards.forEach((table, g) => {
        this.readTable(table, index, 6 + g, column.guards[g]!);
      });
    });
    const panelSteps = innerSteps(panel);
    const kSteps = innerSteps(k);
    const groups = groupsOf(this.width);
    const panelFlags = regularGroups(this.operand, this.width, panelSteps);
    const kFlags = Int32Array.from({ length: Math.ceil(k.address.length / 4) }, (_, i) =>
      Number(4 * i + 4 <= k.address.length && isRegular(k, 4 * i, 4 * i + 4, kSteps)),
    );
    switch (this.choosePath(panelSteps, panelFlags, kSteps, kFlags)) {
      case 'panel': {
        const flags = panelFlags.every((flag) => flag === 1)
          ? null
          : this.groupFlags(panelFlags, groups.length);
        this.overK(1, () => {
          groups.forEach((group, q) => {
            const vector = () => this.packGroup(group, panelSteps);
            const single = () => this.packSingles(group);
            if (flags) body.get(flags[q]!).if(vector, single);
            else vector();
          });
        });
        return;
      }
      case 'k': {
        const allRegular = kFlags.subarray(0, Math.floor(k.address.length / 4)).every((flag) => flag === 1);
        const table = allRegular ? 0 : this.target.table(kFlags);
        const singles = () => {
          this.packSingles({ start: 0, count: this.width });
          this.next(1);
        };
        body.get(2).set(this.k);
        const stop = this.fn.local('i32');
        body.get(3).get(2).op('i32.sub').i32(-4).op('i32.and').get(2).op('i32.add').set(stop);
        forRange(body, this.k, stop, 0, () => {
          const vectors = () => {
            this.readK();
            this.packTransposed(kSteps);
            this.next(4);
          };
          if (allRegular) vectors();
          else {
            body
              .get(this.k)
              .op('i32.load', table)
              .if(vectors, () => {
                for (let u = 0; u < 4; u += 1) {
                  this.readK();
                  singles();
                }
              });
          }
        });
        forRange(body, this.k, 3, 0, () => {
          this.readK();
          singles();
        });
        return;
      }
      case 'single':
        this.overK(1, () => this.packSingles({ start: 0, count: this.width }));
    }
  }

  /** The path with the most vector loads; lane-by-lane loads count for less. */
  private choosePath(panelSteps: Steps, panelFlags: Int32Array, kSteps: Steps, kFlags: Int32Array): Path {
    const size = bytesPerElement(this.operand.dtype);
    const share = (flags: Int32Array) =>
      flags.reduce((sum, flag) => sum + flag, 0) / Math.max(1, flags.length);
    const step = Math.abs(panelSteps.address);
    const panelWorth = step === 0 || panelSteps.address === size ? 1 : step <= maxStepBytes ? 0.4 : 0;
    const byPanel = share(panelFlags) * panelWorth;
    const byK = kSteps.address === size ? share(kFlags) * 0.9 : 0;
    if (Math.max(byPanel, byK) < 0.25) return 'single';
    return byPanel >= byK ? 'panel' : 'k';
  }

  /** into = table[index] + a parameter; `index` counts bytes. */
  private readTable(table: Int32Array, index: Local, parameter: Local, into: Local): void {
    this.body.get(index).op('i32.load', this.target.table(table)).get(parameter).op('i32.add').set(into);
  }

  private groupFlags(flags: Int32Array, groupsPerPanel: number): Local[] {
    const table = this.target.table(flags);
    return Array.from({ length: groupsPerPanel }, (_, q) => {
      const flag = this.fn.local('i32');
      this.body
        .get(1)
        .i32(this.width)
        .op('i32.div_u')
        .i32(4 * groupsPerPanel)
        .op('i32.mul');
      this.body.op('i32.load', table + 4 * q).set(flag);
      return flag;
    });
  }

  private overK(step: number, body: () => void): void {
    this.body.get(2).set(this.k);
    forRange(this.body, this.k, 3, 0, () => {
      this.readK();
      body();
      this.next(step);
    });
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
    const { body, k, operand } = this;
    const index = this.fn.local('i32');
    body.get(k).i32(2).op('i32.shl').set(index);
    const read = (table: Int32Array, into: Local) =>
      body.get(index).op('i32.load', this.target.table(table)).set(into);
    read(operand.k.address, this.atK.address);
    operand.k.guards.forEach((table, g) => {
      read(table, this.atK.guards[g]!);
    });
  }

  /** Four (or fewer) neighbours along the panel at the current k. */
  private packGroup(group: Group, steps: Steps): void {
    const value = this.loadVector(this.columns[group.start]!, steps);
    this.storeLanes(value, group, 0);
  }

  /** All columns at four successive k. */
  private packTransposed(steps: Steps): void {
    const { body, m } = this;
    for (const group of groupsOf(this.width)) {
      const rows = [0, 1, 2, 3].map((j) =>
        j < group.count ? this.loadVector(this.columns[group.start + j]!, steps) : m.i32(0),
      ) as [Local, Local, Local, Local];
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

  /** f32x4 of elements the given steps apart, from a column at the current k. */
  private loadVector(column: Column, steps: Steps): Local {
    const { body, m, fn, operand, atK } = this;
    const from = fn.local('i32');
    body.get(column.address, atK.address).op('i32.add').set(from);
    let mask: Local | null = null;
    operand.limits.forEach((limit, g) => {
      body.get(column.guards[g]!, atK.guards[g]!).op('i32.add');
      const step = steps.guards[g]!;
      if (step === 0) body.i32(limit).op('i32.lt_u').i32(-1).op('i32.mul').op('i32x4.splat');
      else {
        body
          .op('i32x4.splat')
          .get(m.constant([0, step, 2 * step, 3 * step]))
          .op('i32x4.add');
        body.get(m.i32(limit)).op('i32x4.lt_u');
      }
      if (mask !== null) body.get(mask).op('v128.and');
      mask = m.keep();
    });
    if (mask !== null) body.get(from, this.pointer, mask).op('v128.any_true').op('select').set(from);
    const loaded = this.readVector(from, steps.address);
    return mask === null ? loaded : m.op('v128.and', loaded, mask);
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

interface Group {
  readonly start: number;
  readonly count: number;
}

function groupsOf(width: number): Group[] {
  return Array.from({ length: Math.ceil(width / 4) }, (_, q) => ({
    start: 4 * q,
    count: Math.min(4, width - 4 * q),
  }));
}

/** For each group of each panel: 1 where its entries are evenly spaced by the steps. */
function regularGroups({ panel }: Operand, width: number, steps: Steps): Int32Array {
  const groups = groupsOf(width);
  const panels = Math.ceil(panel.address.length / width);
  return Int32Array.from({ length: panels * groups.length }, (_, i) => {
    const { start, count } = groups[i % groups.length]!;
    const first = Math.floor(i / groups.length) * width + start;
    return Number(isRegular(panel, first, first + count, steps));
  });
}

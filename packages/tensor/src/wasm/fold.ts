/**
 * Accumulators of reductions. Sums of floats are kept in f32 for short runs only and then added up in f64, so the
 * error of a long sum stays that of a short one.
 */
import type { Scalar } from '../kernel.ts';
import type { Code, Local } from './assembler.ts';
import { type Context, Lanes } from './lanes.ts';
import type { OpName } from './opcodes.ts';

/** What a fold starts from and how two values become one. */
export interface FoldRule {
  readonly op: OpName;
  readonly identity: number;
  readonly isFloat: boolean;
  /** Whether runs are summed in f64. */
  readonly wide: boolean;
}

export function foldRule(fold: 'sum' | 'max' | 'argmax', type: Scalar): FoldRule {
  const isFloat = type === 'f32';
  if (fold === 'sum') return { op: isFloat ? 'f32x4.add' : 'i32x4.add', identity: 0, isFloat, wide: isFloat };
  if (isFloat) return { op: 'f32x4.max', identity: Number.NEGATIVE_INFINITY, isFloat, wide: false };
  if (type === 'i32') return { op: 'i32x4.max_s', identity: -(2 ** 31), isFloat, wide: false };
  return { op: 'i32x4.max_u', identity: 0, isFloat, wide: false };
}

export function identityLanes(m: Lanes, rule: FoldRule): Local {
  return rule.isFloat ? m.f32(rule.identity) : m.i32(rule.identity);
}

/** Four folds side by side, or one fold spread over four lanes. */
export class Accumulator {
  private readonly context: Context;
  private readonly m: Lanes;
  private readonly rule: FoldRule;
  private readonly sums: readonly Local[];
  /** Of a float's maximum: the lanes that have met NaN. */
  private readonly missing: Local | null;
  private readonly low: Local;
  private readonly high: Local;

  /** `ways` independent partial folds hide the latency of an addition. */
  constructor(context: Context, code: Code, rule: FoldRule, ways: number) {
    this.context = context;
    this.m = new Lanes(context, code);
    this.rule = rule;
    const vector = () => context.fn.local('v128');
    this.sums = Array.from({ length: ways }, vector);
    [this.low, this.high] = [vector(), vector()];
    this.missing = rule.op === 'f32x4.max' ? vector() : null;
  }

  start(): void {
    this.clear();
    const zeros = this.missing === null ? [this.low, this.high] : [this.missing];
    for (const local of zeros) this.m.code.get(this.m.i32(0)).set(local);
  }

  private clear(): void {
    const identity = identityLanes(this.m, this.rule);
    for (const sum of this.sums) this.m.code.get(identity).set(sum);
  }

  /** Takes in a value, computed in the given section. */
  add(section: Code, value: Local, way: number): void {
    const sum = this.sums[way]!;
    const { missing } = this;
    if (missing === null) section.get(sum, value).op(this.rule.op).set(sum);
    else {
      // f32x4.max is eight instructions, most of them for NaN; these are three.
      section.get(sum, value).op('f32x4.pmax').set(sum);
      section.get(missing, value, value).op('f32x4.ne').op('v128.or').set(missing);
    }
  }

  private joined(m = this.m): Local {
    const joined = this.sums.reduce((x, y) => m.op(this.rule.op, x, y));
    return this.missing === null ? joined : m.op('v128.or', joined, this.missing);
  }

  /** Ends a run: moves what was summed in f32 to the f64 sums. */
  flush(): void {
    if (!this.rule.wide) return;
    const { m } = this;
    const sum = this.joined();
    m.code.get(this.low, m.op('f64x2.promote_low_f32x4', sum)).op('f64x2.add').set(this.low);
    m.code
      .get(this.high, m.op('f64x2.promote_low_f32x4', this.swapped(sum)))
      .op('f64x2.add')
      .set(this.high);
    this.clear();
  }

  private swapped(x: Local, m = this.m): Local {
    m.code.get(x, x).shuffle32(2, 3, 0, 1);
    return m.keep();
  }

  /** The folds side by side: a vector, and for wide sums the f64 values of lanes 0, 1 and 2, 3. */
  lanes(): { value: Local; wide: readonly [Local, Local] } {
    const { m } = this;
    const wide = [this.low, this.high] as const;
    if (!this.rule.wide) return { value: this.joined(), wide };
    const [low, high] = wide.map((pair) => m.op('f32x4.demote_f64x2_zero', pair)) as [Local, Local];
    m.code.get(low, high).shuffle32(0, 1, 4, 5);
    return { value: m.keep(), wide };
  }

  /** The one fold: in all lanes, and for wide sums as f64 in both halves; computed in the given section. */
  total(code = this.m.code): { value: Local; wide: readonly [Local, Local] } {
    const m = new Lanes(this.context, code);
    if (this.rule.wide) {
      const pair = m.op('f64x2.add', this.low, this.high);
      const sum = m.op('f64x2.add', pair, this.swapped(pair, m));
      m.code.get(m.op('f32x4.demote_f64x2_zero', sum)).op('f32x4.extract_lane', 0).op('f32x4.splat');
      return { value: m.keep(), wide: [sum, sum] };
    }
    const joined = this.joined(m);
    const halves = m.op(this.rule.op, joined, this.swapped(joined, m));
    m.code.get(halves, halves).shuffle32(1, 0, 3, 2);
    const value = m.op(this.rule.op, halves, m.keep());
    return { value, wide: [value, value] };
  }
}

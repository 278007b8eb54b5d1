/** Straight-line SIMD code in expression style: every operation puts its result in a local of its own. */
import type { Code, FunctionBuilder, Local, ModuleBuilder } from './assembler.ts';
import type { OpName } from './opcodes.ts';

const words = new Uint32Array(1);
const floats = new Float32Array(words.buffer);

/** The bits of a number as f32. */
export function floatBits(value: number): number {
  floats[0] = value;
  return words[0]!;
}

/** What a generated function is written with. */
export interface Context {
  readonly module: ModuleBuilder;
  readonly fn: FunctionBuilder;
  /** Whether the engine has f32x4.relaxed_madd: x y + z, rounded once or twice. */
  readonly relaxed: boolean;
  /** Vector constants of the function, set where it is entered. */
  readonly constants: Map<string, Local>;
}

/** What a helper function of the module is written from. */
export type Origin = Pick<Context, 'module' | 'relaxed'>;

export function openContext(module: ModuleBuilder, fn: FunctionBuilder, relaxed: boolean): Context {
  return { module, fn, relaxed, constants: new Map() };
}

/** Writes operations on four lanes to a section of a function. */
export class Lanes {
  readonly context: Context;
  readonly code: Code;

  constructor(context: Context, code: Code) {
    this.context = context;
    this.code = code;
  }

  /** A vector of the operands, which are vectors, with the immediates of the instruction. */
  op(name: OpName, ...operands: readonly Local[]): Local {
    this.code.get(...operands).op(name);
    return this.keep();
  }

  /** x shifted by a constant number of bits. */
  shift(name: 'i32x4.shl' | 'i32x4.shr_s' | 'i32x4.shr_u', x: Local, bits: number): Local {
    this.code.get(x).i32(bits).op(name);
    return this.keep();
  }

  /** The vector on the stack, in a new local. */
  keep(): Local {
    const result = this.context.fn.local('v128');
    this.code.set(result);
    return result;
  }

  constant(bits: readonly number[]): Local {
    const key = bits.join();
    const known = this.context.constants.get(key);
    if (known !== undefined) return known;
    const local = this.context.fn.local('v128');
    this.context.fn.entry.v128(bits).set(local);
    this.context.constants.set(key, local);
    return local;
  }

  /** The number in all lanes. */
  f32(value: number): Local {
    const bits = floatBits(value);
    return this.constant([bits, bits, bits, bits]);
  }

  i32(value: number): Local {
    return this.constant([value, value, value, value]);
  }

  f64(value: number): Local {
    const [low, high] = new Uint32Array(new Float64Array([value]).buffer);
    return this.constant([low!, high!, low!, high!]);
  }

  /** x y + z. */
  madd(x: Local, y: Local, z: Local): Local {
    if (this.context.relaxed) return this.op('f32x4.relaxed_madd', x, y, z);
    return this.op('f32x4.add', this.op('f32x4.mul', x, y), z);
  }

  /** sum_i coefficients_i x^i, highest power first. */
  polynomial(x: Local, coefficients: readonly number[]): Local {
    return coefficients
      .map((value) => this.f32(value))
      .reduce((sum, coefficient) => this.madd(sum, x, coefficient));
  }

  /** yes where the mask is set, no elsewhere. */
  select(mask: Local, yes: Local, no: Local): Local {
    return this.op('v128.bitselect', yes, no, mask);
  }

  /** The result of a function of the module on vectors. */
  call(name: string, write: (origin: Origin) => FunctionBuilder, ...operands: Local[]): Local {
    const index = this.context.module.named(name, () => write(this.context));
    this.code.get(...operands).op('call', index);
    return this.keep();
  }

  /** The vector with its 32-bit lanes computed one by one: `lane` leaves an i32 for lane i on the stack. */
  eachLane(lane: (i: number) => void): Local {
    const result = this.context.fn.local('v128');
    lane(0);
    this.code.op('i32x4.splat').set(result);
    for (let i = 1; i < 4; i += 1) {
      this.code.get(result);
      lane(i);
      this.code.op('i32x4.replace_lane', i).set(result);
    }
    return result;
  }
}

/**
 * The WebAssembly instructions that kernels are made of: name -> [opcode bytes, what follows them].
 *
 *   plain    nothing                 index    one unsigned LEB128 (a local, a function, a branch depth)
 *   memory   alignment and offset    lane     one byte
 *   memoryLane   both                shuffle  sixteen bytes
 */
export type Immediate = 'plain' | 'index' | 'memory' | 'lane' | 'memoryLane' | 'shuffle';

export interface Instruction {
  readonly bytes: readonly number[];
  readonly immediate: Immediate;
  /** Memory instructions: log2 of the access in bytes; atomic ones must name their exact alignment. */
  readonly align: number;
}

function plain(code: number): Instruction {
  return { bytes: [code], immediate: 'plain', align: 0 };
}

function index(code: number): Instruction {
  return { bytes: [code], immediate: 'index', align: 0 };
}

function memory(code: number): Instruction {
  return { bytes: [code], immediate: 'memory', align: 0 };
}

function atomic(code: number, align = 2): Instruction {
  return { bytes: [0xfe, code], immediate: 'memory', align };
}

function saturating(code: number): Instruction {
  return { bytes: [0xfc, code], immediate: 'plain', align: 0 };
}

function simd(code: number, immediate: Immediate = 'plain'): Instruction {
  const low = code >= 0x80 ? [(code & 0x7f) | 0x80, code >>> 7] : [code];
  return { bytes: [0xfd, ...low], immediate, align: 0 };
}

export const opcodes = {
  unreachable: plain(0x00),
  br: index(0x0c),
  br_if: index(0x0d),
  return: plain(0x0f),
  call: index(0x10),
  drop: plain(0x1a),
  select: plain(0x1b),
  'local.get': index(0x20),
  'local.set': index(0x21),
  'local.tee': index(0x22),
  'global.get': index(0x23),

  'i32.load': memory(0x28),
  'i32.load16_u': memory(0x2f),
  'i32.store': memory(0x36),

  'i32.eqz': plain(0x45),
  'i32.eq': plain(0x46),
  'i32.ne': plain(0x47),
  'i32.lt_u': plain(0x49),
  'i32.gt_u': plain(0x4b),
  'i32.ge_u': plain(0x4f),
  'f64.eq': plain(0x61),
  'f64.ne': plain(0x62),
  'f64.lt': plain(0x63),
  'f64.gt': plain(0x64),
  'i32.add': plain(0x6a),
  'i32.sub': plain(0x6b),
  'i32.mul': plain(0x6c),
  'i32.div_s': plain(0x6d),
  'i32.div_u': plain(0x6e),
  'i32.rem_s': plain(0x6f),
  'i32.rem_u': plain(0x70),
  'i32.and': plain(0x71),
  'i32.or': plain(0x72),
  'i32.shl': plain(0x74),
  'i32.shr_s': plain(0x75),
  'i32.shr_u': plain(0x76),
  'i64.add': plain(0x7c),
  'i64.sub': plain(0x7d),
  'i64.and': plain(0x83),
  'i64.shl': plain(0x86),
  'i64.shr_s': plain(0x87),
  'f64.abs': plain(0x99),
  'f64.neg': plain(0x9a),
  'f64.floor': plain(0x9c),
  'f64.nearest': plain(0x9e),
  'f64.add': plain(0xa0),
  'f64.sub': plain(0xa1),
  'f64.mul': plain(0xa2),
  'f64.div': plain(0xa3),
  'f64.min': plain(0xa4),
  'f64.max': plain(0xa5),
  'f32.demote_f64': plain(0xb6),
  'f64.convert_i64_s': plain(0xb9),
  'f64.promote_f32': plain(0xbb),
  'i32.reinterpret_f32': plain(0xbc),
  'i64.reinterpret_f64': plain(0xbd),
  'f64.reinterpret_i64': plain(0xbf),
  'i64.trunc_sat_f64_s': saturating(0x06),

  'memory.atomic.notify': atomic(0x00),
  'memory.atomic.wait32': atomic(0x01),
  'i32.atomic.load': atomic(0x10),
  'i32.atomic.store': atomic(0x17),
  'i32.atomic.rmw.add': atomic(0x1e),

  'v128.load': simd(0x00, 'memory'),
  'v128.load32_splat': simd(0x09, 'memory'),
  'v128.store': simd(0x0b, 'memory'),
  'i8x16.shuffle': simd(0x0d, 'shuffle'),
  'i32x4.splat': simd(0x11),
  'f32x4.splat': simd(0x13),
  'i32x4.extract_lane': simd(0x1b, 'lane'),
  'i32x4.replace_lane': simd(0x1c, 'lane'),
  'f32x4.extract_lane': simd(0x1f, 'lane'),
  'i32x4.eq': simd(0x37),
  'i32x4.ne': simd(0x38),
  'i32x4.lt_s': simd(0x39),
  'i32x4.lt_u': simd(0x3a),
  'i32x4.gt_s': simd(0x3b),
  'i32x4.gt_u': simd(0x3c),
  'i32x4.le_s': simd(0x3d),
  'i32x4.le_u': simd(0x3e),
  'i32x4.ge_s': simd(0x3f),
  'i32x4.ge_u': simd(0x40),
  'f32x4.eq': simd(0x41),
  'f32x4.ne': simd(0x42),
  'f32x4.lt': simd(0x43),
  'f32x4.gt': simd(0x44),
  'f32x4.le': simd(0x45),
  'v128.not': simd(0x4d),
  'v128.and': simd(0x4e),
  'v128.andnot': simd(0x4f),
  'v128.or': simd(0x50),
  'v128.xor': simd(0x51),
  'v128.bitselect': simd(0x52),
  'v128.any_true': simd(0x53),
  'v128.store16_lane': simd(0x59, 'memoryLane'),
  'v128.store32_lane': simd(0x5a, 'memoryLane'),
  'v128.store64_lane': simd(0x5b, 'memoryLane'),
  'v128.load64_zero': simd(0x5d, 'memory'),
  'f32x4.demote_f64x2_zero': simd(0x5e),
  'f64x2.promote_low_f32x4': simd(0x5f),
  'f32x4.ceil': simd(0x67),
  'f32x4.floor': simd(0x68),
  'f32x4.trunc': simd(0x69),
  'f32x4.nearest': simd(0x6a),
  'i16x8.narrow_i32x4_u': simd(0x86),
  'f64x2.nearest': simd(0x94),
  'i32x4.abs': simd(0xa0),
  'i32x4.neg': simd(0xa1),
  'i32x4.extend_low_i16x8_u': simd(0xa9),
  'i32x4.shl': simd(0xab),
  'i32x4.shr_s': simd(0xac),
  'i32x4.shr_u': simd(0xad),
  'i32x4.add': simd(0xae),
  'i32x4.sub': simd(0xb1),
  'i32x4.mul': simd(0xb5),
  'i32x4.min_s': simd(0xb6),
  'i32x4.min_u': simd(0xb7),
  'i32x4.max_s': simd(0xb8),
  'i32x4.max_u': simd(0xb9),
  'f32x4.abs': simd(0xe0),
  'f32x4.neg': simd(0xe1),
  'f32x4.sqrt': simd(0xe3),
  'f32x4.add': simd(0xe4),
  'f32x4.sub': simd(0xe5),
  'f32x4.mul': simd(0xe6),
  'f32x4.div': simd(0xe7),
  'f32x4.min': simd(0xe8),
  'f32x4.max': simd(0xe9),
  'f32x4.pmin': simd(0xea),
  'f32x4.pmax': simd(0xeb),
  'f64x2.add': simd(0xf0),
  'f64x2.sub': simd(0xf1),
  'f64x2.mul': simd(0xf2),
  'i32x4.trunc_sat_f32x4_s': simd(0xf8),
  'i32x4.trunc_sat_f32x4_u': simd(0xf9),
  'f32x4.convert_i32x4_s': simd(0xfa),
  'f32x4.convert_i32x4_u': simd(0xfb),
  'i32x4.trunc_sat_f64x2_s_zero': simd(0xfc),
  'f32x4.relaxed_madd': simd(0x105),
} as const satisfies Record<string, Instruction>;

export type OpName = keyof typeof opcodes;

/**
 * Random numbers that are a pure function of where they are used.
 *
 * Number k of item `index` under `seed` is hash(seed, index, k): no state is shared between items, so the
 * 70,000th picture of a world is the same whether or not the 69,999 before it were drawn.
 *
 *     h = mix(mix(mix(seed) ^ index) + k * phi)         phi = 2^32 / golden ratio, odd
 *
 * `mix` is the 32-bit finaliser of MurmurHash3 with the constants found by C. Wellons' hash prospector.
 */

function mix(value: number): number {
  let h = value >>> 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x21f0aaad);
  h ^= h >>> 15;
  h = Math.imul(h, 0x735a2d97);
  h ^= h >>> 15;
  return h >>> 0;
}

/** A sequence of draws; each call consumes one number of the sequence. */
export interface Draws {
  /** A number in [0, 1). */
  uniform(): number;
  /** A number in [low, high). */
  between(low: number, high: number): number;
  /** True with the given probability. */
  chance(probability: number): boolean;
  /** One of the options, all equally likely. Throws on an empty list. */
  pick<T>(options: readonly T[]): T;
}

/** The sequence of draws that belongs to item `index` under `seed`: the same pair gives the same numbers. */
export function draws(seed: number, index: number): Draws {
  const key = mix(mix(mix(seed) ^ (index >>> 0)) ^ Math.floor(index / 2 ** 32));
  let k = 0;
  const uniform = (): number => {
    k += 1;
    return mix(mix(key + Math.imul(k, 0x9e3779b9))) / 2 ** 32;
  };
  return {
    uniform,
    between: (low, high) => low + (high - low) * uniform(),
    chance: (probability) => uniform() < probability,
    pick: (options) => {
      const option = options[Math.floor(uniform() * options.length)];
      if (option === undefined) throw new RangeError('pick: the list of options is empty');
      return option;
    },
  };
}

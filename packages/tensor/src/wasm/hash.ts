/** Two FNV-1a hashes with different seeds: 64 bits, enough to take equal hashes for equal numbers. */
export function hashWords(words: ArrayLike<number>): string {
  let first = 0x811c9dc5;
  let second = 0x01234567;
  for (let i = 0; i < words.length; i += 1) {
    const word = words[i]!;
    first = Math.imul(first ^ word, 0x01000193);
    second = Math.imul(second ^ word, 0x01000197) ^ (second >>> 15);
  }
  return `${first >>> 0}.${second >>> 0}`;
}

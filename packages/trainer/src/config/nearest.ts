/**
 * Edits that turn `a` into `b`: insertions, deletions, substitutions and swaps of neighbours, one each
 * (optimal string alignment).
 */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1];
      row[j] = Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        row[j] = Math.min(row[j]!, before[j - 2]! + 1);
    }
    [before, above] = [above, row];
  }
  return above[b.length]!;
}

/** The name that was probably meant, or null when none is within a third of its length; ties go to the first. */
export function nearestName(written: string, names: readonly string[]): string | null {
  const plain = written.toLowerCase().replaceAll('-', '_').slice(0, 100);
  let best: string | null = null;
  let fewest = Number.POSITIVE_INFINITY;
  for (const name of names) {
    const edits = editDistance(plain, name.toLowerCase().replaceAll('-', '_'));
    if (edits < fewest && edits <= Math.max(1, name.length / 3)) [best, fewest] = [name, edits];
  }
  return best;
}

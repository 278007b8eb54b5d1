/** Right results, from the float64 reference device. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { referenceDevice } from '@deftjs/tensor';
import { prepareOn } from './deft.ts';
import { type HostTensor, inputsOf, type Row, takeLast } from './rows.ts';

/**
 * The compared parts of the row's results. Losses of training rows take minutes in float64; they are kept in a file,
 * by the row's name, once they have been computed.
 */
export async function expectedOf(row: Row, lossesFile: string): Promise<readonly HostTensor[]> {
  const known = existsSync(lossesFile) ? JSON.parse(readFileSync(lossesFile, 'utf8')) : {};
  if (row.mode === 'train' && known[row.name]) {
    const values = Float32Array.from(known[row.name]);
    return [{ shape: [values.length], values }];
  }
  const inputs = Object.fromEntries(
    Object.entries(inputsOf(row)).map(([name, input]) => [
      name,
      (row.sample?.inputs[name] ?? []).reduce(takeLast, input),
    ]),
  );
  const prepared = await prepareOn(referenceDevice(), row, inputs);
  const outputs = (await prepared.outputs()).map(({ shape, values }) => ({
    shape,
    values: Float32Array.from(values),
  }));
  prepared.dispose();
  if (row.mode === 'train') {
    known[row.name] = [...outputs[0]!.values];
    writeFileSync(lossesFile, `${JSON.stringify(known, null, 2)}\n`);
  }
  return outputs;
}

/** The largest |got - want| over the largest |want|; infinite for other shapes and for what is no number. */
export function errorOf(got: readonly HostTensor[], want: readonly HostTensor[]): number {
  if (got.length !== want.length) return Number.POSITIVE_INFINITY;
  let [error, largest] = [0, 0];
  want.forEach(({ shape, values }, i) => {
    const other = got[i]!;
    if (other.shape.join() !== shape.join()) error = Number.POSITIVE_INFINITY;
    values.forEach((value, j) => {
      const difference = Math.abs(other.values[j]! - value);
      error = difference >= 0 ? Math.max(error, difference) : Number.POSITIVE_INFINITY;
      largest = Math.max(largest, Math.abs(value));
    });
  });
  return error / largest;
}

/** Texts against the ids that transformers gave them. */
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { openClipTokenizer } from '@deftjs/models/node';
import { type Check, compare } from './check.ts';

/** The file of texts and ids; it lies beside the pipeline folder whose tokenizer they are about. */
export const tokenizerCases = 'tokenizer-cases.json';

interface TokenizerCase {
  readonly text: string;
  readonly input_ids: readonly number[];
}

/** Checks every text exactly. @throws Error unless exactly one folder beside the file has a tokenizer */
export async function checkTokenizer(file: string): Promise<Check[]> {
  const beside = dirname(file);
  const folders = fs
    .readdirSync(beside)
    .map((name) => join(beside, name, 'tokenizer'))
    .filter((folder) => fs.existsSync(folder));
  if (folders.length !== 1) {
    throw new Error(`expected one folder with a tokenizer beside ${tokenizerCases}; got ${folders.length}`);
  }
  const tokenizer = await openClipTokenizer(folders[0]!);
  const cases = JSON.parse(fs.readFileSync(file, 'utf8')) as readonly TokenizerCase[];
  return cases.map(({ text, input_ids: ids }, i) =>
    compare(`text${i}/input_ids`, tokenizer.encode(text), ids, 0),
  );
}

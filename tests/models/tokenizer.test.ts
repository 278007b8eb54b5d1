import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clipTokenizer, type Tokenizer } from '@deftjs/models';
import { openClipTokenizer, openT5Tokenizer, readConfigFile } from '@deftjs/models/node';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';

const golden = new URL('../golden/', import.meta.url);
const folder = new URL('sd-tiny-pipeline/tokenizer/', golden).pathname;
const cases: { text: string; input_ids: number[] }[] = JSON.parse(
  readFileSync(new URL('tokenizer-cases.json', golden), 'utf8'),
);

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await openClipTokenizer(folder);
});

describe('the CLIP tokenizer', () => {
  it.each(cases)('encodes $text as transformers does', ({ text, input_ids }) => {
    expect(tokenizer.encode(text)).toEqual(input_ids);
  });

  it('is the same from vocab.json and merges.txt alone', async () => {
    const older = mkdtempSync(join(tmpdir(), 'deft-tokenizer-'));
    cpSync(folder, older, { recursive: true });
    rmSync(join(older, 'tokenizer.json'), { force: true });
    const fromVocabulary = await openClipTokenizer(older);
    rmSync(older, { recursive: true, force: true });
    for (const { text } of cases) expect(fromVocabulary.encode(text)).toEqual(tokenizer.encode(text));
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 40 }), (text) => {
        expect(fromVocabulary.encode(text)).toEqual(tokenizer.encode(text));
      }),
    );
  });

  it('gives every text the same number of ids, the first and the last fixed', () => {
    const [start, end] = [tokenizer.encode('')[0], tokenizer.encode('')[1]];
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (text) => {
        const ids = tokenizer.encode(text);
        expect(ids).toHaveLength(tokenizer.length);
        expect(ids[0]).toBe(start);
        expect(ids.at(-1)).toBe(end);
      }),
    );
  });

  it('gives back words of its vocabulary in lower case', () => {
    expect(tokenizer.decode(tokenizer.encode('A photo of  a Dog'))).toBe('a photo of a dog');
  });

  it('refuses a config whose special tokens are not in the vocabulary', async () => {
    const definition = await readConfigFile(join(folder, 'tokenizer.json'));
    const config = await readConfigFile(join(folder, 'tokenizer_config.json'));
    expect(() => clipTokenizer(definition, { ...config, pad_token: '<pad>' })).toThrow(
      'tokenizer: pad_token: expected a token of the vocabulary; got "<pad>"',
    );
    expect(() => clipTokenizer(definition, { ...config, model_max_length: 1e30 })).toThrow(
      'tokenizer: model_max_length: expected a whole number in [2, 100000]; got 1e+30',
    );
  });
});

describe('the T5 tokenizer', () => {
  const t5Folder = new URL('t5-tokenizer/', golden).pathname;
  const recorded: { text: string; input_ids: number[] }[] = JSON.parse(
    readFileSync(`${t5Folder}cases.json`, 'utf8'),
  );

  it.each(recorded)('encodes $text as transformers does', async ({ text, input_ids }) => {
    expect((await openT5Tokenizer(t5Folder)).encode(text)).toEqual(input_ids);
  });

  it('gives back what it encoded, but for spaces', async () => {
    const t5 = await openT5Tokenizer(t5Folder);
    expect(t5.decode(t5.encode('a photo  of a tensor'))).toBe('a photo of a tensor');
  });
});

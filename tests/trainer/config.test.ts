import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import {
  configChanges,
  heldOutPrompts,
  methods,
  readPretrainConfig,
  readTrainConfig,
  UserError,
  writeConfig,
} from '@deftjs/trainer';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { editDistance, nearestName } from '../../packages/trainer/src/config/nearest.ts';
import { trainSchema } from '../../packages/trainer/src/config/train.ts';

const folder = fs.mkdtempSync(join(os.tmpdir(), 'deft-config-'));
afterAll(() => fs.rmSync(folder, { recursive: true }));
const path = join(folder, 'job.yaml');

/** What reading the text says: the message with the file's path as FILE, or the configuration. */
function reading(text: string | Uint8Array, overrides: readonly string[] = []) {
  fs.writeFileSync(path, text);
  try {
    return readTrainConfig(path, overrides);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    expect(error.exitStatus).toBe(2);
    return error.message.replaceAll(path, 'FILE');
  }
}

const good = 'name: robot\ndata:\n  folder: pictures\n';

describe('a configuration', () => {
  it('is filled in with defaults, its folders relative to the file', () => {
    const config = reading(good);
    expect(config).toMatchObject({ name: 'robot', rank: 4, method: 'deft', p_learning_rate_ratio: 0.1 });
    expect(config).toMatchObject({ data: { folder: join(folder, 'pictures') }, sampling: { seeds: [1, 2] } });
  });

  it('reads back as it was written', () => {
    fc.assert(
      fc.property(
        fc.record({
          name: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,20}$/),
          data: fc.record({ folder: fc.constant('/pictures') }),
          rank: fc.integer({ min: 1, max: 1024 }),
          learning_rate: fc.double({ min: 1e-12, max: 1, noNaN: true }),
          sampling: fc.record({
            prompts: fc.array(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }), {
              minLength: 1,
              maxLength: 3,
            }),
            seeds: fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { minLength: 1, maxLength: 4 }),
          }),
        }),
        (written) => {
          const parsed = trainSchema(written).safeParse({ ...written, base: '/base' });
          fc.pre(parsed.success); // not every string is a prompt
          fs.writeFileSync(path, writeConfig(parsed.data!));
          expect(readTrainConfig(path)).toEqual(parsed.data);
          expect(configChanges(writeConfig(parsed.data!), parsed.data!)).toEqual([]);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('may hold a hundred keys on one line', () => {
    const line = Array.from({ length: 100 }, (_, i) => `key${i}: 1`).join(', ');
    expect(reading(`{${line}}`)).toMatch('and 92 more problems'); // all unknown, but read
  });

  it('names the keys in which it differs from an earlier one', () => {
    const earlier = writeConfig(reading(good) as ReturnType<typeof readTrainConfig>);
    const now = reading(`${good}rank: 8\nsampling: {steps: 3}\nprior: {weight: 2}\n`);
    expect(configChanges(earlier, now as ReturnType<typeof readTrainConfig>)).toEqual([
      'prior',
      'rank',
      'sampling.steps',
    ]);
  });

  it('is that of the example, with prompts that no training picture shows', () => {
    const config = readTrainConfig('examples/personalize.yaml');
    expect(config.sampling.prompts).toEqual(heldOutPrompts('robot').map(({ prompt }) => prompt));
    expect(config.data.folder).toBe(join(process.cwd(), 'examples/data/robot'));
  });

  it('is that of the shipped base, whose picture is its grid times its block', () => {
    const { name, model } = readPretrainConfig('examples/world-base.yaml');
    expect(name).toBe('world-base');
    if (!('unet' in model)) throw new Error('a UNet');
    expect(model.unet.sample_size * model.block_size).toBe(32);
    expect(model.unet.in_channels).toBe(3 * model.block_size ** 2);
  });

  it('of pretraining needs a name only', () => {
    fs.writeFileSync(path, 'name: base');
    expect(readPretrainConfig(path, ['steps=7', 'model.unet.norm_num_groups=4'])).toMatchObject({
      steps: 7,
      model: { unet: { norm_num_groups: 4 } },
    });
  });
});

// biome-ignore format: a table
const refused: readonly (readonly [name: string, text: string | Uint8Array, message: string])[] = [
  ['an unknown key', `${good}learing_rate: 1\n`, 'FILE:4:1: learing_rate: unknown key; did you mean learning_rate?'],
  ['an unknown key in a section', `${good}sampling:\n  guidence: 3\n  step: 1\n`, 'FILE:5:3: sampling.guidence: unknown key; expected one of steps, guidance_scale, prompts, folder, seeds, other_prompts\nFILE:6:3: sampling.step: unknown key; did you mean steps?'],
  ['a key that is missing', 'name: robot\n', 'FILE:1:1: data: this key is missing; expected a mapping of keys to values'],
  ['a missing key in a section', 'name: robot\ndata: {}\n', 'FILE:2:7: data.folder: this key is missing; expected one line of text, 1 to 4096 characters'],
  ['a key of another method', `${good}method: lora\nprojector: qr\n`, 'FILE:5:1: projector: the method lora has no such key; it belongs to deft, para'],
  ['a key of another method than the default', `${good}scale: 2\n`, 'FILE:4:1: scale: the method deft has no such key; it belongs to svdiff'],
  ['a rank of no size for some layers', `${good}method: lora\nrank_pattern: {to_q: 0}\n`, 'FILE:5:22: rank_pattern.to_q: expected a whole number from 1 to 1024; got 0'],
  ['a pattern that is none', `${good}parameter_groups: [{match: "("}]\n`, 'FILE:4:28: parameter_groups.0.match: expected a regular expression; got "("'],
  ['a method without its word', `${good}method: textual_inversion\n`, 'FILE:1:1: word: this key is missing; expected one line of text, 1 to 50 characters'],
  ['a slip in a key of a method', `${good}method: lora\nrslorra: true\n`, 'FILE:5:1: rslorra: unknown key; did you mean rslora?'],
  ['an unknown method', `${good}method: dfet\n`, 'FILE:4:9: method: expected deft, para, lora, svdiff, dreambooth, custom_diffusion or textual_inversion; got "dfet"; did you mean deft?'],
  ['an unknown projector', `${good}projector: qrr\n`, 'FILE:4:12: projector: expected none, relu, relu_both, relu_outer, qr, polar, svd, tsvd, lrmf, eigen or nmf; got "qrr"; did you mean qr?'],
  ['a rank of zero', `${good}rank: 0\n`, 'FILE:4:7: rank: expected a whole number from 1 to 1024; got 0'],
  ['half a step', `${good}steps: 1.5\n`, 'FILE:4:8: steps: expected a whole number from 1 to 10000000; got 1.5'],
  ['a number that is not one', `${good}learning_rate: .nan\n`, 'FILE:4:16: learning_rate: expected a number above 0 and at most 1; got NaN'],
  ['an infinite number', `${good}max_grad_norm: .inf\n`, 'FILE:4:16: max_grad_norm: expected a number above 0 and at most 1000000; got Infinity'],
  ['a negative number', `${good}learning_rate: -1\n`, 'FILE:4:16: learning_rate: expected a number above 0 and at most 1; got -1'],
  ['a number as text', `${good}learning_rate: "1e-4"\n`, 'FILE:4:16: learning_rate: expected a number above 0 and at most 1; got "1e-4"'],
  ['yes for a number', `${good}seed: yes\n`, 'FILE:4:7: seed: expected a whole number from 0 to 4294967295; got "yes"'],
  ['a number of 30 digits', `${good}seed: 123456789012345678901234567890\n`, 'FILE:4:7: 123456789012345678901234567890 is too big to be an exact integer'],
  ['a name that leaves its folder', `${good.replace('robot', '../robot')}`, 'FILE:1:7: name: expected 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit; got "../robot"'],
  ['a text of two lines', `${good}sampling:\n  prompts: ["a\\nb"]\n`, 'FILE:5:13: sampling.prompts.0: expected one line of text, 1 to 300 characters; got "a\\nb"'],
  ['no prompts', `${good}sampling: {prompts: []}\n`, 'FILE:4:21: sampling.prompts: expected a list of 1 to 100 values; got []'],
  ['a value where a section belongs', 'name: a\ndata: 3\n', 'FILE:2:7: data: expected a mapping of keys to values; got 3'],
  ['a list at the top', '[1]', 'FILE:1:1: expected keys and values at the top of the file'],
  ['a lone value', '5', 'FILE:1:1: expected keys and values at the top of the file'],
  ['nothing', '', 'FILE: the file is empty; expected keys and values'],
  ['a comment only', '# later\n', 'FILE: the file is empty; expected keys and values'],
  ['the same key twice', `${good}rank: 3\nrank: 4\n`, 'FILE:5:1: this key is given twice; keep one of them'],
  ['a tag', `${good}rank: !!js/function "x"\n`, 'FILE:4:7: the tag !!js/function is not allowed'],
  ['a local tag', `${good}rank: !x 3\n`, 'FILE:4:7: the tag !x is not allowed'],
  ['an anchor', `${good}rank: &r 4\n`, 'FILE:4:7: anchors and aliases are not allowed; got &r'],
  ['an alias of itself', `${good}sampling: *x\n`, 'FILE:4:11: anchors and aliases are not allowed; got *x'],
  ['a merge key', `${good}<<: {rank: 3}\n`, 'FILE:4:1: the key << is not allowed'],
  ['a prototype', `${good}__proto__: {rank: 3}\n`, 'FILE:4:1: the key __proto__ is not allowed'],
  ['a prototype in a section', `${good}sampling: {"__proto__": 1}\n`, 'FILE:4:12: the key __proto__ is not allowed'],
  ['a constructor', `${good}sampling: {constructor: 1}\n`, 'FILE:4:12: sampling.constructor: unknown key; expected one of steps, guidance_scale, prompts, folder, seeds, other_prompts'],
  ['a number for a key', `${good}1: 2\n`, 'FILE:4:1: a key must be a word; got 1'],
  ['a list for a key', `${good}? [a]\n: 1\n`, 'FILE:4:3: a key must be a word; got a list or mapping'],
  ['two documents', `${good}---\nname: b\n`, 'FILE:4:1: a second document begins here; expected one'],
  ['a directive', `%YAML 1.1\n---\n${good}`, 'FILE:1:1: directives are not allowed'],
  ['an open quote', `${good}base: "x\n`, 'FILE:5:1: Missing closing "quote'],
  ['a tab that indents', 'data:\n\tfolder: x\n', 'FILE:2:1: a tab cannot indent; use spaces'],
  ['a NUL', 'name: a\0b\n', 'FILE:1: the control character U+0000 is not allowed'],
  ['text that turns round', `${good}base: "a\u202eb"\n`, 'FILE:4: the control character U+202E is not allowed'],
  ['bytes that are no text', Uint8Array.of(0x6e, 0xff, 0xfe), 'FILE: the file is not UTF-8 text'],
  ['more than 1 MiB', `#${'x'.repeat(2 ** 20)}`, 'FILE: the file is too big; expected at most 1 MiB; got 1048577 bytes'],
  ['100,000 brackets', '['.repeat(100_000), 'FILE:1:65: values are nested too deep; expected at most 64 levels'],
  ['100,000 braces', 'a: {'.repeat(100_000), 'FILE:1:256: values are nested too deep; expected at most 64 levels'],
  ['100,000 dashes', '- '.repeat(100_000), 'FILE:1:129: values are nested too deep; expected at most 64 levels'],
  ['a staircase of 900 steps', Array.from({ length: 900 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'), 'FILE:65:65: values are nested too deep; expected at most 64 levels'],
];

describe('a configuration is refused for', () => {
  it.each(refused)('%s', (_name, text, message) => {
    expect(reading(text)).toBe(message);
  });

  it('a file that is not there', () => {
    expect(() => readTrainConfig(join(folder, 'none.yaml'))).toThrow(
      'none.yaml: no such file; expected a configuration',
    );
    expect(() => readTrainConfig(folder)).toThrow('a folder, not a file');
  });

  it('more than ten things, counting the rest', () => {
    const keys = Array.from({ length: 12 }, (_, i) => `unknown_key_number_${i}: 1\n`).join('');
    const lines = String(reading(good + keys)).split('\n');
    expect(lines).toHaveLength(11);
    expect(lines[10]).toBe('FILE: and 2 more problems');
  });

  it('nothing that changes what objects are', () => {
    for (const [, text] of refused) reading(text);
    expect(Object.keys(Object.prototype)).toEqual([]);
    expect(({} as Record<string, unknown>).rank).toBeUndefined();
  });
});

describe('an override', () => {
  it('replaces a value, opens a section, and names folders relative to where the user stands', () => {
    const config = reading(good, [
      'rank=8',
      'prior.weight=2',
      'data.folder=elsewhere',
      'sampling.prompts=[a b, c]',
    ]);
    expect(config).toMatchObject({
      rank: 8,
      prior: { weight: 2, source: 'world' },
      data: { folder: join(process.cwd(), 'elsewhere') },
      sampling: { prompts: ['a b', 'c'] },
    });
  });

  it('opens a section that the file says is null', () => {
    expect(reading(`${good}prior: null\n`, ['prior.weight=2'])).toMatchObject({ prior: { weight: 2 } });
  });

  it.each([
    ['rank', '--set rank: expected KEY=VALUE, such as sampling.steps=10'],
    ['=3', '--set =3: expected KEY=VALUE, such as sampling.steps=10'],
    ['a.__proto__.b=3', '--set a.__proto__.b=3: expected KEY=VALUE, such as sampling.steps=10'],
    ['name.x=1', '--set name.x=1: name is not a section'],
    ['rank=0', '--set rank=0: rank: expected a whole number from 1 to 1024; got 0'],
    ['rnak=4', '--set rnak=4: rnak: unknown key; did you mean rank?'],
    ['foo.bar=1', expect.stringContaining('--set foo.bar=1: foo: unknown key; expected one of name, base')],
    ['rank=!x 3', '--set rank=!x 3:1:8: the tag !x is not allowed'],
  ])('"%s" is refused', (override, message) => {
    expect(reading(good, [override])).toEqual(message);
  });
});

describe('the methods', () => {
  it.each(methods)('%s has defaults for all its keys but the word', (method) => {
    const config = reading(
      `${good}method: ${method}\n${method === 'textual_inversion' ? 'word: sks\n' : ''}`,
    );
    expect(config).toMatchObject({ method });
    fs.writeFileSync(path, writeConfig(config as ReturnType<typeof readTrainConfig>));
    expect(readTrainConfig(path)).toEqual(config);
  });

  it('take a preset as defaults of other keys', () => {
    expect(reading(`${good}preset: paper\n`)).toMatchObject({ projector: 'none', start: 'random' });
    expect(reading(`${good}preset: peft\nprojector: qr\n`)).toMatchObject({
      projector: 'qr',
      start: 'identity',
      p_learning_rate_ratio: 1,
    });
  });
});

describe('the nearest name', () => {
  it('is at no distance from itself, and distance is symmetric', () => {
    const word = fc.string({ maxLength: 12 });
    fc.assert(fc.property(word, (a) => editDistance(a, a) === 0));
    fc.assert(fc.property(word, word, (a, b) => editDistance(a, b) === editDistance(b, a)));
    fc.assert(fc.property(word, word, (a, b) => editDistance(a, b) <= Math.max(a.length, b.length)));
  });

  it('forgives one slip of the finger in any key', () => {
    const keys = Object.keys(reading(good));
    for (const key of keys) {
      for (let at = 1; at < key.length - 1; at += 1) {
        const swapped = key.slice(0, at) + key[at + 1] + key[at] + key.slice(at + 2);
        const dropped = key.slice(0, at) + key.slice(at + 1);
        expect(nearestName(swapped, keys)).toBe(key);
        expect(nearestName(dropped, keys)).toBe(key);
      }
    }
  });

  it('is none where nothing is near', () => {
    expect(nearestName('colour', ['rank', 'steps'])).toBeNull();
  });
});

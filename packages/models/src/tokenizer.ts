/**
 * The tokenizers of CLIP and T5: text to a fixed number of token ids.
 *
 * Byte-pair and unigram encoding themselves are @huggingface/tokenizers; here are the conventions around them: special
 * tokens, truncation that keeps the end token, padding to the length that the text encoder reads.
 */

import { ConfigError, type JsonConfig, type JsonValue } from '@deftjs/tensor';
import { Tokenizer as Encoder } from '@huggingface/tokenizers';

export interface Tokenizer {
  /** How many ids every encoding has. */
  readonly length: number;
  /** How many ids of a text fit between the special tokens. */
  readonly room: number;
  /** `length` ids: a start token if there is one, the text (as much of it as fits), end, padding. */
  encode(text: string): number[];
  /** The ids of the text alone, however many. */
  encodePlain(text: string): number[];
  /** Lets a word, wherever it stands alone in a text, in any case, mean these ids from now on. */
  teach(word: string, ids: readonly number[]): void;
  /** The text that the ids stand for, special tokens left out; lower case where the vocabulary is, as CLIP's. */
  decode(ids: readonly number[]): string;
}

/**
 * CLIP's: start, text, end, padding.
 * @param definition the tokenizer.json of a tokenizer folder, or what `clipDefinition` makes of older files
 * @param config its tokenizer_config.json: special tokens and model_max_length
 * @throws ConfigError naming the special token that is missing or not in the vocabulary
 */
export function clipTokenizer(definition: JsonConfig, config: JsonConfig): Tokenizer {
  return fixedLength(new Encoder(definition, config), config, ['bos_token']);
}

/**
 * T5's (SentencePiece, arXiv 1808.06226): text, end, padding. Of the characters that SentencePiece's normalisation
 * rewrites, the library knows the common ones: rare joined emoji may give one unknown token more than there.
 * @param definition the tokenizer.json of a tokenizer folder
 * @param config its tokenizer_config.json
 * @throws ConfigError as `clipTokenizer`
 */
export function t5Tokenizer(definition: JsonConfig, config: JsonConfig): Tokenizer {
  return fixedLength(new Encoder(definition, config), config, []);
}

/**
 * OmniGen's (Llama's): as many ids as the text takes, after the token that begins a text where it does.
 * @param definition the tokenizer.json of a tokenizer folder
 */
export function instructionEncoder(
  definition: JsonConfig,
  config: JsonConfig,
): (text: string, begins: boolean) => number[] {
  const encoder = new Encoder(definition, config);
  return (text, begins) => encoder.encode(text, { add_special_tokens: begins }).ids;
}

/** @param before the special tokens that a text begins with */
function fixedLength(encoder: Encoder, config: JsonConfig, before: readonly string[]): Tokenizer {
  const start = before.map((key) => specialToken(encoder, config, key));
  const end = specialToken(encoder, config, 'eos_token');
  const padding = specialToken(encoder, config, 'pad_token');
  const length = config.model_max_length;
  if (typeof length !== 'number' || !Number.isInteger(length) || length < 2 || length > 100_000) {
    throw new ConfigError(
      `tokenizer: model_max_length: expected a whole number in [2, 100000]; got ${length}`,
    );
  }
  const room = length - start.length - 1;
  const taught = new Map<string, readonly number[]>();
  const known = (text: string) => encoder.encode(text, { add_special_tokens: false }).ids;
  const encodePlain = (text: string) =>
    taught.size === 0
      ? known(text)
      : text.split(wordsIn(taught)).flatMap((part) => {
          return taught.get(part.toLowerCase()) ?? known(part);
        });
  return {
    length,
    room,
    encodePlain,
    teach: (word, ids) => void taught.set(word.toLowerCase(), ids),
    encode(text) {
      const ids = [...start, ...encodePlain(text).slice(0, room), end];
      return [...ids, ...new Array<number>(length - ids.length).fill(padding)];
    },
    decode: (ids) => encoder.decode([...ids], { skip_special_tokens: true }).trim(),
  };
}

/** What splits a text before and after the words, keeping them: not inside of longer words. */
function wordsIn(taught: ReadonlyMap<string, readonly number[]>): RegExp {
  const escaped = [...taught.keys()].map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`(?<![\\p{L}\\p{N}])(${escaped.join('|')})(?![\\p{L}\\p{N}])`, 'giu');
}

// tokenizer_config.json holds a special token as its text, or as an object with the text under `content`.
function specialToken(encoder: Encoder, config: JsonConfig, key: string): number {
  const entry = config[key] ?? null;
  const isText = typeof entry === 'string' || entry === null;
  const text = isText ? entry : (entry as { readonly content?: JsonValue }).content;
  const id = typeof text === 'string' ? encoder.token_to_id(text) : undefined;
  if (id === undefined) {
    throw new ConfigError(
      `tokenizer: ${key}: expected a token of the vocabulary; got ${JSON.stringify(entry)}`,
    );
  }
  return id;
}

/**
 * The tokenizer.json that older CLIP folders lack, from their vocab.json and merges.txt.
 * @throws ConfigError when the start or the end token is not in the vocabulary
 */
export function clipDefinition(vocabulary: JsonConfig, merges: string): JsonConfig {
  const special = ['<|startoftext|>', '<|endoftext|>'].map((content) => {
    const id = vocabulary[content];
    if (typeof id !== 'number') throw new ConfigError(`tokenizer: ${content} is not in the vocabulary`);
    return {
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    };
  });
  const [start, end] = special as [(typeof special)[0], (typeof special)[0]];
  const words =
    "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special,
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFC' },
        { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: words }, behavior: 'Removed', invert: true },
        byteLevel,
      ],
    },
    post_processor: {
      type: 'RobertaProcessing',
      sep: [end.content, end.id],
      cls: [start.content, start.id],
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: { ...byteLevel, add_prefix_space: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: end.content,
      continuing_subword_prefix: '',
      end_of_word_suffix: '</w>',
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: vocabulary,
      merges: merges.split(/\r?\n/).filter((line) => line !== '' && !line.startsWith('#version')),
    },
  };
}

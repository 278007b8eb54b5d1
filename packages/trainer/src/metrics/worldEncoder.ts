/**
 * The project's own dual encoder: CLIP (arXiv 2103.00020) in small, taught on the picture world. What it measures is a proxy for
 * what the real CLIP would: it knows the world's words and pictures, and nothing else.
 */
import type { JsonConfig } from '@deftjs/models';
import { maxTokens, subjectWords, tokenOf, vocabulary, wordsOf } from '../world/index.ts';

/** What the folder's tokenizer_config.json says. */
export const worldTokenizer = { tokenizer_class: 'WorldTokenizer' } as const;

/** The token that ends a caption: the largest id, since CLIP's configs mean that where they say 2, which is the world's own. */
const endMark = '<|endoftext|>';

/** Every word of the encoder, in the order of its token id. */
export const encoderVocabulary: readonly string[] = [...vocabulary, endMark];

const ends = vocabulary.length;
const known: ReadonlySet<string> = new Set(vocabulary.filter((word) => !isSubject(word)));

function isSubject(word: string): boolean {
  return (subjectWords as readonly string[]).includes(word);
}

/**
 * Token ids of a caption: words that the world does not know, names of novel subjects among them, are <unk>; words beyond
 * the longest caption are left out, as CLIP's tokenizer leaves them.
 * @param hidden says of each word whether it is to read as <unk>
 */
export function encoderTokens(caption: string, hidden: () => boolean = () => false): Int32Array {
  const words = wordsOf(caption).slice(0, maxTokens - 2);
  const ids = new Int32Array(maxTokens);
  const idsOfWords = words.map((word) => tokenOf(known.has(word) && !hidden() ? word : '<unk>'));
  ids.set([tokenOf('<start>'), ...idsOfWords, ends]);
  return ids;
}

/** The part of transformers' CLIPConfig that is chosen. */
export interface WorldEncoderShape {
  readonly picture_size: number;
  readonly patch_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_attention_heads: number;
  readonly vision_layers: number;
  readonly text_layers: number;
  readonly projection_dim: number;
}

/** Its config.json. */
export function worldEncoderConfig(shape: WorldEncoderShape): JsonConfig {
  const tower = {
    hidden_size: shape.hidden_size,
    intermediate_size: shape.intermediate_size,
    num_attention_heads: shape.num_attention_heads,
    hidden_act: 'quick_gelu',
  };
  return {
    model_type: 'clip',
    projection_dim: shape.projection_dim,
    text_config: {
      model_type: 'clip_text_model',
      ...tower,
      num_hidden_layers: shape.text_layers,
      vocab_size: encoderVocabulary.length,
      max_position_embeddings: maxTokens,
      eos_token_id: ends,
    },
    vision_config: {
      model_type: 'clip_vision_model',
      ...tower,
      num_hidden_layers: shape.vision_layers,
      image_size: shape.picture_size,
      patch_size: shape.patch_size,
    },
  };
}

/** Its preprocessor_config.json: pictures of any size become ones of `size` pixels in [-1, 1]. */
export function worldProcessor(size: number): JsonConfig {
  return {
    do_resize: true,
    size: { shortest_edge: size },
    resample: 3,
    do_center_crop: true,
    crop_size: { height: size, width: size },
    do_rescale: true,
    do_normalize: true,
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
  };
}

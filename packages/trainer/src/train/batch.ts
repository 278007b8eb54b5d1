/** What one training step sees: captioned pictures and the noise that is laid over them. */
import { type Tensor, type Tree, tensor, treeLeaves, treeWith } from '@deftjs/tensor';
import type { TextToImage } from '../base/textToImage.ts';
import type { Noise } from '../diffusion/objective.ts';

/** On the host. */
export interface Batch extends Noise {
  /** What the model stores of each, [B, ...shape]: pixels in [-1, 1] or latents. */
  readonly pictures: Float32Array;
  /** Channels, height and width; default: the model's own. */
  readonly shape?: readonly number[];
  /** One for each; '' where it is left out. */
  readonly captions: readonly string[];
  /** The pictures that captions name, one for each [B, 3, H, W]; absent where they name none. */
  readonly inputs?: Float32Array;
}

/** What the network sees of captions, where that never changes: encoded once. */
export interface Contexts {
  /** Of one caption: every tensor has one row. */
  readonly like: Tree;
  /** The numbers of its tensors, by caption. */
  readonly rows: ReadonlyMap<string, readonly Float32Array[]>;
}

/** As tensors: pictures and noise [B, ...shape], levels [B, 6], and captions as token ids or as contexts. */
export type BatchTensors = { readonly stored: Tensor; readonly noise: Tensor; readonly levels: Tensor } & (
  | { readonly tokens: Tree }
  | { readonly context: Tree }
);

/**
 * The batch as the model takes it.
 * @param contexts of all captions; null where text encoders are part of the step
 */
export function batchTensors(
  { pictures, shape: own, noise, levels, captions, inputs }: Batch,
  model: TextToImage,
  contexts: Contexts | null = null,
): BatchTensors {
  const count = captions.length;
  const shape = [count, ...(own ?? model.storedShape)];
  const named = inputs && tensor(inputs, [count, 3, model.pictureSize, model.pictureSize]);
  return {
    stored: tensor(pictures, shape),
    noise: tensor(noise, shape),
    levels: tensor(levels, [count, levels.length / count]),
    ...(contexts ? { context: joined(contexts, captions) } : { tokens: model.tokenize(captions, named) }),
  };
}

function joined({ like, rows }: Contexts, captions: readonly string[]): Tree {
  const of = captions.map((caption) => rows.get(caption)!);
  const tensors = treeLeaves(like).map(({ shape, size }, leaf) => {
    const numbers = new Float32Array(captions.length * size);
    of.forEach((row, i) => {
      numbers.set(row[leaf]!, i * size);
    });
    return tensor(numbers, [captions.length, ...shape.slice(1)]);
  });
  return treeWith(like, tensors);
}

/** The training error of each picture of the batch: [B]. */
export function errorsOf(model: TextToImage, batch: BatchTensors): Tensor {
  const context = 'tokens' in batch ? model.encodeText(batch.tokens) : batch.context;
  const { stored, noise, levels } = batch;
  return model.errors({ stored, noise, levels, context });
}

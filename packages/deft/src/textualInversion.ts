/**
 * Textual inversion: new words, whose vectors are all that is trained (Gal et al. 2023, arXiv 2208.01618).
 *
 * A table of `count` vectors is followed by the new ones; indices from `count` on mean those. The old vectors are a frozen
 * parameter, so that no step can touch them: not by its gradient, nor by decay.
 */
import { Embedding, type Module, namedModules, namedParameters, Parameter } from '@deftjs/autograd/nn';
import {
  formatShape,
  gather,
  less,
  maximum,
  minimum,
  ShapeError,
  sub,
  type Tensor,
  unsqueeze,
  where,
} from '@deftjs/tensor';

/** An embedding with words after its own. */
export class ExtendedEmbedding extends Embedding {
  /** [new words, width] */
  readonly new_words: Parameter;
  readonly #count: number;

  /** @param words their initial vectors [new words, width] */
  constructor(base: Embedding, words: Tensor) {
    const [count, width] = base.weight.shape as [number, number];
    super(count, width);
    this.#count = count;
    this.weight.value = base.weight.value;
    this.weight.trainable = false;
    this.new_words = new Parameter(words.shape, () => words);
    this.new_words.value = words;
  }

  /** i32 [...] -> [..., width]. */
  override forward(index: Tensor): Tensor {
    const count = this.#count;
    const isOld = unsqueeze(less(index, count), -1);
    const old = gather(this.weight.value, minimum(index, count - 1));
    return where(isOld, old, gather(this.new_words.value, maximum(sub(index, count), 0)));
  }
}

/**
 * Puts new words after those of the embedding at the path and freezes everything else that is not an adapter's. Returns
 * the embedding; its first new word has the index that the old table had vectors.
 * @param words initial vectors [new words, width], such as rows of the table for words of the same kind
 * @throws Error when no embedding is at the path, ShapeError for vectors of another width
 */
export function addWords(module: Module, path: string, words: Tensor): ExtendedEmbedding {
  const at = path.lastIndexOf('.');
  const [parentPath, field] = [path.slice(0, Math.max(0, at)), path.slice(at + 1)];
  const parent = namedModules(module).get(parentPath) as Record<string, unknown> | undefined;
  const base = parent?.[field];
  if (!parent || !(base instanceof Embedding)) throw new Error(`addWords: no embedding is at "${path}"`);
  const width = base.weight.shape[1]!;
  if (words.rank !== 2 || words.shape[1] !== width || words.shape[0]! < 1) {
    throw new ShapeError(`addWords: expected [new words, ${width}]; got ${formatShape(words.shape)}`);
  }
  for (const [name, parameter] of namedParameters(module)) {
    if (!/\.adapters\./.test(`.${name}`)) parameter.trainable = false;
  }
  const extended = new ExtendedEmbedding(base, words);
  parent[field] = extended;
  return extended;
}

/** Training the dual encoder from scratch on the picture world, by the symmetric loss of CLIP (arXiv 2103.00020, figure 3). */
import { initialize, stateOf, withState } from '@deftjs/autograd/nn';
import { CLIPModel } from '@deftjs/models';
import {
  add,
  arange,
  crossEntropy,
  type Device,
  mul,
  read,
  type Tensor,
  tensor,
  transpose,
  treeLeaves,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { weightFile } from '../base/weightFile.ts';
import type { EncoderConfig } from '../config/index.ts';
import {
  encoderTokens,
  encoderVocabulary,
  worldEncoderConfig,
  worldProcessor,
  worldTokenizer,
} from '../metrics/worldEncoder.ts';
import { beat } from '../progress/index.ts';
import { chartPng, lossChart } from '../report/index.ts';
import type { Run } from '../runs/index.ts';
import type { Weights } from '../train/packed.ts';
import { caption, draws, maxTokens, renderScene, sampleScene, toPlanes } from '../world/index.ts';
import { idsOf } from '../world/vocabulary.ts';
import { type Lesson, runPretraining } from './step.ts';
import { heldOutWorld } from './taskSheet.ts';

/** Pictures [N, 3, S, S] in [-1, 1] and their captions, i32 [N, L]: number i belongs to number i. */
type Pairs = { readonly pictures: Tensor; readonly ids: Tensor };

/** How often a word of a caption reads as <unk>, so that captions with words of other worlds mean something too. */
const unknownShare = 0.05;

/** Pairs `first` and on of the world of a seed. */
function pairs(world: number, first: number, count: number, size: number, unknown: number): Pairs {
  const numbers = 3 * size * size;
  const pictures = new Float32Array(count * numbers);
  const ids = new Int32Array(count * maxTokens);
  for (let row = 0; row < count; row += 1) {
    const index = first + row;
    const scene = sampleScene(world, index);
    const draw = draws(world ^ 0xc11b, index);
    pictures.set(toPlanes(renderScene(scene, size)), row * numbers);
    ids.set(
      encoderTokens(caption(scene, world, index), () => draw.chance(unknown)),
      row * maxTokens,
    );
  }
  return { pictures: tensor(pictures, [count, 3, size, size]), ids: tensor(ids, [count, maxTokens], 'i32') };
}

/** Mean of the losses of telling each picture's caption among all, and each caption's picture. */
export function contrastiveLoss(logitsPerImage: Tensor): Tensor {
  const own = arange(logitsPerImage.shape[0]!);
  return mul(add(crossEntropy(logitsPerImage, own), crossEntropy(transpose(logitsPerImage), own)), 0.5);
}

function lessonOf(model: CLIPModel, config: EncoderConfig): Lesson<Pairs> {
  const { world_seed: world, batch_size: batch, model: parts } = config;
  return {
    batch: (step) => pairs(world, step * batch, batch, parts.clip.picture_size, unknownShare),
    loss: ({ ids, pictures }) => contrastiveLoss(model.forward(ids, pictures).logitsPerImage),
  };
}

/** Pictures of a world that no one trains on, among which the encoder looks for a caption's own. */
const lookedAmong = 64;

/** The share of captions whose nearest picture of `lookedAmong` is their own. */
async function retrieval(model: CLIPModel, size: number, weights: Weights, device: Device): Promise<number> {
  const shown = pairs(heldOutWorld, 0, lookedAmong, size, 0);
  const logits = withState(model, weights, () => model.forward(shown.ids, shown.pictures).logitsPerImage);
  const values = await read(logits, device); // [N pictures, N captions]
  for (const spent of treeLeaves(shown)) spent.dispose();
  const nearest = (text: number): number => {
    let best = 0;
    for (let picture = 1; picture < lookedAmong; picture += 1) {
      if (values[picture * lookedAmong + text]! > values[best * lookedAmong + text]!) best = picture;
    }
    return best;
  };
  const right = Array.from({ length: lookedAmong }, (_, text) => nearest(text) === text);
  return right.filter(Boolean).length / lookedAmong;
}

/**
 * Trains as configured and leaves in the run's folder: checkpoints, the loss curve, and at the end `encoder/`, the averaged
 * weights in the folder of transformers' CLIPModel, which `deft score` reads, with how well it tells captions (retrieval.json).
 */
export async function pretrainEncoder(config: EncoderConfig, run: Run, signal: AbortSignal): Promise<void> {
  const { device, why } = await openDevice(config.device);
  console.error(`deft: ${why}`);
  const shape = config.model.clip;
  const model = new CLIPModel(worldEncoderConfig(shape));
  initialize(model, config.seed);
  const lesson = lessonOf(model, config);
  const { average, losses } = await runPretraining(model, config, lesson, { run, device, signal });
  beat('other');
  const weights = { ...stateOf(model), ...average };
  const share = await retrieval(model, shape.picture_size, average, device);
  console.log(`${share.toFixed(2)} of ${lookedAmong} held-out captions find their own picture`);
  await saveEncoder(run, config, weights);
  run.write('encoder/retrieval.json', json({ captions: lookedAmong, seed: heldOutWorld, found: share }));
  const points = losses.map((loss, i) => ({ step: i + 1, loss }));
  run.write('loss.png', await chartPng(await lossChart(points, config.name)));
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

async function saveEncoder(run: Run, config: EncoderConfig, weights: Weights): Promise<void> {
  const shape = config.model.clip;
  const files = {
    'config.json': worldEncoderConfig(shape),
    'preprocessor_config.json': worldProcessor(shape.picture_size),
    'tokenizer_config.json': worldTokenizer,
    'vocab.json': idsOf(encoderVocabulary),
  };
  for (const [name, contents] of Object.entries(files)) run.write(`encoder/${name}`, json(contents));
  run.write('encoder/model.safetensors', await weightFile(weights, 'f16'));
}

/** What stands between a configuration and the first step of its training. */
import type { Device } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import type { TextToImage } from '../base/textToImage.ts';
import { openBaseOf } from '../base/trained.ts';
import type { TrainConfig } from '../config/index.ts';
import { bucketSizes, type ImageFolder, readTrainingData, type TrainingData } from '../data/index.ts';
import { UserError } from '../userError.ts';
import { fromPlanes, type Picture } from '../world/index.ts';
import type { Captioned } from './dataset.ts';
import { encodeCaptions, encodePictures } from './encoded.ts';
import { halveFrozen, recomputeBlocks } from './memory.ts';
import { applyMethod, type TrainedPart, trainsText } from './method.ts';
import type { PackedState } from './packed.ts';
import { firstState, type StepData, trainStep } from './personalize.ts';
import { checkBaseFits, type Plan, planTraining } from './plan.ts';
import { checkPrior, priorPictures } from './priorPictures.ts';

/** What is drawn before and after. */
export interface Drawn {
  readonly prompts: readonly string[];
  /** The picture that each prompt names; absent where they name none. */
  readonly inputs?: readonly Picture[];
}

/** Pictures whose captions are drawn where no prompts are configured and each comes with a picture. */
const mostInputs = 8;

/** The prompts to draw: those configured, or those of a folder, else the captions of the pictures. */
async function drawnOf(
  model: TextToImage,
  { sampling }: TrainConfig,
  data: ImageFolder,
  read: (folder: string) => Promise<ImageFolder>,
): Promise<Drawn> {
  const configured = { prompts: sampling.prompts ?? [], other_prompts: sampling.other_prompts };
  for (const [key, list] of Object.entries(configured)) {
    for (const prompt of list) {
      const problem = model.captionProblem(prompt);
      if (problem) throw new UserError(`sampling.${key}: "${prompt}": ${problem}`, 2);
    }
  }
  if (sampling.prompts) return { prompts: sampling.prompts };
  const { pictures } = sampling.folder ? await read(sampling.folder) : data;
  const prompts = pictures.map(({ caption }) => caption);
  const inputs = pictures.flatMap(({ input }) => (input ? [toPicture(model, input)] : []));
  if (inputs.length === 0) return { prompts: [...new Set(prompts)] };
  const most = sampling.folder ? pictures.length : mostInputs;
  return { prompts: prompts.slice(0, most), inputs: inputs.slice(0, most) };
}

function toPicture({ pictureSize: size }: TextToImage, planes: Float32Array): Picture {
  return fromPlanes(planes, size, size);
}

/** A job whose input has been found right: the adapted model, and everything that its steps take. */
export interface Prepared {
  readonly model: TextToImage;
  readonly data: ImageFolder;
  readonly seen: StepData;
  readonly drawn: Drawn;
  readonly device: Device;
  readonly trained: TrainedPart;
  readonly first: PackedState;
  readonly step: ReturnType<typeof trainStep>;
  readonly plan: Plan;
}

/** What a job reads before anything is trained or drawn. */
export interface OpenedJob {
  readonly model: TextToImage;
  readonly data: TrainingData;
  readonly drawn: Drawn;
  readonly device: Device;
  /** Of this machine, before the job took any. */
  readonly freeBytes: number;
}

/** The base and the data of a job, and the device it runs on. @throws {UserError} for what is wrong with any of them */
export async function openJob(config: TrainConfig): Promise<OpenedJob> {
  const freeBytes = process.availableMemory();
  checkBaseFits(config.base, freeBytes);
  const model = await openBaseOf(config);
  if ('text_encoder' in config && config.text_encoder !== null && model.textEncoders.length === 0) {
    throw new UserError('text_encoder: the base has no text encoder that can be trained', 2);
  }
  const { buckets: ratio, random_crop: randomCrop } = config.data;
  if (ratio !== null && randomCrop) {
    throw new UserError('data.buckets: with random_crop pictures are cut to squares; give one of the two', 2);
  }
  if (ratio !== null && !model.takesRectangles) {
    throw new UserError('data.buckets: this base is trained on squares only', 2);
  }
  const buckets = ratio === null ? null : bucketSizes(model.pictureSize, model.multiple, ratio);
  const read = (folder: string) =>
    readTrainingData(folder, {
      size: model.pictureSize,
      instancePrompt: config.data.instance_prompt,
      triggerWord: config.data.trigger_word,
      keepWhole: randomCrop,
      ...(buckets && { buckets }),
      captionProblem: (caption, hasInput) => model.captionProblem(caption, hasInput),
    });
  if (randomCrop && model.vae !== null) {
    throw new UserError(
      'data.random_crop: this base has a VAE, whose latents are computed once, of the middles',
      2,
    );
  }
  const data = await read(config.data.folder);
  if (randomCrop && data.pictures.some(({ input }) => input)) {
    throw new UserError('data.random_crop: a picture with an input is not cut, since both have to fit', 2);
  }
  for (const { path, reason } of data.passedOver) console.error(`deft: ${path} is passed over: ${reason}`);
  const drawn = await drawnOf(model, config, data, read);
  checkPrior(model, config);
  const { device, why } = await openDevice(config.device);
  console.error(`deft: ${why}`);
  return { model, data, drawn, device, freeBytes };
}

/** The pictures and captions as the steps take them: encoded once where the model stores them so. */
export async function encodeData(
  config: TrainConfig,
  { model, data, device }: Pick<OpenedJob, 'model' | 'data' | 'device'>,
  prior: readonly Captioned[],
): Promise<StepData> {
  const pictures = data.epoch;
  const { flip, shuffle_captions: shuffles, cache } = config.data;
  const captions = [...pictures, ...prior].map(({ caption }) => caption);
  const encodesOnce = model.vae !== null && !trainsText(model) && !shuffles;
  return {
    pictures: await encodePictures(model, pictures, { flip: flip > 0, device, cache }),
    prior: await encodePictures(model, prior, { flip: false, device, cache }),
    contexts: encodesOnce ? await encodeCaptions(model, captions, { device, cache }) : null,
  };
}

/**
 * Everything before the first step: what can be wrong with the input is found here, before the run's folder is touched.
 * @param untrained called with the model as the base is, before the method is applied
 * @throws {UserError}
 */
export async function prepare(
  config: TrainConfig,
  untrained: (model: TextToImage, drawn: Drawn, device: Device) => Promise<void> = async () => {},
): Promise<Prepared> {
  const { model, data, drawn, device, freeBytes } = await openJob(config);
  await untrained(model, drawn, device);
  const prior = await priorPictures(model, config, device);
  const trained = await applyMethod(model, config, device).catch((error: Error) => {
    throw new UserError(error.message, 2);
  });
  if (config.precision === 'f16') await halveFrozen(model, device);
  if (config.recompute) recomputeBlocks(model.denoiser);
  const first = firstState(model, config);
  const seen = await encodeData(config, { model, data, device }, prior);
  const step = trainStep(model, config, seen, device);
  const { prompts } = drawn;
  const job = { config, model, data, prompts, seen, trained, first, step, device, freeBytes };
  const plan = await planTraining(job);
  return { model, data, seen, drawn, device, trained, first, step, plan };
}

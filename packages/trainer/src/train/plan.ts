/**
 * What a job will do and need, known before its first step:
 *
 *     memory = weights that stay as they are + temporaries of the compiled step + training state + its copy in a checkpoint
 *
 * The first two are what the device has in use once the step is compiled, so nothing is guessed.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { namedParameters } from '@deftjs/autograd/nn';
import { type Device, type DeviceKind, numel, treeLeaves } from '@deftjs/tensor';
import type { TextToImage } from '../base/textToImage.ts';
import { methodNames, modelName, type TrainConfig } from '../config/index.ts';
import { type ImageFolder, sizeInWords } from '../data/index.ts';
import { UserError } from '../userError.ts';
import { bucketsOf, type Captioned } from './dataset.ts';
import { settingsInWords, type TrainedPart } from './method.ts';
import type { PackedState } from './packed.ts';
import type { StepData, trainStep } from './personalize.ts';

export interface Plan {
  readonly config: TrainConfig;
  readonly pictures: number;
  readonly captions: string;
  readonly priorPictures: number;
  /** Passes through the pictures, repeats among them. */
  readonly epochs: number;
  /** How many pictures of an epoch there are of each size, where there are several. */
  readonly buckets: readonly string[];
  readonly prompts: number;
  readonly trained: TrainedPart;
  readonly parameters: number;
  readonly device: DeviceKind;
  /** On the device: frozen weights, and temporaries of a step. */
  readonly stepBytes: number;
  /** On the device: trained weights and the optimizer's moments. A checkpoint is as large. */
  readonly stateBytes: number;
  /** Of this machine, for this process. */
  readonly freeBytes: number;
}

interface Job {
  readonly config: TrainConfig;
  readonly model: TextToImage;
  readonly data: ImageFolder;
  readonly prompts: readonly string[];
  readonly seen: StepData;
  readonly trained: TrainedPart;
  readonly first: PackedState;
  readonly step: ReturnType<typeof trainStep>;
  readonly device: Device;
  /** Of this machine, before the job took any. */
  readonly freeBytes: number;
}

/** Compiles the job's step and adds up. */
export async function planTraining(job: Job): Promise<Plan> {
  const { config, model, data, prompts, seen, trained, first, step, device, freeBytes } = job;
  await step.prepare(first);
  return {
    config,
    pictures: data.pictures.length,
    captions: data.captionSource,
    priorPictures: seen.prior.length,
    epochs: (config.steps * config.gradient_accumulation * config.batch_size) / seen.pictures.length,
    buckets: bucketsInWords(model, seen.pictures),
    prompts: prompts.length,
    trained,
    parameters: [...namedParameters(model).values()].reduce((sum, { shape }) => sum + numel(shape), 0),
    device: device.kind,
    stepBytes: device.bytesInUse,
    stateBytes: treeLeaves(first).reduce((sum, { shape }) => sum + 4 * numel(shape), 0),
    freeBytes,
  };
}

/** "12 of 32 x 32" */
function bucketsInWords({ pictureSize: size }: TextToImage, pictures: readonly Captioned[]): string[] {
  const buckets = bucketsOf(pictures);
  if (buckets.length === 1 && !pictures[0]!.bucket) return [];
  return buckets.map((items) => {
    const { bucket = { width: size, height: size } } = pictures[items[0]!]!;
    return `${items.length} of ${sizeInWords(bucket)}`;
  });
}

/** Bytes that training takes on top of what the process has: the state is on the host, too, while it is saved. */
function neededBytes({ stepBytes, stateBytes }: Plan): number {
  return stepBytes + 2 * stateBytes;
}

/** The plan in words, a line for each subject. */
export function planLines(plan: Plan): string[] {
  const { config, pictures, captions, priorPictures, epochs, buckets, prompts, trained, parameters } = plan;
  const share = ((100 * trained.parameters) / parameters).toPrecision(2);
  const warmup = config.warmup_steps > 0 ? `, reached over ${config.warmup_steps} steps` : '';
  const prior = priorPictures > 0 ? `, and ${priorPictures} to keep what the base knows` : '';
  const samples =
    config.sample_every === null
      ? 'samples before and after'
      : `samples of ${prompts} prompts every ${config.sample_every}`;
  return [
    `method    ${methodNames[config.method]}, ${settingsInWords(config)}, on ${modelName(config.base)}`,
    `trained   ${trained.layers} layers, ${count(trained.parameters)} of ${count(parameters)} numbers (${share} %)`,
    `pictures  ${pictures} (captions: ${captions})${prior}`,
    ...(buckets.length > 0 ? [`buckets   ${buckets.join(', ')}`] : []),
    `schedule  ${count(config.steps)} steps of ${config.batch_size * config.gradient_accumulation} pictures: ${count(Number(epochs.toPrecision(4)))} epochs, ${config.learning_rate_schedule} learning rate ${config.learning_rate}${warmup}`,
    `saves     a checkpoint every ${config.checkpoint_every} steps, the last ${config.keep_checkpoints} kept; ${samples}`,
    `memory    ${bytes(neededBytes(plan))} on ${plan.device} (step with frozen weights ${bytes(plan.stepBytes)}, state ${bytes(plan.stateBytes)} and its copy); ${bytes(plan.freeBytes)} free`,
  ];
}

/** @throws {UserError} when this machine has not the memory for the job */
export function checkFits(plan: Plan): void {
  // A graphics card's memory is its own, and the device said no if it was too little.
  if (plan.device === 'webgpu' || neededBytes(plan) <= plan.freeBytes) return;
  throw new UserError(
    `${plan.config.name}: training needs ${bytes(neededBytes(plan))} of memory; got ${bytes(plan.freeBytes)} free; ` +
      'a smaller batch_size needs less',
    3,
  );
}

/**
 * Compares a base's files with the memory that is free, before any of them is read: its weights are on the host in f32,
 * and on the device again.
 * @param freeBytes this process may take
 * @throws {UserError} when they cannot fit
 */
export function checkBaseFits(base: string, freeBytes: number): void {
  if (!fs.existsSync(base)) return; // loading says what is missing
  const stored = weightFiles(base).reduce((sum, file) => sum + fs.statSync(file).size, 0);
  if (2 * stored <= freeBytes) return;
  throw new UserError(
    `${base}: does not fit in memory: its weights need at least ${bytes(2 * stored)}; got ${bytes(freeBytes)} free`,
    3,
  );
}

function weightFiles(folder: string): string[] {
  return fs
    .readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.safetensors'))
    .map((name) => join(folder, name));
}

function count(number: number): string {
  return number.toLocaleString('en-US');
}

function bytes(size: number): string {
  return size < 1e9 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e9).toFixed(2)} GB`;
}

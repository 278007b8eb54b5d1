/**
 * DreamBooth with prior preservation against PEFT and diffusers, all randomness recorded (golden/README.md):
 *
 *   z = (mean + std n') s       z_t = sqrt(abar_t) z + sqrt(1 - abar_t) n
 *   loss = mse(o, n) over the instance pictures + w mse(o, n) over the class pictures,   o = unet(z_t, t, context)
 */
import { dirname, join } from 'node:path';
import { valueAndGrad } from '@deftjs/autograd';
import { trainableState, withState } from '@deftjs/autograd/nn';
import { type AdamState, adamW, clipByGlobalNorm } from '@deftjs/autograd/optim';
import { loadPeftFolder } from '@deftjs/deft/node';
import { noiseSchedule, noisyMixture, type StableDiffusion } from '@deftjs/models';
import { openClipTokenizer, openStableDiffusion, readSafetensorsFile } from '@deftjs/models/node';
import {
  add,
  compile,
  concat,
  type Device,
  evaluate,
  exp,
  item,
  meanSquaredError,
  mul,
  narrow,
  read,
  reshape,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { fileName } from './adapterNames.ts';
import { type Check, compare, compareAll, outputBound, trajectoryBound } from './check.ts';
import type { GoldenFolder } from './goldenFolder.ts';

interface Recipe {
  readonly pipeline: string;
  readonly prompts: readonly string[];
  readonly lr: number;
  readonly lr_P: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  readonly max_grad_norm: number;
  readonly prior_loss_weight: number;
  readonly steps: number;
}

/** Checks tokens, context and latents, `loss_and_gradnorm` of every step, and the adapter at the end. */
export async function checkTraining(golden: GoldenFolder, device: Device): Promise<Check[]> {
  const recipe = golden.json('case.json') as unknown as Recipe;
  const folder = join(dirname(golden.path), recipe.pipeline);
  const pipeline = await openStableDiffusion(folder);
  return [
    ...(await checkInputs(golden, recipe, { folder, pipeline }, device)),
    ...(await checkSteps(golden, recipe, pipeline, device)),
  ];
}

async function checkInputs(
  golden: GoldenFolder,
  { prompts }: Recipe,
  { folder, pipeline }: { readonly folder: string; readonly pipeline: StableDiffusion },
  device: Device,
): Promise<Check[]> {
  const tokenizer = await openClipTokenizer(join(folder, 'tokenizer'));
  const ids = prompts.flatMap((prompt) => tokenizer.encode(prompt));
  const pictures = concat([golden.get('instance_images'), golden.get('class_images')]);
  const { mean, logvar } = pipeline.vae.encode(pictures);
  const computed = {
    context: pipeline.encodeTexts(prompts),
    latent_mean: mean,
    latent_std: exp(mul(logvar, 0.5)),
  };
  const recorded = Object.fromEntries(Object.keys(computed).map((name) => [name, golden.get(name)]));
  return [
    compare('input_ids', ids, await read(golden.get('input_ids'), device), 0),
    ...(await compareAll(computed, recorded, outputBound, device)),
  ];
}

async function checkSteps(
  golden: GoldenFolder,
  recipe: Recipe,
  { unet, vae }: StableDiffusion,
  device: Device,
): Promise<Check[]> {
  await loadPeftFolder(join(golden.path, 'start'), unet, { trainable: true });
  const optimizer = adamW({
    betas: recipe.betas,
    eps: recipe.eps,
    weightDecay: recipe.weight_decay,
    groups: [{ match: /\.deft_P$/, learningRateFactor: recipe.lr_P / recipe.lr }],
  });
  const context = golden.get('context');
  const loss = valueAndGrad((parameters: Record<string, Tensor>, batch: Batch) =>
    withState(unet, parameters, () => {
      const out = unet.forward(batch.noisy, batch.timesteps, context);
      const half = out.shape[0]! / 2;
      const error = (from: number) =>
        meanSquaredError(narrow(out, 0, from, half), narrow(batch.noise, 0, from, half));
      return add(error(0), mul(error(half), recipe.prior_loss_weight));
    }),
  );
  const step = compile(
    (parameters: Record<string, Tensor>, before: AdamState, batch: Batch) => {
      const { value, gradient } = loss(parameters, batch);
      const { clipped, norm } = clipByGlobalNorm(gradient, recipe.max_grad_norm);
      return {
        value,
        norm,
        ...optimizer.update(parameters, clipped, before, { learningRate: recipe.lr }),
      };
    },
    { device },
  );
  let parameters = trainableState(unet);
  let state = optimizer.init(parameters);
  const trajectory: number[] = [];
  for (let i = 0; i < recipe.steps; i += 1) {
    const batch = await recordedBatch(golden, i, vae.config.scale, device);
    const next = await step(parameters, state, batch);
    trajectory.push(await item(next.value, device), await item(next.norm, device));
    ({ parameters, state } = next);
  }
  step.dispose();
  const end = await readSafetensorsFile(join(golden.path, 'end', 'adapter_model.safetensors'));
  return [
    compare(
      'loss_and_gradnorm',
      trajectory,
      await read(golden.get('loss_and_gradnorm'), device),
      trajectoryBound,
    ),
    ...(await compareAll(
      Object.fromEntries(Object.entries(parameters).map(([path, value]) => [`end/${fileName(path)}`, value])),
      Object.fromEntries(
        [...end].map(([name, { data, shape, dtype }]) => [`end/${name}`, tensor(data, shape, dtype)]),
      ),
      trajectoryBound,
      device,
    )),
  ];
}

/** What a step trains on. */
type Batch = { readonly noisy: Tensor; readonly noise: Tensor; readonly timesteps: Tensor };

/** The schedule whose add_noise made the recorded batches. */
const schedule = noiseSchedule({ beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' });

async function recordedBatch(
  golden: GoldenFolder,
  step: number,
  scale: number,
  device: Device,
): Promise<Batch> {
  const recorded = (name: string) => golden.get(`step${step}/${name}`);
  const [noise, timesteps] = [recorded('noise'), recorded('timesteps')];
  const weights = [...(await read(timesteps, device))].map((t) => noisyMixture(schedule, t));
  const each = (values: number[]) => reshape(tensor(values), [values.length, 1, 1, 1]);
  const latents = mul(
    add(golden.get('latent_mean'), mul(golden.get('latent_std'), recorded('posterior_noise'))),
    scale,
  );
  const noisy = add(
    mul(latents, each(weights.map(({ sample }) => sample))),
    mul(noise, each(weights.map((weight) => weight.noise))),
  );
  await evaluate([noisy], device);
  return { noisy, noise, timesteps };
}

import { readFileSync } from 'node:fs';
import {
  CLIPTextModel,
  type Combining,
  clipTextWeights,
  denoise,
  loadWeights,
  parseConfig,
  sampler,
  UNet2DConditionModel,
} from '@deftjs/models';
import { openClipTokenizer, openWeights, readConfigFile, readSafetensorsFile } from '@deftjs/models/node';
import { add, clamp, concat, full, mul, split, sub, type Tensor, tensor } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { expect, it } from 'vitest';
import { caseFolder, compute, expectAgreement } from './goldenCase.ts';

const tensors: Combining<Tensor> = {
  combine: (terms) =>
    terms.map(([weight, value]) => mul(value, weight)).reduce((sum, term) => add(sum, term)),
  clamp: (value, limit) => clamp(value, -limit, limit),
};

it('a Stable Diffusion folder draws the latents that diffusers draws: tokenizer, text encoder, UNet, DDIM, guidance', async () => {
  const folder = caseFolder('sd-tiny-pipeline');
  const recorded = await readSafetensorsFile(`${folder}case.safetensors`);
  const golden = (name: string) => {
    const { data, shape, dtype } = recorded.get(name)!;
    return tensor(data, shape, dtype);
  };
  const request = parseConfig('case.json', readFileSync(`${folder}case.json`, 'utf8'));
  const {
    prompts,
    steps,
    guidance_scale: guidance,
  } = request as { prompts: string[]; steps: number; guidance_scale: number };
  const tokenizer = await openClipTokenizer(`${folder}tokenizer`);
  const textEncoder = new CLIPTextModel(await readConfigFile(`${folder}text_encoder/config.json`));
  const unet = new UNet2DConditionModel(await readConfigFile(`${folder}unet/config.json`));
  await using textFile = await openWeights(`${folder}text_encoder`);
  await using unetFile = await openWeights(`${folder}unet`);
  await loadWeights(textEncoder, clipTextWeights(textFile));
  await loadWeights(unet, unetFile);
  const denoising = sampler(await readConfigFile(`${folder}scheduler/scheduler_config.json`))(steps);

  const { device } = await openDevice('wasm');
  const run = async (x: Tensor) => tensor(Float32Array.from((await compute(device, [x]))[0]!), x.shape);
  const ids = prompts.map((prompt) => tokenizer.encode(prompt));
  expect(ids.flat()).toEqual([...recorded.get('input_ids')!.data]);
  const all = [...ids, ...prompts.map(() => tokenizer.encode(''))];
  const context = await run(
    textEncoder.forward(tensor(all, [all.length, tokenizer.length], 'i32')).lastHiddenState,
  );

  let sample = golden('latents');
  for (const step of denoising.steps) {
    const times = full([all.length], step.timestep);
    const outputs = unet.forward(concat([sample, sample]), times, context);
    const [conditional, unconditional] = split(outputs, 2, 0) as [Tensor, Tensor];
    const guided = add(unconditional, mul(sub(conditional, unconditional), guidance));
    sample = await run(denoise(tensors, step, sample, guided).sample);
  }
  // Six steps of float32 in the recording, each amplified by the guidance.
  const [latents] = await compute(device, [sample]);
  expectAgreement(latents!, golden('latents_out'), 1e-3, 'latents_out');
  await device.close();
});

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { initialize, type Module, namedParameters, stateOf } from '@deftjs/autograd/nn';
import {
  CLIPTextModelWithProjection,
  clipTextWithProjectionWeights,
  type HostTensor,
  layouts,
  loadWeights,
  memorySource,
  openSafetensors,
  originalUNetName,
  originalVaeName,
  singleFileText,
  UNet2DConditionModel,
  writeSafetensors,
} from '@deftjs/models';
import { openStableDiffusion, openWeights, writeSafetensorsFile } from '@deftjs/models/node';
import { read, referenceDevice } from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';
import { caseFolder } from './goldenCase.ts';

const folder = caseFolder('sd-tiny-pipeline');

async function valuesOf(module: Module): Promise<Record<string, number[]>> {
  const entries = Object.entries(stateOf(module)).map(
    async ([name, value]) => [name, Array.from(await read(value, referenceDevice()))] as const,
  );
  return Object.fromEntries(await Promise.all(entries));
}

/** The pipeline's tensors as CompVis would have written them, with what such files hold besides. */
async function singleFile(): Promise<Record<string, HostTensor>> {
  const { unet, vae } = await openStableDiffusion(folder);
  const tensors: Record<string, HostTensor> = {
    alphas_cumprod: { dtype: 'f32', shape: [1], data: Float32Array.of(1) },
  };
  async function add(part: string, place: (name: string) => string): Promise<void> {
    await using weights = await openWeights(join(folder, part));
    for (const name of weights.names) {
      const tensor = await weights.read(name);
      const isPixelwise = /attentions\.0\.to_.*weight$/.test(name) && part === 'vae';
      tensors[place(name)] = isPixelwise ? { ...tensor, shape: [...tensor.shape, 1, 1] } : tensor;
    }
  }
  await add('unet', (name) => `model.diffusion_model.${originalUNetName(name, unet.config)}`);
  await add('vae', (name) => `first_stage_model.${originalVaeName(name, vae.config)}`);
  const clip = 'cond_stage_model.transformer.text_model.';
  await add('text_encoder', (name) => clip + name.replace(/^text_model\./, ''));
  return tensors;
}

describe('a checkpoint in one file', () => {
  it('loads as the folder does that has the same weights under the names of diffusers', async () => {
    const place = mkdtempSync(join(tmpdir(), 'deft-single-'));
    const checkpoint = join(place, 'v1.safetensors');
    await writeSafetensorsFile(checkpoint, await singleFile());
    const [plain, single] = [
      await openStableDiffusion(folder),
      await openStableDiffusion(folder, { checkpoint }),
    ];
    expect(await valuesOf(single)).toEqual(await valuesOf(plain));

    const { 'model.diffusion_model.out.2.bias': _, ...rest } = await singleFile();
    const strange = 'model.diffusion_model.control.weight';
    await writeSafetensorsFile(checkpoint, { ...rest, [strange]: rest.alphas_cumprod! });
    await expect(openStableDiffusion(folder, { checkpoint })).rejects.toThrow(
      /missing: "conv_out.bias"; unexpected: "control.weight"/,
    );
    rmSync(place, { recursive: true });
  });

  // Keys of v1-5-pruned.safetensors and sd_xl_base_1.0.safetensors.
  it.each([
    ['sd15', 'down_blocks.0.attentions.0.proj_in.weight', 'input_blocks.1.1.proj_in.weight'],
    ['sd15', 'down_blocks.0.downsamplers.0.conv.weight', 'input_blocks.3.0.op.weight'],
    ['sd15', 'down_blocks.3.resnets.1.time_emb_proj.bias', 'input_blocks.11.0.emb_layers.1.bias'],
    ['sd15', 'up_blocks.0.upsamplers.0.conv.bias', 'output_blocks.2.1.conv.bias'],
    ['sd15', 'up_blocks.1.upsamplers.0.conv.weight', 'output_blocks.5.2.conv.weight'],
    ['sd15', 'up_blocks.3.resnets.2.conv_shortcut.weight', 'output_blocks.11.0.skip_connection.weight'],
    ['sdxl', 'add_embedding.linear_2.weight', 'label_emb.0.2.weight'],
    ['sdxl', 'mid_block.resnets.1.norm2.weight', 'middle_block.2.out_layers.0.weight'],
    ['sdxl', 'up_blocks.0.upsamplers.0.conv.weight', 'output_blocks.2.2.conv.weight'],
    ['sdxl', 'down_blocks.2.attentions.1.norm.weight', 'input_blocks.8.1.norm.weight'],
  ])('%s: %s is %s', (layout, ours, theirs) => {
    const { config } = layouts.get(layout)!.parts[0]!;
    expect(originalUNetName(ours, new UNet2DConditionModel(config).config)).toBe(theirs);
  });

  it.each(['sd15', 'sdxl'])('%s: has a place of its own for every parameter', (layout) => {
    const unet = new UNet2DConditionModel(layouts.get(layout)!.parts[0]!.config);
    const names = [...namedParameters(unet).keys()].map((name) => originalUNetName(name, unet.config));
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) {
      expect(name).toMatch(/^(time_embed|label_emb|(input|middle|output)_blocks?|out)\.\d+\./);
    }
  });

  it('unstacks the attention of an OpenCLIP text encoder, and turns its projection', async () => {
    const model = new CLIPTextModelWithProjection({
      vocab_size: 11,
      hidden_size: 8,
      intermediate_size: 12,
      num_hidden_layers: 2,
      num_attention_heads: 2,
      max_position_embeddings: 5,
      projection_dim: 6,
    });
    initialize(model, 4);
    const values = await valuesOf(model);
    const at = (name: string) => values[`text_model.${name}`]!;
    const prefix = 'conditioner.embedders.1.model.';
    const tensors: Record<string, HostTensor> = {};
    const put = (name: string, shape: number[], numbers: number[]) => {
      tensors[prefix + name] = { dtype: 'f32', shape, data: Float32Array.from(numbers) };
    };
    put('token_embedding.weight', [11, 8], at('embeddings.token_embedding.weight'));
    put('positional_embedding', [5, 8], at('embeddings.position_embedding.weight'));
    put('ln_final.weight', [8], at('final_layer_norm.weight'));
    put('ln_final.bias', [8], at('final_layer_norm.bias'));
    put('logit_scale', [], [4.6]);
    const projection = values['text_projection.weight']!; // [6, 8]
    put(
      'text_projection',
      [8, 6],
      Array.from({ length: 48 }, (_, i) => projection[(i % 6) * 8 + Math.floor(i / 6)]!),
    );
    for (const layer of [0, 1]) {
      const inner = (name: string) => at(`encoder.layers.${layer}.${name}`);
      const stacked = (kind: string) => ['q', 'k', 'v'].flatMap((p) => inner(`self_attn.${p}_proj.${kind}`));
      const block = (name: string) => `transformer.resblocks.${layer}.${name}`;
      put(block('attn.in_proj_weight'), [24, 8], stacked('weight'));
      put(block('attn.in_proj_bias'), [24], stacked('bias'));
      for (const [theirs, ours, shape] of [
        ['attn.out_proj', 'self_attn.out_proj', [8, 8]],
        ['ln_1', 'layer_norm1', [8]],
        ['ln_2', 'layer_norm2', [8]],
        ['mlp.c_fc', 'mlp.fc1', [12, 8]],
        ['mlp.c_proj', 'mlp.fc2', [8, 12]],
      ] as const) {
        put(block(`${theirs}.weight`), [...shape], inner(`${ours}.weight`));
        put(block(`${theirs}.bias`), [shape[0]], inner(`${ours}.bias`));
      }
    }
    const file = await openSafetensors(memorySource('xl.safetensors', writeSafetensors(tensors)));
    const loaded = new CLIPTextModelWithProjection({
      vocab_size: 11,
      hidden_size: 8,
      intermediate_size: 12,
      num_hidden_layers: 2,
      num_attention_heads: 2,
      max_position_embeddings: 5,
      projection_dim: 6,
    });
    await loadWeights(
      loaded,
      clipTextWithProjectionWeights(singleFileText(file, 'conditioner.embedders.1.')),
    );
    expect(await valuesOf(loaded)).toEqual(values);
  });
});

import { initialize } from '@deftjs/autograd/nn';
import {
  batchInstructions,
  DiT,
  type DrawOptions,
  encodePictures,
  Flux,
  OmniGen,
  StableDiffusion,
  StableDiffusionXL,
} from '@deftjs/models';
import { openClipTokenizer, openT5Tokenizer } from '@deftjs/models/node';
import { type Device, read, type Tensor, tensor } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { caseFolder } from './goldenCase.ts';

const clip = await openClipTokenizer(`${caseFolder('sd-tiny-pipeline')}tokenizer`);
const t5 = await openT5Tokenizer(caseFolder('t5-tokenizer'));

const vae = {
  block_out_channels: [4, 8],
  down_block_types: ['DownEncoderBlock2D', 'DownEncoderBlock2D'],
  up_block_types: ['UpDecoderBlock2D', 'UpDecoderBlock2D'],
  norm_num_groups: 2,
  scaling_factor: 0.5,
  shift_factor: 0.1,
};
const text = {
  vocab_size: 531,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: clip.length,
};
const unet = {
  sample_size: 4,
  block_out_channels: [4, 8],
  down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D'],
  up_block_types: ['CrossAttnUpBlock2D', 'UpBlock2D'],
  layers_per_block: 1,
  attention_head_dim: 2,
  cross_attention_dim: 8,
  norm_num_groups: 2,
};
const ddim = {
  _class_name: 'DDIMScheduler',
  clip_sample: false,
  prediction_type: 'v_prediction',
  rescale_betas_zero_snr: true,
  timestep_spacing: 'trailing',
};

/** A request that all pipelines understand: `prompts` are indices of prompts or of classes. */
interface Request extends DrawOptions {
  readonly prompts: readonly number[];
  readonly guidanceScale: number;
}

interface Pipeline {
  readonly pipeline: DiT | Flux | OmniGen | StableDiffusion | StableDiffusionXL;
  readonly drawLatents: (request: Request) => Promise<Tensor>;
  readonly draw: (request: Request) => Promise<Tensor>;
}

const texts = ['a photo of a dog', 'red'];

function ofTexts<P extends Pipeline['pipeline']>(
  pipeline: P & {
    drawLatents: (request: never) => Promise<Tensor>;
    draw: (request: never) => Promise<Tensor>;
  },
  more: (prompts: readonly number[]) => object = () => ({}),
): Pipeline {
  initialize(pipeline, 7);
  const asked = ({ prompts, ...rest }: Request) =>
    ({ ...rest, prompts: prompts.map((i) => texts[i]), ...more(prompts) }) as never;
  return {
    pipeline,
    drawLatents: (request) => pipeline.drawLatents(asked(request)),
    draw: (request) => pipeline.draw(asked(request)),
  };
}

const omniGenParts = {
  transformer: {
    hidden_size: 16,
    num_attention_heads: 2,
    intermediate_size: 12,
    num_layers: 1,
    vocab_size: 531,
    pos_embed_max_size: 8,
    time_step_dim: 8,
    rope_scaling: { type: 'su', short_factor: [1, 1, 1, 1], long_factor: [1, 2, 3, 4] },
  },
  vae,
  scheduler: { invert_sigmas: true, num_train_timesteps: 1 },
  encode: (words: string, begins: boolean) => [...(begins ? [1] : []), ...clip.encodePlain(words)],
};

const filled = (...shape: number[]) =>
  tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => 0.5 + Math.sin(i * i) / 2),
    shape,
  );

const pipelines: Readonly<Record<string, () => Pipeline>> = {
  StableDiffusion: () =>
    ofTexts(new StableDiffusion({ unet, textEncoder: text, vae, scheduler: ddim, tokenizer: clip })),
  StableDiffusionXL: () =>
    ofTexts(
      new StableDiffusionXL({
        unet: {
          ...unet,
          cross_attention_dim: 16,
          addition_embed_type: 'text_time',
          addition_time_embed_dim: 4,
          projection_class_embeddings_input_dim: 6 * 4 + 6,
        },
        textEncoder: text,
        textEncoder2: { ...text, projection_dim: 6 },
        vae,
        scheduler: { _class_name: 'EulerDiscreteScheduler', timestep_spacing: 'leading', steps_offset: 1 },
        tokenizer: clip,
        tokenizer2: clip,
        forceZerosForEmptyPrompt: true,
      }),
    ),
  DiT() {
    const pipeline = new DiT({
      transformer: {
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 1,
        out_channels: 8,
        sample_size: 4,
        num_embeds_ada_norm: 5,
      },
      vae,
      scheduler: { _class_name: 'DPMSolverMultistepScheduler' },
    });
    initialize(pipeline, 7);
    const asked = ({ prompts, ...rest }: Request) => ({ ...rest, classes: prompts });
    return {
      pipeline,
      drawLatents: (request) => pipeline.drawLatents(asked(request)),
      draw: (request) => pipeline.draw(asked(request)),
    };
  },
  Flux: () =>
    ofTexts(
      new Flux({
        transformer: {
          in_channels: 16,
          num_layers: 1,
          num_single_layers: 1,
          attention_head_dim: 8,
          num_attention_heads: 2,
          joint_attention_dim: 12,
          pooled_projection_dim: 8,
          guidance_embeds: true,
          axes_dims_rope: [2, 4, 2],
        },
        textEncoder: text,
        textEncoder2: { vocab_size: 404, d_model: 12, d_kv: 4, d_ff: 10, num_layers: 1, num_heads: 2 },
        vae,
        scheduler: { use_dynamic_shifting: true, shift: 3 },
        tokenizer: clip,
        tokenizer2: t5,
      }),
    ),
  OmniGen: () =>
    ofTexts(new OmniGen(omniGenParts), (prompts) => ({
      prompts: prompts.map((i) => (i === 0 ? 'a dog like <img><|image_1|></img>' : 'red')),
      images: prompts.map((i) => (i === 0 ? [filled(3, 4, 8)] : [])),
      imageGuidanceScale: 1.6,
    })),
};

let device: Device;
beforeAll(async () => {
  ({ device } = await openDevice('wasm'));
});
afterAll(() => device.close());

/** The steps amplify what float32 rounds differently in batches of another size. */
const close = 1e-3;

async function numbers(drawn: Promise<Tensor>): Promise<number[]> {
  using result = await drawn;
  return Array.from(await read(result, device));
}

function distance(a: readonly number[], b: readonly number[]): number {
  expect(a).toHaveLength(b.length);
  return Math.max(...a.map((value, i) => Math.abs(value - b[i]!)));
}

describe.each(Object.keys(pipelines))('the %s pipeline', (name) => {
  const made = pipelines[name]!();
  const common = { steps: 3, guidanceScale: 2, size: { width: 8, height: 8 } };

  it('draws each picture of a batch as it draws it alone, from its seed', async () => {
    const request = { ...common, device };
    const both = await numbers(made.drawLatents({ ...request, prompts: [0, 1], seeds: [3, 4] }));
    const second = await numbers(made.drawLatents({ ...request, prompts: [1], seeds: [4] }));
    const scale = Math.max(...both.map(Math.abs));
    expect(distance(both.slice(second.length), second)).toBeLessThan(close * scale);
    const other = await numbers(made.drawLatents({ ...request, prompts: [1], seeds: [5] }));
    expect(distance(other, second)).toBeGreaterThan(0.1 * scale);
  });

  it('draws pictures of the size asked for, from pictures too: the closer, the fewer steps', async () => {
    const drawn = await made.draw({ ...common, device, prompts: [0], seeds: [3] });
    expect(drawn.shape).toEqual([1, 3, 8, 8]);
    const pixels = Array.from(await read(drawn, device));
    expect(pixels.every((value) => value >= 0 && value <= 1)).toBe(true);
    const pictures = filled(1, 3, 8, 8);
    using latents = await encodePictures(made.pipeline.vae, pictures, device);
    const start = Array.from(await read(latents, device));
    const from = (strength: number) =>
      numbers(
        made.drawLatents({
          steps: 20,
          guidanceScale: 1,
          device,
          prompts: [0],
          seeds: [3],
          from: { pictures, strength },
        }),
      );
    expect(distance(await from(0.05), start)).toBeLessThan(distance(await from(1), start));
  });

  it('says what is wrong with a request', async () => {
    const request = { ...common, device, prompts: [0], seeds: [3] };
    const from = { pictures: filled(1, 3, 8, 8), strength: 0.1 };
    await expect(made.drawLatents({ ...request, seeds: [1, 2] })).rejects.toThrow(
      /: expected 1 seeds, one for each prompt; got 2$/,
    );
    await expect(made.drawLatents({ ...request, size: { width: 8, height: 7 } })).rejects.toThrow(
      /: expected a size in multiples of \d pixels; got 8 x 7$/,
    );
    await expect(made.drawLatents({ ...request, from })).rejects.toThrow(
      /: expected a strength in \[1 \/ steps, 1\]; got 0.1 of 3 steps$/,
    );
  });
});

describe('guidance', () => {
  const request = { steps: 2, seeds: [3], size: { width: 8, height: 8 } };

  it.each(['StableDiffusion', 'StableDiffusionXL', 'OmniGen'])(
    'of scale 1 is the conditional model, whatever the negative prompt (%s)',
    async (name) => {
      const { pipeline } = pipelines[name]!() as { pipeline: OmniGen };
      const draw = (guidanceScale: number, negativePrompt: string) =>
        numbers(
          pipeline.drawLatents({
            ...request,
            device,
            prompts: ['<|image_1|> red'].map((prompt) => (name === 'OmniGen' ? prompt : 'red')),
            ...(name === 'OmniGen' && { images: [[filled(3, 4, 4)]] }),
            imageGuidanceScale: guidanceScale,
            guidanceScale,
            negativePrompt,
          }),
        );
      const plain = await draw(1, '');
      expect(distance(await draw(1, 'blue dog'), plain)).toBeLessThan(1e-4);
      expect(distance(await draw(4, 'blue dog'), await draw(4, ''))).toBeGreaterThan(1e-3);
    },
  );

  it('of OmniGen has two scales: u + g_i (i - u) + g (c - i), affine in both', async () => {
    const { pipeline } = pipelines.OmniGen!() as { pipeline: OmniGen };
    const draw = (guidanceScale: number, imageGuidanceScale: number) =>
      numbers(
        pipeline.drawLatents({
          ...request,
          steps: 1,
          device,
          prompts: ['<|image_1|> red'],
          images: [[filled(3, 4, 4)]],
          guidanceScale,
          imageGuidanceScale,
        }),
      );
    const [u, i, c, both] = [await draw(0, 0), await draw(0, 1), await draw(1, 1), await draw(2.5, 1.6)];
    const expected = u.map((value, k) => value + 1.6 * (i[k]! - value) + 2.5 * (c[k]! - i[k]!));
    expect(distance(both, expected)).toBeLessThan(1e-4);
    expect(distance(u, i)).toBeGreaterThan(1e-3);
    expect(distance(i, c)).toBeGreaterThan(1e-3);
  });

  it('is what FLUX is told', async () => {
    const { pipeline } = pipelines.Flux!() as { pipeline: Flux };
    const draw = (guidanceScale: number) =>
      numbers(pipeline.drawLatents({ ...request, device, prompts: ['red'], guidanceScale }));
    expect(distance(await draw(3.5), await draw(1))).toBeGreaterThan(1e-4);
  });

  it('of DiT needs classes that there are', async () => {
    const { pipeline } = pipelines.DiT!() as { pipeline: DiT };
    await expect(
      pipeline.drawLatents({ ...request, device, classes: [5], guidanceScale: 1 }),
    ).rejects.toThrow('dit: expected classes from 0 to 4; got 5');
  });
});

describe('sequences of instructions', () => {
  it('attend by the rules: to what came before, within a picture to all of it, from the drawn picture to everything', async () => {
    const instruction = fc.array(fc.nat(3), { minLength: 1, maxLength: 6 }).map((gaps) => {
      const images: { start: number; tokens: number }[] = [];
      let length = 1;
      for (const [i, gap] of gaps.entries()) {
        if (i % 2 === 1) images.push({ start: length, tokens: gap + 1 });
        length += gap + 1;
      }
      return { ids: Array.from({ length }, (_, i) => i + 10), images };
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(instruction, { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 1, max: 5 }),
        async (instructions, outputs) => {
          const batch = batchInstructions(instructions, outputs);
          const words = Math.max(...instructions.map(({ ids }) => ids.length));
          const total = words + 1 + outputs;
          const mask = await read(batch.mask, device);
          const ids = await read(batch.ids, device);
          for (const [row, { ids: own, images }] of instructions.entries()) {
            const pad = words - own.length;
            expect(Array.from(ids.slice(row * words + pad, (row + 1) * words))).toEqual(own);
            expect(batch.positions[row]!.slice(pad)).toEqual(
              Array.from({ length: total - pad }, (_, i) => i),
            );
            const imageOf = (token: number) =>
              images.findIndex(({ start, tokens }) => token - pad >= start && token - pad < start + tokens);
            for (let q = 0; q < total; q += 1) {
              for (let k = 0; k < total; k += 1) {
                const isPadding = q < pad;
                const before = k >= pad && k <= q;
                const together = imageOf(q) !== -1 && imageOf(q) === imageOf(k);
                const drawn = q > words && k >= pad;
                const seen = isPadding || before || together || drawn;
                expect(Boolean(mask[(row * total + q) * total + k]), `${row} ${q} ${k}`).toBe(seen);
              }
            }
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  it('name their pictures from 1 on', () => {
    const pipeline = new OmniGen(omniGenParts);
    const { ids, images, order } = pipeline.instruction('<|image_2|> and <|image_1|>', [3, 4]);
    expect(order).toEqual([1, 0]);
    expect(images.map(({ tokens }) => tokens)).toEqual([4, 3]);
    for (const { start, tokens } of images) {
      expect(ids.slice(start, start + tokens)).toEqual(new Array(tokens).fill(0));
    }
    expect(() => pipeline.instruction('<|image_2|>', [3])).toThrow(
      'omniGen: expected 1 pictures, <|image_1|> and on, in the prompt; got "<|image_2|>"',
    );
  });
});

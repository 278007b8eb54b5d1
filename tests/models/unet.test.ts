import { valueAndGrad } from '@deftjs/autograd';
import { initialize, namedParameters, stateOf, withState } from '@deftjs/autograd/nn';
import { ConfigError, loadWeights, UNet2DConditionModel } from '@deftjs/models';
import { openWeights } from '@deftjs/models/node';
import { meanSquaredError, numel, referenceDevice, type Tensor, tensor, zeros } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';
import { compute, expectAgreement, openCase } from './goldenCase.ts';

/** PyTorch's float32 against exact arithmetic: tests/golden/README.md. */
const bound = 1e-4;

describe('UNet2DConditionModel', () => {
  it.each([
    ['unet-sd15-tiny', 'reference'],
    ['unet-sdxl-tiny', 'reference'],
    ['unet-sd15-tiny', 'wasm'],
    ['unet-sdxl-tiny', 'wasm'],
  ] as const)('%s on %s agrees with diffusers: output, loss, gradients', async (name, kind) => {
    const { device } = await openDevice(kind);
    const golden = await openCase(name);
    const unet = new UNet2DConditionModel(golden.config);
    await using weights = await openWeights(golden.folder);
    await loadWeights(unet, weights);

    const inputs = new Set(golden.under('in/'));
    const added = inputs.has('text_embeds')
      ? { textEmbeds: golden.get('in/text_embeds'), timeIds: golden.get('in/time_ids') }
      : undefined;
    const wanted = golden.under('grad/');
    const loss = (variables: { theta: Record<string, Tensor>; sample: Tensor; context: Tensor }) =>
      withState(unet, variables.theta, () => {
        const { sample, context } = variables;
        const out = unet.forward(sample, golden.get('in/timestep'), context, added);
        return [meanSquaredError(out, golden.get('target')), out] as const;
      });
    const { value, gradient } = valueAndGrad(loss)({
      theta: stateOf(unet, (path) => wanted.includes(path)),
      sample: golden.get('in/sample'),
      context: golden.get('in/context'),
    });
    const recorded: Record<string, Tensor> = { loss: value[0], out: value[1] };
    recorded['grad_in/sample'] = gradient.sample;
    recorded['grad_in/context'] = gradient.context;
    for (const path of wanted) recorded[`grad/${path}`] = gradient.theta[path]!;
    const values = await compute(device, Object.values(recorded));
    for (const [i, key] of Object.keys(recorded).entries())
      expectAgreement(values[i]!, golden.get(key), bound, key);
    await device.close();
  });

  const small = {
    in_channels: 12,
    out_channels: 12,
    block_out_channels: [8, 16, 16],
    down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
    up_block_types: ['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
    layers_per_block: [1, 2, 1],
    attention_head_dim: [1, 2, 4],
    cross_attention_dim: 6,
    norm_num_groups: 4,
  };

  it('is initialised as a function of the seed alone', () => {
    const values = (seed: number) => {
      const unet = new UNet2DConditionModel(small);
      initialize(unet, seed);
      return Object.values(stateOf(unet)).map(({ source }) =>
        source.kind === 'host' ? source.values : source,
      );
    };
    expect(values(1)).toEqual(values(1));
    expect(values(1)).not.toEqual(values(2));
  });

  it('lets every parameter and condition influence what it predicts', async () => {
    const unet = new UNet2DConditionModel(small);
    initialize(unet, 0);
    const inputs = { sample: filled([1, 12, 8, 8]), context: filled([1, 3, 6]), times: tensor([37.5]) };
    const { gradient } = valueAndGrad((x: { theta: Record<string, Tensor>; inputs: typeof inputs }) =>
      withState(unet, x.theta, () =>
        meanSquaredError(unet.forward(x.inputs.sample, x.inputs.times, x.inputs.context), 1),
      ),
    )({ theta: stateOf(unet), inputs });
    const gradients = { ...gradient.theta, ...gradient.inputs };
    const values = await compute(referenceDevice(), Object.values(gradients));
    const still = Object.keys(gradients).filter((_, i) => values[i]!.every((value) => value === 0));
    expect(still).toEqual([]);
    expect(Object.keys(gradients)).toHaveLength(namedParameters(unet).size + 3);
  });

  it('halves as often as it must, or refuses', () => {
    const unet = new UNet2DConditionModel(small);
    const forward = () => unet.forward(zeros([1, 12, 8, 6]), zeros([1]), zeros([1, 3, 6]));
    expect(forward).toThrow('unet: expected [B, 12, H, W] with H and W multiples of 4; got [1, 12, 8, 6]');
  });

  it('takes added conditions exactly if its config has them', () => {
    const unet = new UNet2DConditionModel(small);
    initialize(unet, 0);
    const added = { textEmbeds: zeros([1, 4]), timeIds: zeros([1, 6]) };
    const forward = () => unet.forward(zeros([1, 12, 8, 8]), zeros([1]), zeros([1, 3, 6]), added);
    expect(forward).toThrow('unet: expected no added conditions for this config');
  });

  it.each([
    [
      { down_block_types: ['AttnDownBlock2D'] },
      'down_block_types: expected a list of DownBlock2D, CrossAttnDownBlock2D',
    ],
    [
      { up_block_types: ['UpBlock2D'] },
      'up_block_types: expected 3 of them, as many as down blocks; got ["UpBlock2D"]',
    ],
    [
      { mid_block_type: 'UNetMidBlock2DSimpleCrossAttn' },
      'mid_block_type: expected one of UNetMidBlock2DCrossAttn',
    ],
    [{ norm_num_groups: 3 }, 'block_out_channels: expected multiples of norm_num_groups 3; got [8,16,16]'],
    [{ attention_head_dim: 5 }, 'attention_head_dim: expected numbers of heads that divide 8,16,16; got 5'],
    [{ num_attention_heads: 8 }, 'num_attention_heads: not supported; expected null; got 8'],
    [{ class_embed_type: 'timestep' }, 'class_embed_type: not supported; expected null; got "timestep"'],
    [{ addition_embed_type: 'image' }, 'addition_embed_type: expected one of text_time; got "image"'],
    [
      { addition_embed_type: 'text_time' },
      'addition_time_embed_dim is missing; expected a whole number >= 0',
    ],
    [{ conv_in_kernel: 4 }, 'conv_in_kernel: expected an odd number; got 4'],
    [{ layers_per_block: 0 }, 'layers_per_block: expected numbers >= 1; got 0'],
    [{ act_fn: 'gelu' }, 'act_fn: expected one of silu, swish; got "gelu"'],
    [{ resolution_tricks: 1 }, 'resolution_tricks: unknown field; got 1'],
  ])('refuses %o by name', (change, message) => {
    const make = () => new UNet2DConditionModel({ ...small, ...change });
    expect(make).toThrow(ConfigError);
    expect(make).toThrow(`UNet2DConditionModel: ${message}`);
  });
});

/** Numbers between -1 and 1 that follow no pattern of the shape. */
function filled(shape: readonly number[]): Tensor {
  return tensor(
    Float32Array.from({ length: numel(shape) }, (_, i) => Math.sin(i * i)),
    shape,
  );
}

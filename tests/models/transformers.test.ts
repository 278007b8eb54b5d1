import { valueAndGrad } from '@deftjs/autograd';
import { initialize, type Module, namedParameters, stateOf, withState } from '@deftjs/autograd/nn';
import {
  ConfigError,
  DiTTransformer2DModel,
  distanceBucket,
  FluxTransformer2DModel,
  gridPositions,
  type JsonConfig,
  loadWeights,
  memorySource,
  OmniGenTransformer2DModel,
  omniGenWeights,
  openSafetensors,
  patchify,
  picturePositions,
  T5EncoderModel,
  t5Weights,
  unpatchify,
  writeSafetensors,
} from '@deftjs/models';
import {
  concat,
  less,
  meanSquaredError,
  narrow,
  ones,
  referenceDevice,
  sub,
  type Tensor,
  tensor,
  zeros,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compute } from './goldenCase.ts';

/** A network with inputs for one picture or text, made from a seed. */
interface Sample {
  readonly [name: string]: Tensor;
}
interface Net {
  readonly model: Module;
  readonly inputs: (seed: number) => Sample;
  readonly forward: (inputs: Sample) => Tensor;
}

/** Numbers between -1 and 1 that follow no pattern of the shape. */
function filled(seed: number, ...shape: number[]): Tensor {
  const size = shape.reduce((product, extent) => product * extent, 1);
  return tensor(
    Float32Array.from({ length: size }, (_, i) => Math.sin((i + 7 * seed + 1) ** 2)),
    shape,
  );
}

function some(seed: number, below: number, ...shape: number[]): Tensor {
  const size = shape.reduce((product, extent) => product * extent, 1);
  return tensor(
    Int32Array.from({ length: size }, (_, i) => (31 * seed + 17 * i + i * i) % below),
    shape,
    'i32',
  );
}

const ditConfig = { num_attention_heads: 2, attention_head_dim: 6, num_layers: 2, num_embeds_ada_norm: 5 };
const fluxConfig = {
  in_channels: 8,
  num_layers: 1,
  num_single_layers: 1,
  attention_head_dim: 8,
  num_attention_heads: 2,
  joint_attention_dim: 6,
  pooled_projection_dim: 5,
  guidance_embeds: true,
  axes_dims_rope: [2, 4, 2],
};
const omniGenConfig = {
  hidden_size: 16,
  num_attention_heads: 2,
  num_key_value_heads: 2,
  intermediate_size: 12,
  num_layers: 2,
  vocab_size: 23,
  pos_embed_max_size: 8,
  time_step_dim: 8,
  original_max_position_embeddings: 16,
  max_position_embeddings: 64,
  rope_scaling: { type: 'su', short_factor: [1, 1.1, 1.2, 1.3], long_factor: [1, 1.5, 2, 3] },
};
const t5Config = { vocab_size: 23, d_model: 12, d_kv: 4, d_ff: 10, num_layers: 2, num_heads: 2 };

const range = (length: number): number[] => Array.from({ length }, (_, i) => i);

const nets: Record<string, (change: JsonConfig) => Net> = {
  DiTTransformer2DModel(change) {
    const model = new DiTTransformer2DModel({ ...ditConfig, ...change });
    return {
      model,
      inputs: (seed) => ({
        sample: filled(seed, 1, 4, 4, 6),
        times: tensor([100 * seed + 3]),
        labels: some(seed, 5, 1),
      }),
      forward: ({ sample, times, labels }) => model.forward(sample!, times!, labels!),
    };
  },
  FluxTransformer2DModel(change) {
    const model = new FluxTransformer2DModel({ ...fluxConfig, ...change });
    return {
      model,
      inputs: (seed) => ({
        sample: filled(seed, 1, 6, 8),
        context: filled(seed + 1, 1, 3, 6),
        pooled: filled(seed + 2, 1, 5),
        levels: tensor([0.25 + seed / 10]),
        guidance: tensor([2 + seed]),
      }),
      forward: ({ sample, context, pooled, levels, guidance }) =>
        model.forward({
          sample: sample!,
          context: context!,
          pooled: pooled!,
          levels: levels!,
          guidance: guidance!,
          positions: picturePositions(2, 3),
        }),
    };
  },
  OmniGenTransformer2DModel(change) {
    const model = new OmniGenTransformer2DModel({ ...omniGenConfig, ...change });
    return {
      model,
      inputs: (seed) => ({
        sample: filled(seed, 1, 4, 4, 6),
        times: tensor([0.25 + seed / 10]),
        ids: some(seed, 23, 1, 9),
        image: filled(seed + 1, 1, 4, 4, 4),
      }),
      forward({ sample, times, ids, image }) {
        const batch = sample!.shape[0]!;
        const placesOf = (row: number) =>
          range(9).map((i) => (i >= 3 && i < 7 ? 9 * batch + 4 * row + i - 3 : 9 * row + i));
        const places = tensor(range(batch).flatMap(placesOf), [batch, 9], 'i32');
        const mask = less(zeros([batch, 16, 16]), 1);
        return model.forward({
          sample: sample!,
          times: times!,
          ids: ids!,
          images: [image!],
          places,
          mask,
          positions: [range(16)],
        });
      },
    };
  },
  T5EncoderModel(change) {
    const model = new T5EncoderModel({ ...t5Config, ...change });
    return {
      model,
      inputs: (seed) => ({ ids: some(seed, 23, 1, 12) }),
      forward: ({ ids }) => model.forward(ids!),
    };
  },
};

const device = referenceDevice();
const valuesOf = async (...tensors: Tensor[]) => (await compute(device, tensors)).map((v) => Array.from(v));

function expectClose(actual: readonly number[], expected: readonly number[], tolerance = 1e-9): void {
  expect(actual).toHaveLength(expected.length);
  const worst = Math.max(...actual.map((value, i) => Math.abs(value - expected[i]!)));
  expect(worst).toBeLessThan(tolerance * Math.max(1, ...expected.map(Math.abs)));
}

describe.each(Object.keys(nets))('%s', (name) => {
  const changes: Record<string, fc.Arbitrary<JsonConfig>> = {
    DiTTransformer2DModel: fc.record({
      num_attention_heads: fc.constantFrom(1, 2, 3),
      attention_head_dim: fc.constantFrom(4, 8),
      num_layers: fc.integer({ min: 1, max: 2 }),
      out_channels: fc.constantFrom(null, 8),
      patch_size: fc.constantFrom(1, 2),
      sample_size: fc.constantFrom(4, 8, 32),
      attention_bias: fc.boolean(),
      norm_elementwise_affine: fc.boolean(),
      activation_fn: fc.constantFrom('gelu', 'gelu-approximate', 'geglu'),
    }),
    FluxTransformer2DModel: fc.record({
      num_attention_heads: fc.integer({ min: 1, max: 3 }),
      num_layers: fc.integer({ min: 0, max: 2 }),
      num_single_layers: fc.integer({ min: 0, max: 2 }),
      axes_dims_rope: fc.constantFrom([0, 4, 4], [2, 2, 4], [4, 2, 2]),
    }),
    OmniGenTransformer2DModel: fc.record({
      intermediate_size: fc.integer({ min: 1, max: 9 }),
      num_layers: fc.integer({ min: 1, max: 2 }),
      original_max_position_embeddings: fc.constantFrom(4, 64),
      flip_sin_to_cos: fc.boolean(),
    }),
    T5EncoderModel: fc.record({
      d_kv: fc.integer({ min: 1, max: 5 }),
      num_heads: fc.integer({ min: 1, max: 3 }),
      feed_forward_proj: fc.constantFrom('relu', 'gated-gelu'),
      relative_attention_num_buckets: fc.constantFrom(4, 8, 32),
      relative_attention_max_distance: fc.constantFrom(9, 128),
    }),
  };

  it('computes each of a batch as it computes it alone', async () => {
    await fc.assert(
      fc.asyncProperty(changes[name]!, fc.nat(1000), async (change, seed) => {
        const { model, inputs, forward } = nets[name]!(change);
        initialize(model, seed);
        const [a, b] = [inputs(1), inputs(2)];
        const both = Object.fromEntries(Object.keys(a).map((key) => [key, concat([a[key]!, b[key]!])]));
        const [together, first, second] = await valuesOf(forward(both), forward(a), forward(b));
        expectClose(together!, [...first!, ...second!]);
      }),
      { numRuns: 8 },
    );
  });

  it('lets every parameter and input influence what it computes', async () => {
    const { model, inputs, forward } = nets[name]!({});
    initialize(model, 0);
    const given = inputs(1);
    const floats = Object.fromEntries(Object.entries(given).filter(([, { dtype }]) => dtype === 'f32'));
    const { gradient } = valueAndGrad((x: { theta: Sample; floats: Sample }) =>
      withState(model, x.theta, () => meanSquaredError(forward({ ...given, ...x.floats }), 2)),
    )({ theta: stateOf(model), floats });
    const gradients = { ...gradient.theta, ...gradient.floats };
    const values = await valuesOf(...Object.values(gradients));
    const still = Object.keys(gradients).filter((_, i) => values[i]!.every((value) => value === 0));
    expect(still).toEqual([]);
    expect(Object.keys(gradients)).toHaveLength(namedParameters(model).size + Object.keys(floats).length);
  });

  it.each<[string, JsonConfig, string]>(
    (
      [
        ['DiTTransformer2DModel', { dropout: 0.1 }, 'dropout: not supported; expected 0; got 0.1'],
        ['DiTTransformer2DModel', { norm_type: 'layer_norm' }, 'norm_type: expected one of ada_norm_zero'],
        ['DiTTransformer2DModel', { activation_fn: 'swiglu' }, 'activation_fn: expected one of geglu, gelu'],
        ['DiTTransformer2DModel', { attention_head_dim: 5 }, 'attention_head_dim: expected heads'],
        ['DiTTransformer2DModel', { depth: 3 }, 'depth: unknown field; got 3'],
        ['FluxTransformer2DModel', { axes_dims_rope: [2, 2, 2] }, 'axes_dims_rope: expected even numbers'],
        ['FluxTransformer2DModel', { axes_dims_rope: [8] }, 'axes_dims_rope: expected a list of 3 numbers'],
        ['FluxTransformer2DModel', { theta: 1e4 }, 'theta: unknown field'],
        ['OmniGenTransformer2DModel', { rope_scaling: null }, 'rope_scaling: expected an object'],
        ['OmniGenTransformer2DModel', { num_key_value_heads: 1 }, 'num_key_value_heads: not supported'],
        [
          'OmniGenTransformer2DModel',
          { timestep_activation_fn: 'gelu' },
          'timestep_activation_fn: expected one',
        ],
        [
          'OmniGenTransformer2DModel',
          { rope_scaling: { type: 'yarn' } },
          'rope_scaling: type: expected one of su',
        ],
        [
          'OmniGenTransformer2DModel',
          { rope_scaling: { short_factor: [1] } },
          'rope_scaling: short_factor: expected a list of 4 numbers; got [1]',
        ],
        ['T5EncoderModel', { feed_forward_proj: 'gated-silu' }, 'feed_forward_proj: expected one of relu'],
        ['T5EncoderModel', { is_decoder: true }, 'is_decoder: not supported'],
        ['T5EncoderModel', { model_type: 'umt5' }, 'model_type: expected one of t5; got "umt5"'],
        ['T5EncoderModel', { relative_attention_num_buckets: 7 }, 'relative_attention_num_buckets: expected'],
      ] as [string, JsonConfig, string][]
    ).filter(([of]) => of === name),
  )('%s with %o is refused by name', (_, change, message) => {
    expect(() => nets[name]!(change)).toThrow(ConfigError);
    expect(() => nets[name]!(change)).toThrow(`${name}: ${message}`);
  });
});

describe('patches', () => {
  it('give back the picture that they were cut from, in either order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.tuple(...[1, 2, 3, 4].map((max) => fc.integer({ min: 1, max }))),
        fc.integer({ min: 1, max: 3 }),
        fc.constantFrom('pqc', 'cpq'),
        async ([batch, channels, rows, columns], size, order) => {
          const picture = filled(0, batch!, channels!, rows! * size, columns! * size);
          const tokens = patchify(picture, size, order);
          expect(tokens.shape).toEqual([batch, rows! * columns!, channels! * size * size]);
          const [back, before] = await valuesOf(unpatchify(tokens, [rows!, columns!], size, order), picture);
          expect(back).toEqual(before);
        },
      ),
      { numRuns: 30 },
    );
  });

  it('lie a base grid apart whatever the grid: the corner cell of a finer one is where the coarse one has it', async () => {
    const [coarse, fine] = await valuesOf(gridPositions(8, 2, 2, 4), gridPositions(8, 4, 4, 4));
    expectClose(coarse!.slice(8, 16), fine!.slice(16, 24), 1e-6); // (0, 1) of 2 x 2 is (0, 2) of 4 x 4
    expectClose(coarse!.slice(0, 4), [0, 0, 1, 1]);
  });
});

describe('OmniGen', () => {
  const make = (change: JsonConfig = {}) => {
    const model = new OmniGenTransformer2DModel({ ...omniGenConfig, ...change });
    initialize(model, 3);
    return model;
  };
  const inputs = {
    sample: filled(1, 1, 4, 4, 4),
    times: tensor([0.5]),
    ids: some(1, 23, 1, 5),
    mask: less(zeros([1, 10, 10]), 1),
    positions: [range(10)],
  };

  it('sees differences of positions only, and long sequences by other factors', async () => {
    const model = make();
    const at = (start: number) => [range(10).map((i) => start + i)];
    const [here, moved, far] = await valuesOf(
      model.forward(inputs),
      model.forward({ ...inputs, positions: at(6) }),
      model.forward({ ...inputs, positions: at(7) }),
    );
    expectClose(moved!, here!, 1e-5); // tables in float32
    expect(Math.max(...far!.map((value, i) => Math.abs(value - here![i]!)))).toBeGreaterThan(1e-4);
  });

  it('puts a picture where its words would stand, whatever those are', async () => {
    const model = make();
    const images = [filled(2, 1, 4, 2, 4)];
    const places = tensor(Int32Array.of(0, 5, 6, 3, 4), [1, 5], 'i32');
    const other = tensor(Int32Array.of(12, 0, 0, 3, 7), [1, 5], 'i32');
    const [one, same, without] = await valuesOf(
      model.forward({ ...inputs, ids: tensor(Int32Array.of(12, 5, 6, 3, 7), [1, 5], 'i32'), images, places }),
      model.forward({ ...inputs, ids: other, images, places }),
      model.forward({ ...inputs, ids: other }),
    );
    expect(same).toEqual(one);
    expect(without).not.toEqual(one);
    expect(() => model.forward({ ...inputs, images })).toThrow(
      'omniGen: expected places [1, 5] for the pictures; got none',
    );
  });

  it('refuses masks and positions of another length', () => {
    expect(() => make().forward({ ...inputs, positions: [range(9)] })).toThrow(
      'omniGen: expected a mask [1, 10, 10] and 10 positions; got [1, 10, 10] and 9',
    );
  });

  it("loads the authors' files: their names, and the three parts of a fused projection", async () => {
    const model = make();
    const state = await Promise.all(
      Object.entries(stateOf(model)).map(async ([path, value]) => {
        const [values] = await valuesOf(value);
        return [
          path,
          { dtype: 'f32' as const, shape: value.shape, data: Float32Array.from(values!) },
        ] as const;
      }),
    );
    const theirs: [RegExp, string][] = [
      [/^(layers|norm\.|embed_tokens)/, 'llm.$1'],
      [/^patch_embedding\.pos_embed$/, 'pos_embed'],
      [/^patch_embedding\.output_image_proj/, 'x_embedder.proj'],
      [/^patch_embedding\.input_image_proj/, 'input_x_embedder.proj'],
      [/^norm_out\.linear/, 'final_layer.adaLN_modulation.1'],
      [/^proj_out/, 'final_layer.linear'],
      [/linear_1/, 'mlp.0'],
      [/linear_2/, 'mlp.2'],
      [/to_out\.0/, 'o_proj'],
    ];
    const rename = (path: string) => theirs.reduce((name, [from, to]) => name.replace(from, to), path);
    const file = Object.fromEntries(
      state.filter(([path]) => !/to_[qkv]\./.test(path)).map(([path, value]) => [rename(path), value]),
    );
    const of = Object.fromEntries(state);
    for (const layer of [0, 1]) {
      const parts = ['q', 'k', 'v'].map((p) => of[`layers.${layer}.self_attn.to_${p}.weight`]!);
      file[`llm.layers.${layer}.self_attn.qkv_proj.weight`] = {
        dtype: 'f32',
        shape: [48, 16],
        data: Float32Array.from(parts.flatMap(({ data }) => [...data])),
      };
    }
    const loaded = new OmniGenTransformer2DModel(omniGenConfig);
    const source = await openSafetensors(memorySource('model.safetensors', writeSafetensors(file)));
    await loadWeights(loaded, omniGenWeights(source));
    const [before, after] = await valuesOf(model.forward(inputs), loaded.forward(inputs));
    expect(after).toEqual(before);
  });
});

describe('FLUX', () => {
  it('is told the guidance scale exactly if its config has one', () => {
    const { model, inputs, forward } = nets.FluxTransformer2DModel!({ guidance_embeds: false });
    initialize(model, 0);
    expect(() => forward(inputs(1))).toThrow('flux: expected no guidance scales for this config');
  });

  it('wants a position for every token', () => {
    const model = new FluxTransformer2DModel(fluxConfig);
    const forward = () =>
      model.forward({
        sample: zeros([1, 4, 8]),
        context: zeros([1, 3, 6]),
        pooled: zeros([1, 5]),
        levels: ones([1]),
        positions: picturePositions(1, 3),
      });
    expect(forward).toThrow(
      'flux: expected a position for each token of [1, 4, 8] and [1, 3, 6]; got 3 and 3',
    );
  });
});

describe('T5', () => {
  it('pays no attention to padding', async () => {
    const model = new T5EncoderModel(t5Config);
    initialize(model, 1);
    const ids = some(1, 23, 1, 6);
    const padded = concat([ids, some(5, 23, 1, 3)], 1);
    const mask = tensor(Int32Array.of(1, 1, 1, 1, 1, 1, 0, 0, 0), [1, 9], 'i32');
    const [alone, among] = await valuesOf(
      model.forward(ids),
      narrow(model.forward(padded, less(sub(1, mask), 1)), 1, 0, 6),
    );
    expectClose(among!, alone!);
  });

  it('puts distances into buckets: one for each small one, wider ones up to the greatest, keys behind and ahead apart', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 32 }),
        fc.integer({ min: 33, max: 300 }),
        fc.nat(500),
        (half, most, d) => {
          const bucket = (distance: number) => distanceBucket(distance, 2 * half, most);
          if (d > 0) expect(bucket(d)).toBe(bucket(-d) + half);
          expect(bucket(-d - 1)).toBeGreaterThanOrEqual(bucket(-d));
          expect(bucket(-d)).toBeLessThan(half);
          if (d < Math.floor(half / 2)) expect(bucket(-d)).toBe(d);
          if (d >= most) expect(bucket(-d)).toBe(half - 1);
        },
      ),
    );
  });

  it.each([
    [{ 'encoder.embed_tokens.weight': 'a' }, ['shared.weight']],
    [{ 'shared.weight': 'a', 'encoder.embed_tokens.weight': 'a' }, ['shared.weight']],
  ])('finds its embedding in files that call it %o', async (file, names) => {
    const data = { dtype: 'f32' as const, shape: [1], data: Float32Array.of(1) };
    const tensors = Object.fromEntries(Object.keys(file).map((name) => [name, data]));
    const source = await openSafetensors(memorySource('model.safetensors', writeSafetensors(tensors)));
    expect(t5Weights(source).names).toEqual(names);
  });
});

describe('positions of OmniGen', () => {
  it('are the same as lists and as a tensor, each row with its own', async () => {
    const model = new OmniGenTransformer2DModel(omniGenConfig);
    initialize(model, 2);
    const shared = {
      sample: filled(1, 2, 4, 4, 6),
      times: tensor([0.25, 0.5]),
      ids: some(1, 23, 2, 9),
      mask: less(zeros([2, 16, 16]), 1),
    };
    const lists = [range(16), [0, 0, ...range(14)]];
    const listed = model.forward({ ...shared, positions: lists });
    const positions = tensor(Int32Array.from(lists.flat()), [2, 16]);
    const [first, second, other] = await valuesOf(
      listed,
      model.forward({ ...shared, positions }),
      model.forward({ ...shared, positions: [range(16)] }),
    );
    expect(second).toEqual(first);
    expect(other).not.toEqual(first);
    expect(() => model.forward({ ...shared, positions: tensor(Int32Array.of(0, 1), [1, 2]) })).toThrow(
      /16 positions; got .* and 2/,
    );
  });
});

import { initialize, namedParameters } from '@deftjs/autograd/nn';
import {
  CLIPTextModel,
  CLIPTextModelWithProjection,
  clipTextWeights,
  clipTextWithProjectionWeights,
  loadWeights,
  renamed,
} from '@deftjs/models';
import { openWeights } from '@deftjs/models/node';
import { referenceDevice, ShapeError, tensor, zeros } from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';
import { compute, expectAgreement, openCase } from './goldenCase.ts';

/** PyTorch's float32 against exact arithmetic: tests/golden/README.md. */
const bound = 1e-4;

describe('CLIPTextModel', () => {
  it('agrees with transformers: hidden state and pooled token', async () => {
    const golden = await openCase('clip-text-tiny');
    const model = new CLIPTextModel(golden.config);
    await using weights = await openWeights(golden.folder);
    await loadWeights(model, clipTextWeights(weights));
    const { lastHiddenState, pooled } = model.forward(golden.get('in/input_ids'));
    const [hidden, token] = await compute(referenceDevice(), [lastHiddenState, pooled]);
    expectAgreement(hidden!, golden.get('out/last_hidden_state'), bound, 'last_hidden_state');
    expectAgreement(token!, golden.get('out/pooled'), bound, 'pooled');
  });

  it('reads files of older versions: prefixed names, position ids', async () => {
    const { folder, config } = await openCase('clip-text-tiny');
    await using weights = await openWeights(folder);
    const older = renamed(weights, (name) => `text_model.${name}`);
    const model = new CLIPTextModel(config);
    await loadWeights(
      model,
      clipTextWeights({ ...older, names: [...older.names, 'text_model.embeddings.position_ids'] }),
    );
    expect([...namedParameters(model).values()].every((parameter) => parameter.hasValue)).toBe(true);
  });

  it('pools at the first end token of its config', async () => {
    const config = {
      vocab_size: 50,
      hidden_size: 8,
      intermediate_size: 16,
      num_hidden_layers: 1,
      num_attention_heads: 2,
    };
    const model = new CLIPTextModel({ ...config, max_position_embeddings: 6, eos_token_id: 30 });
    initialize(model, 0);
    const { lastHiddenState, pooled } = model.forward(tensor([[1, 40, 30, 30, 7, 7]], [1, 6], 'i32'));
    const [hidden, token] = await compute(referenceDevice(), [lastHiddenState, pooled]);
    expect(token).toEqual(hidden!.slice(2 * 8, 3 * 8));
  });

  it('sees nothing of what comes later', async () => {
    const { config } = await openCase('clip-text-tiny');
    const model = new CLIPTextModel(config);
    initialize(model, 1);
    const states = [
      [3, 4, 5, 6],
      [3, 4, 5, 90],
    ].map((ids) => model.forward(tensor([ids], [1, 4], 'i32')).lastHiddenState);
    const [a, b] = await compute(referenceDevice(), states);
    const width = a!.length / 4;
    expect(a!.slice(0, 3 * width)).toEqual(b!.slice(0, 3 * width));
    expect(a!.slice(3 * width)).not.toEqual(b!.slice(3 * width));
  });

  it('refuses more tokens than it has positions', async () => {
    const { config } = await openCase('clip-text-tiny');
    const model = new CLIPTextModel(config);
    expect(() => model.forward(zeros([1, 17], 'i32'))).toThrow(ShapeError);
    expect(() => model.forward(zeros([1, 17], 'i32'))).toThrow(
      'clipText: expected ids [B, L] with L up to 16; got [1, 17]',
    );
  });

  it.each([
    [{ hidden_act: 'relu' }, 'CLIPTextModel: hidden_act: expected one of quick_gelu, gelu; got "relu"'],
    [
      { num_attention_heads: 5 },
      'num_attention_heads: expected a number of heads that divides hidden_size 32; got 5',
    ],
    [{ model_type: 'clip' }, 'model_type: expected one of clip_text_model; got "clip"'],
    [{ attention_dropout: 0.1 }, 'attention_dropout: not supported; expected 0; got 0.1'],
  ])('refuses %o', async (change, message) => {
    const { config } = await openCase('clip-text-tiny');
    expect(() => new CLIPTextModel({ ...config, ...change })).toThrow(message);
  });
});

describe('CLIPTextModelWithProjection', () => {
  it('agrees with transformers: text embedding and the state before the last layer', async () => {
    const golden = await openCase('clip-text-proj-tiny');
    const model = new CLIPTextModelWithProjection(golden.config);
    await using weights = await openWeights(golden.folder);
    await loadWeights(model, clipTextWithProjectionWeights(weights));
    const { textEmbeds, hiddenStates } = model.forward(golden.get('in/input_ids'));
    const [embeds, penultimate] = await compute(referenceDevice(), [textEmbeds, hiddenStates.at(-2)!]);
    expectAgreement(embeds!, golden.get('out/text_embeds'), bound, 'text_embeds');
    expectAgreement(penultimate!, golden.get('out/penultimate'), bound, 'penultimate');
  });
});

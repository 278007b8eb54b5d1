import { valueAndGrad } from '@deftjs/autograd';
import { stateOf, withState } from '@deftjs/autograd/nn';
import { loadWeights, UNet2DConditionModel } from '@deftjs/models';
import { openWeights } from '@deftjs/models/node';
import { meanSquaredError, referenceDevice, type Tensor } from '@deftjs/tensor';
import { describe, it } from 'vitest';
import { compute, expectAgreement, openCase } from './goldenCase.ts';

/** PyTorch's float32 against exact arithmetic: tests/golden/README.md. */
const bound = 1e-4;

describe('UNet2DConditionModel', () => {
  it.each(['unet-sd15-tiny', 'unet-sdxl-tiny'])(
    '%s agrees with diffusers: output, loss, gradients',
    async (name) => {
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
      const values = await compute(referenceDevice(), Object.values(recorded));
      for (const [i, key] of Object.keys(recorded).entries())
        expectAgreement(values[i]!, golden.get(key), bound, key);
    },
  );
});

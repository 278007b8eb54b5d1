import { readFileSync } from 'node:fs';
import { valueAndGrad } from '@deftjs/autograd';
import { trainableState, withState } from '@deftjs/autograd/nn';
import { loadPeft, writePeft } from '@deftjs/deft';
import { loadWeights, UNet2DConditionModel } from '@deftjs/models';
import { openWeights, readConfigFile } from '@deftjs/models/node';
import { evaluate, meanSquaredError, numel, read, type Tensor } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { goldenPath, peftName, readCase, readJson, relativeError } from './toy.ts';

// PyTorch's float32 against exact arithmetic: tests/golden/README.md.
const tolerance = 1e-4;

beforeAll(async () => {
  const { device } = await openDevice('wasm');
  return () => device.close();
});

describe.each(['peft-unet-deft-qr', 'peft-unet-deft-relu', 'peft-unet-lora'])('%s', (folder) => {
  it('computes what PEFT computes on diffusers, and writes its file', async () => {
    const { base, trainable } = readJson(folder, 'case.json') as { base: string; trainable: number };
    const unet = new UNet2DConditionModel(await readConfigFile(goldenPath(base, 'config.json')));
    await using weights = await openWeights(goldenPath(base));
    await loadWeights(unet, weights);
    const files = {
      weights: readFileSync(goldenPath(folder, 'adapter_model.safetensors')),
      config: readFileSync(goldenPath(folder, 'adapter_config.json'), 'utf8'),
    };
    const rows = await loadPeft(unet, files, { trainable: true });
    expect(rows.reduce((sum, { parameters }) => sum + parameters, 0)).toBe(trainable);
    expect(Object.values(trainableState(unet)).reduce((sum, { shape }) => sum + numel(shape), 0)).toBe(
      trainable,
    );

    const golden = await readCase(folder);
    const input = (name: string): Tensor => golden[`in/${name}`]!;
    const loss = (parameters: Record<string, Tensor>): [Tensor, Tensor] =>
      withState(unet, parameters, () => {
        const out = unet.forward(input('sample'), input('timestep'), input('context'));
        return [meanSquaredError(out, golden.target!), out];
      });
    const { value, gradient } = valueAndGrad(loss)(trainableState(unet));
    const results: Record<string, Tensor> = { loss: value[0], out: value[1] };
    for (const [path, g] of Object.entries(gradient)) results[`grad/${peftName(path)}`] = g;
    await evaluate(Object.values(results));
    const recorded = Object.keys(golden).filter((name) => /^(out|loss|grad\/.*)$/.test(name));
    expect(Object.keys(results).sort()).toEqual(recorded.sort());
    for (const [name, x] of Object.entries(results)) {
      expect(relativeError(await read(x), await read(golden[name]!)), name).toBeLessThan(tolerance);
    }

    const written = await writePeft(unet);
    expect(Buffer.from(written.weights).equals(files.weights)).toBe(true);
    const { auto_mapping: _, ...fields } = readJson(folder, 'adapter_config.json');
    expect(JSON.parse(written.config)).toMatchObject(fields);
  });
});

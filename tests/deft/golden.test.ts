import { readFileSync } from 'node:fs';
import { valueAndGrad } from '@deftjs/autograd';
import { namedParameters, stateOf, trainableState, withState } from '@deftjs/autograd/nn';
import { loadPeft, merge, type PeftFiles, writePeft } from '@deftjs/deft';
import { type Device, meanSquaredError, read, referenceDevice, setDevice, type Tensor } from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';
import { below, type Case, goldenPath, peftName, readCase, readJson, relativeError, Toy } from './toy.ts';

const cases = ['peft-deft-qr', 'peft-deft-qr-random', 'peft-deft-relu', 'peft-para-qr', 'peft-lora'];

// float32 against float32 of another library, after two layers and a few factorisations.
const tolerance = 1e-4;

function filesOf(folder: string): PeftFiles {
  return {
    weights: readFileSync(goldenPath(folder, 'adapter_model.safetensors')),
    config: readFileSync(goldenPath(folder, 'adapter_config.json'), 'utf8'),
  };
}

describe.each(cases)('%s', (folder) => {
  let golden: Case;
  const device: Device = referenceDevice();
  beforeAll(async () => {
    setDevice(device);
    golden = await readCase(folder);
  });

  async function expectClose(actual: Tensor, name: string): Promise<void> {
    expect(relativeError(await read(actual), await read(golden[name]!)), name).toBeLessThan(tolerance);
  }

  async function adapted(): Promise<Toy> {
    const toy = new Toy(below(golden, 'base/'));
    await loadPeft(toy, filesOf(folder), { trainable: true });
    return toy;
  }

  it('computes what PEFT computes: output, loss and gradients', async () => {
    const toy = await adapted();
    const loss = (parameters: Record<string, Tensor>): [Tensor, Tensor] =>
      withState(toy, parameters, () => {
        const out = toy.forward(golden['in/x']!);
        return [meanSquaredError(out, golden.target!), out];
      });
    const { value, gradient } = valueAndGrad(loss)(trainableState(toy));
    await expectClose(value[1], 'out');
    await expectClose(value[0], 'loss');
    const names = Object.keys(gradient).map((path) => `grad/${peftName(path)}`);
    expect(names.sort()).toEqual(
      Object.keys(golden)
        .filter((name) => name.startsWith('grad/'))
        .sort(),
    );
    for (const [path, g] of Object.entries(gradient)) await expectClose(g, `grad/${peftName(path)}`);
  });

  it('merges to the weights that PEFT merges to, after 20 steps of training', async () => {
    const toy = await adapted();
    for (const [path, parameter] of namedParameters(toy)) {
      if (parameter.trainable) parameter.value = golden[`after20/${peftName(path)}`]!;
    }
    const { layers } = await merge(toy);
    expect(layers.length).toBeGreaterThan(0);
    for (const [path, value] of Object.entries(stateOf(toy))) await expectClose(value, `merged/${path}`);
  });

  it('writes the files that PEFT wrote', async () => {
    const toy = await adapted();
    const autoMapping = { baseModelClass: 'Toy', parentLibrary: '__main__' };
    const written = await writePeft(toy, { base: { nameOrPath: null, autoMapping } });
    expect(Buffer.from(written.weights).equals(filesOf(folder).weights as Buffer)).toBe(true);
    expect(JSON.parse(written.config)).toEqual(readJson(folder, 'adapter_config.json'));
  });
});

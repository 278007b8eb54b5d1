import { readFileSync } from 'node:fs';
import { valueAndGrad } from '@deftjs/autograd';
import { namedParameters, stateOf, trainableState, withState } from '@deftjs/autograd/nn';
import { type AdamState, adamW } from '@deftjs/autograd/optim';
import { loadPeft, merge, type PeftFiles, writePeft } from '@deftjs/deft';
import { compile, evaluate, item, meanSquaredError, read, type Tensor } from '@deftjs/tensor';
import { type DeviceName, openDevice } from '@deftjs/tensor/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { describeWebGPU } from '../support/webgpu.ts';
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

describe.each(['reference', 'wasm'] as const)('on %s', (name) => {
  openHere(name);
  describe.each(cases)('%s', toyCase);
});

// A software driver takes seconds to compile the kernels of a case; two cases have every kind that the others have.
describeWebGPU('on WebGPU', () => {
  openHere('webgpu');
  describe.each(['peft-deft-qr', 'peft-lora'])('%s', toyCase);
});

function openHere(name: DeviceName): void {
  beforeAll(async () => {
    const { device } = await openDevice(name);
    return () => device.close();
  });
}

function toyCase(folder: string): void {
  let golden: Case;
  beforeAll(async () => {
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
    await evaluate([...value, ...Object.values(gradient)]);
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

  it('trains as PEFT does: 20 steps of AdamW, P and the rest at their own rates', async () => {
    const toy = await adapted();
    const { lr_P, lr_other, betas, eps, weight_decay, steps } = readJson(folder, 'case.json') as {
      lr_P: number;
      lr_other: number;
      betas: [number, number];
      eps: number;
      weight_decay: number;
      steps: number;
    };
    const optimizer = adamW({
      betas,
      eps,
      weightDecay: weight_decay,
      groups: [{ match: /\.deft_P$/, learningRateFactor: lr_P / lr_other }],
    });
    const loss = valueAndGrad((parameters: Record<string, Tensor>) =>
      withState(toy, parameters, () => meanSquaredError(toy.forward(golden['in/x']!), golden.target!)),
    );
    const step = compile((parameters: Record<string, Tensor>, before: AdamState) => {
      const { value, gradient } = loss(parameters);
      return { value, ...optimizer.update(parameters, gradient, before, { learningRate: lr_other }) };
    });
    let parameters = trainableState(toy);
    for (const [path, value] of Object.entries(parameters))
      await expectClose(value, `start/${peftName(path)}`);
    let state = optimizer.init(parameters);
    const losses: number[] = [];
    for (let i = 0; i < steps; i += 1) {
      const next = await step(parameters, state);
      losses.push(await item(next.value));
      ({ parameters, state } = next);
    }
    // float32 rounding is amplified by twenty steps: tests/golden/README.md.
    expect(relativeError(losses, await read(golden.losses!))).toBeLessThan(1e-3);
    for (const [path, value] of Object.entries(parameters)) {
      const name = `after20/${peftName(path)}`;
      expect(relativeError(await read(value), await read(golden[name]!)), name).toBeLessThan(1e-3);
    }
    step.dispose();
  });
}

/** The toy model of the golden PEFT cases, and reading of case files. */
import { readFileSync } from 'node:fs';
import { Linear, loadState, Module } from '@deftjs/autograd/nn';
import { memorySource, openSafetensors, silu, type Tensor, tensor } from '@deftjs/tensor';

/** y = fc2(silu(fc1(x))) with the weights given under `base/`. */
export class Toy extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(state: Readonly<Record<string, Tensor>>) {
    super();
    const [hidden, inputs] = state['fc1.weight']!.shape as [number, number];
    this.fc1 = new Linear(inputs, hidden, { bias: 'fc1.bias' in state });
    this.fc2 = new Linear(hidden, state['fc2.weight']!.shape[0]!, { bias: 'fc2.bias' in state });
    loadState(this, state);
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(silu(this.fc1.forward(x)));
  }
}

/** The tensors of a case file by name. */
export type Case = Readonly<Record<string, Tensor>>;

export function goldenPath(...parts: string[]): string {
  return new URL(`../golden/${parts.join('/')}`, import.meta.url).pathname;
}

export async function readCase(folder: string): Promise<Case> {
  const file = await openSafetensors(
    memorySource(folder, readFileSync(goldenPath(folder, 'case.safetensors'))),
  );
  const entries = file.names.map(async (name) => {
    const { data, shape, dtype } = await file.read(name);
    return [name, tensor(data, shape, dtype)] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

export function readJson(...parts: string[]): Record<string, unknown> {
  return JSON.parse(readFileSync(goldenPath(...parts), 'utf8')) as Record<string, unknown>;
}

/** The tensors below a prefix, which is cut off their names. */
export function below(values: Case, prefix: string): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(values).flatMap(([name, x]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), x]] : [],
    ),
  );
}

/** PEFT's name of a parameter in memory for the path of ours: `fc1.adapters.default.lora_A` and so on. */
export function peftName(path: string): string {
  const [, layer, adapter, name] = /^(.+)\.adapters\.(\w+)\.(\w+)$/.exec(path)!;
  const suffix = name!.startsWith('lora_') ? '.weight' : '';
  return `base_model.model.${layer}.${name}.${adapter}${suffix}`;
}

/** max |a - b| / max |b|, the measure in which golden tolerances are stated. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < b.length; i += 1) {
    difference = Math.max(difference, Math.abs(a[i]! - b[i]!));
    size = Math.max(size, Math.abs(b[i]!));
  }
  return a.length === b.length && !Number.isNaN(difference) ? difference / size : Number.NaN;
}

/**
 * A training step with DEFT against the same step with LoRA, on a stack of transformer blocks (wasm):
 *
 *     node --import tsx --conditions=@deftjs/source benchmarks/deft-step.ts [rounds] > docs/results/deft-step.md
 *
 * Every step is one compiled program: forward, loss, gradients, AdamW. Each round takes one step of LoRA and one of each
 * projector in turn, and the ratio is taken within the round, so that what else the machine does hits both. Reported are
 * medians over rounds, and the bytes that the device holds for a program's temporaries and for weights, gradients and
 * moments (every program alone, the base subtracted).
 */
import { valueAndGrad } from '@deftjs/autograd';
import {
  initialize,
  LayerNorm,
  Linear,
  Module,
  MultiHeadAttention,
  trainableState,
  withState,
} from '@deftjs/autograd/nn';
import { adamW } from '@deftjs/autograd/optim';
import {
  attach,
  deft,
  detach,
  lora,
  type Method,
  methods,
  type ProjectorName,
  projectorOf,
  projectors,
} from '@deftjs/deft';
import {
  add,
  alias,
  compile,
  evaluate,
  gelu,
  item,
  meanSquaredError,
  randomNormal,
  type Tensor,
  treeLeaves,
  treeMap,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';

const [batch, tokens, width, heads, depth, rank] = [2, 64, 256, 4, 2, 8];
const rounds = Number(process.argv[2] ?? 40);

class Block extends Module {
  readonly norm1 = new LayerNorm(width);
  readonly attn = new MultiHeadAttention(width, width, heads);
  readonly norm2 = new LayerNorm(width);
  readonly up = new Linear(width, 4 * width);
  readonly down = new Linear(4 * width, width);

  forward(x: Tensor): Tensor {
    const h = add(x, this.attn.forward(this.norm1.forward(x)));
    return add(h, this.down.forward(gelu(this.up.forward(this.norm2.forward(h)))));
  }
}

class Stack extends Module {
  readonly blocks = Array.from({ length: depth }, () => new Block());

  forward(x: Tensor): Tensor {
    return this.blocks.reduce((h, block) => block.forward(h), x);
  }
}

const { device } = await openDevice('wasm');
const stack = new Stack();
initialize(stack, 1);
const [x, target] = [
  randomNormal([1, 1], [batch, tokens, width]),
  randomNormal([1, 2], [batch, tokens, width]),
];
await evaluate([x, target, ...treeLeaves(trainableState(stack))]);

type Weights = Record<string, Tensor>;

/** The method's step on every linear layer, ready to be taken again and again. */
async function prepared(method: Method) {
  const before = device.bytesInUse;
  await attach(stack, { method, targetModules: 'all-linear', seed: 1 });
  const optimizer = adamW({ weightDecay: 0 });
  const loss = (weights: Weights): Tensor =>
    withState(stack, weights, () => meanSquaredError(stack.forward(x), target));
  const step = compile(
    (state: { weights: Weights; optimizer: ReturnType<typeof optimizer.init> }) => {
      const { value, gradient } = valueAndGrad(loss)(state.weights);
      const next = optimizer.update(state.weights, gradient, state.optimizer, { learningRate: 1e-3 });
      return { state: { weights: next.parameters, optimizer: next.state }, value };
    },
    { donate: { 0: 'state' } },
  );
  const weights = treeMap(alias, trainableState(stack));
  let state = { weights, optimizer: optimizer.init(weights) };
  const take = async (): Promise<number> => {
    const began = performance.now();
    const taken = await step(state);
    state = taken.state;
    await item(taken.value);
    taken.value.dispose();
    return performance.now() - began;
  };
  await take();
  detach(stack);
  for (let i = 0; i < 2; i += 1) await take();
  return { take, bytes: device.bytesInUse - before };
}

const contenders: [string, Method][] = [
  ['lora', lora({ rank })],
  ...(Object.keys(projectors) as ProjectorName[]).map((projector): [string, Method] => {
    const start = projectorOf(projector, 'faithful').restorable ? 'identity' : 'random';
    return [`deft ${projector}`, deft({ rank, projector, start })];
  }),
  ['para qr', methods.para({ rank })],
];
await prepared(lora({ rank })); // uploads the base, which all share
const steps: { name: string; take: () => Promise<number>; bytes: number; times: number[] }[] = [];
for (const [name, method] of contenders) steps.push({ name, ...(await prepared(method)), times: [] });
for (let round = 0; round < rounds; round += 1) for (const one of steps) one.times.push(await one.take());

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;
const [reference] = steps;
console.log(`# A step of DEFT against one of LoRA

\`node --import tsx --conditions=@deftjs/source benchmarks/deft-step.ts > docs/results/deft-step.md\`

${depth} transformer blocks of width ${width}, ${batch} x ${tokens} tokens, rank ${rank} on all ${6 * depth} linear layers, wasm. Medians of ${rounds} interleaved rounds; the
ratio is the median of the ratios within rounds. Bytes: temporaries of the program, parameters and moments.

| method | ms | ratio to LoRA | MB | ratio |
|---|---|---|---|---|`);
for (const { name, times, bytes } of steps) {
  const ratio = median(times.map((time, i) => time / reference!.times[i]!));
  console.log(
    `| ${name} | ${median(times).toFixed(2)} | ${ratio.toFixed(2)} | ${(bytes / 2 ** 20).toFixed(2)} | ${(bytes / reference!.bytes).toFixed(2)} |`,
  );
}
await device.close();

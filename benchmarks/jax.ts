/**
 * jax-js's entries of the table. Its functions take over their arguments: what is used again is passed as `.ref`.
 */
import {
  blockUntilReady,
  defaultDevice,
  init,
  jit,
  lax,
  nn,
  numpy as np,
  tree,
  valueAndGrad,
} from '@jax-js/jax';
import type { Backend, Contender, Prepared } from './contender.ts';
import { provideNavigator, provideWebGPU } from './gpu.ts';
import { chainLength, checkedSteps, groupCount, type HostTensors, headWidth, type Row } from './rows.ts';

// biome-ignore lint/suspicious/noExplicitAny: the peer's types are not at hand (peers.d.ts)
type JaxArray = any;
type Arrays = { [name: string]: JaxArray };

function conv(x: JaxArray, w: JaxArray): JaxArray {
  return lax.conv(
    x,
    w,
    [1, 1],
    [
      [1, 1],
      [1, 1],
    ],
  );
}

function standardized(x: JaxArray, axis: number): JaxArray {
  return nn.standardize(x, axis, { epsilon: 1e-5 });
}

function groupNorm(x: JaxArray, weight: JaxArray, bias: JaxArray): JaxArray {
  const [n, c, h, w] = x.shape as [number, number, number, number];
  const groups = groupCount(c);
  const y = standardized(x.reshape([n, groups, (c / groups) * h * w]), -1).reshape([n, c, h, w]);
  return y.mul(weight.reshape([c, 1, 1])).add(bias.reshape([c, 1, 1]));
}

function attention(q: JaxArray, k: JaxArray, v: JaxArray): JaxArray {
  const scale = 1 / Math.sqrt(q.shape.at(-1));
  return np.matmul(nn.softmax(np.matmul(q.mul(scale), k.transpose([0, 1, 3, 2])), -1), v);
}

const gelu = (x: JaxArray): JaxArray => nn.gelu(x, { approximate: false });

const layerNorm = (x: JaxArray, weight: JaxArray, bias: JaxArray): JaxArray =>
  standardized(x, -1).mul(weight).add(bias);

const functions: { readonly [computes: string]: (inputs: Arrays) => JaxArray[] } = {
  matmul: ({ a, b }) => [np.matmul(a, b)],
  conv2d: ({ x, w }) => [conv(x, w)],
  softmax: ({ x }) => [nn.softmax(x, -1)],
  layerNorm: ({ x, weight, bias }) => [layerNorm(x, weight, bias)],
  groupNorm: ({ x, weight, bias }) => [groupNorm(x, weight, bias)],
  geluChain: ({ x, a, b }) => [gelu(x.ref.mul(a).add(b)).add(x)],
  sum: ({ x }) => [np.sum(x)],
  attention: ({ q, k, v }) => [attention(q, k, v)],
  attentionGradient: ({ q, k, v, g }) => {
    const weighted = (inputs: JaxArray[], weights: JaxArray): JaxArray =>
      np.sum(attention(inputs[0], inputs[1], inputs[2]).mul(weights));
    const [value, gradient] = valueAndGrad(weighted)([q, k, v], g);
    value.dispose();
    return gradient;
  },
  chain: ({ x }) => {
    let y = x;
    for (let i = 0; i < chainLength; i += 2) y = y.mul(0.99).add(0.01);
    return [y];
  },
  increment: ({ x }) => [x.add(1)],
};

const meanSquare = (y: JaxArray, target: JaxArray): JaxArray => np.mean(np.square(y.sub(target)));

const losses: { readonly [computes: string]: (p: Arrays, data: Arrays) => JaxArray } = {
  mlp: (p, { x, target }) => {
    const h1 = nn.relu(np.matmul(x, p.w1).add(p.b1));
    const h2 = nn.relu(np.matmul(h1, p.w2).add(p.b2));
    const logits = np.matmul(h2, p.w3).add(p.b3);
    return np.mean(np.sum(nn.softmax(target, -1).mul(nn.logSoftmax(logits, -1)), -1).neg());
  },
  transformer: (p, { x, target }) => {
    const [batch, length, width] = x.shape as [number, number, number];
    const heads = (y: JaxArray): JaxArray =>
      y.reshape([batch, length, width / headWidth, headWidth]).transpose([0, 2, 1, 3]);
    const y = layerNorm(x.ref, p.norm1Weight, p.norm1Bias);
    const mixed = attention(
      heads(np.matmul(y.ref, p.q)),
      heads(np.matmul(y.ref, p.k)),
      heads(np.matmul(y, p.v)),
    );
    const joined = mixed.transpose([0, 2, 1, 3]).reshape([batch, length, width]);
    const h = x.add(np.matmul(joined, p.o).add(p.oBias));
    const inner = gelu(np.matmul(layerNorm(h.ref, p.norm2Weight, p.norm2Bias), p.w1).add(p.b1));
    return meanSquare(h.add(np.matmul(inner, p.w2).add(p.b2)), target);
  },
  resBlock: (p, { x, target }) => {
    const bias = (b: JaxArray): JaxArray => b.reshape([b.shape[0], 1, 1]);
    const first = nn.silu(groupNorm(x.ref, p.norm1Weight, p.norm1Bias));
    const h = conv(first, p.conv1).add(bias(p.conv1Bias));
    const second = nn.silu(groupNorm(h, p.norm2Weight, p.norm2Bias));
    return meanSquare(x.add(conv(second, p.conv2).add(bias(p.conv2Bias))), target);
  },
};

/** Adam (Kingma and Ba 2015); `powers` are b1^t and b2^t of the steps so far. The package has no optimizer. */
function trainStep(row: Row) {
  const [b1, b2, eps, rate] = [0.9, 0.999, 1e-6, 1e-3];
  const both = valueAndGrad(losses[row.computes]!);
  return (parameters: Arrays, m: Arrays, v: Arrays, powers: JaxArray[], data: Arrays) => {
    const [loss, gradient] = both(tree.ref(parameters), data);
    const [p1, p2] = [powers[0].mul(b1), powers[1].mul(b2)];
    const next: { p: Arrays; m: Arrays; v: Arrays } = { p: {}, m: {}, v: {} };
    for (const name of Object.keys(parameters)) {
      const g = gradient[name];
      const nextM = m[name].mul(b1).add(g.ref.mul(1 - b1));
      const nextV = v[name].mul(b2).add(g.ref.mul(g).mul(1 - b2));
      const root = np.sqrt(nextV.ref.div(p2.ref.neg().add(1))).add(eps);
      next.p[name] = parameters[name].sub(nextM.ref.div(p1.ref.neg().add(1)).div(root).mul(rate));
      next.m[name] = nextM;
      next.v[name] = nextV;
    }
    return [next.p, next.m, next.v, [p1, p2], loss];
  };
}

async function hostValues(outputs: readonly JaxArray[]) {
  return Promise.all(
    outputs.map(async (y) => {
      const shape = [...y.shape];
      return { shape, values: Float32Array.from(await y.data()) };
    }),
  );
}

function prepareFunction(row: Row, inputs: Arrays): Prepared {
  const compute = functions[row.computes]!;
  const compiled = row.mode === 'compiled' ? jit(compute) : null;
  const once = (): JaxArray[] => (compiled ?? compute)(tree.ref(inputs));
  return {
    async run() {
      const outputs = once();
      if (row.mode === 'readback') {
        await outputs[0].data();
        return;
      }
      await blockUntilReady(outputs);
      tree.dispose(outputs);
    },
    outputs: () => hostValues(once()),
    dispose() {
      compiled?.dispose();
      tree.dispose(inputs);
    },
  };
}

function prepareTraining(row: Row, inputs: Arrays): Prepared {
  const part = (data: boolean): Arrays =>
    Object.fromEntries(Object.entries(inputs).filter(([name]) => (row.inputs[name]!.data ?? false) === data));
  const zeros = (like: Arrays): Arrays => tree.map((x: JaxArray) => np.zeros(x.shape), like);
  const step = jit(trainStep(row));
  const [parameters, data] = [part(false), part(true)];
  let state = [parameters, zeros(parameters), zeros(parameters), [np.array(1), np.array(1)]];
  const advance = (): JaxArray => {
    const next = step(...state, tree.ref(data));
    const loss = next.pop();
    state = next;
    return loss;
  };
  return {
    async run() {
      const loss = advance();
      await blockUntilReady([state, loss]);
      loss.dispose();
    },
    async outputs() {
      const values = new Float32Array(checkedSteps);
      for (let i = 0; i < checkedSteps; i += 1) values[i] = (await advance().data())[0];
      return [{ shape: [checkedSteps], values }];
    },
    dispose() {
      step.dispose();
      tree.dispose([state, data]);
    },
  };
}

/** jax-js on the backend. */
export async function open(backend: Backend): Promise<Contender> {
  let description = 'WebAssembly SIMD, 1 thread';
  if (backend === 'webgpu') description = await provideWebGPU();
  else provideNavigator({});
  await init();
  defaultDevice(backend);
  return {
    description,
    async prepare(row, inputs: HostTensors) {
      const arrays = Object.fromEntries(
        Object.entries(inputs).map(([name, { shape, values }]) => [
          name,
          np.array(values, { shape: [...shape] }),
        ]),
      );
      return row.mode === 'train' ? prepareTraining(row, arrays) : prepareFunction(row, arrays);
    },
  };
}

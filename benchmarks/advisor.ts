/**
 * The advisor against the full sweep, on 20 synthetic tasks whose changes are planted and known:
 *
 *     node --import tsx --conditions=@deftjs/source benchmarks/advisor.ts > docs/results/advisor.md
 *
 * A number after the script's name gives 20 other tasks, drawn by other seeds.
 *
 * A base network y = W2 silu(W1 x) and a teacher with other weights. The student learns the teacher on inputs x of one
 * kind and is to stay the base on inputs x' of another. The score is what is left to learn plus the drift, relative to
 * what the teacher changes:
 *
 *     score = (|y(x) - teacher(x)|^2 + 0.2 |y(x') - base(x')|^2) / |teacher(x) - base(x)|^2                    (1)
 */
import { orthonormalBasis } from '@deftjs/autograd/linalg';
import { Linear, Module } from '@deftjs/autograd/nn';
import {
  advise,
  type Candidate,
  type CandidateName,
  candidateMethods,
  type LayerSignals,
  probe,
  trialsOf,
} from '@deftjs/deft';
import {
  add,
  concat,
  div,
  evaluate,
  full,
  matmul,
  meanSquaredError,
  mul,
  randomNormal,
  relu,
  silu,
  sub,
  type Tensor,
  transpose,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';

const [inputs, hidden, outputs] = [20, 32, 24];
const ranks = [1, 2, 4, 8];
const [steps, probeSteps, batch, heldOut] = [96, 32, 32, 512];
const driftWeight = 0.2;
const learningRate = 0.02;
const firstSeed = Number(process.argv[2] ?? 0);

class Network extends Module {
  readonly first = new Linear(inputs, hidden, { bias: false });
  readonly second = new Linear(hidden, outputs, { bias: false });

  forward(x: Tensor): Tensor {
    return this.second.forward(silu(this.first.forward(x)));
  }
}

type Normal = (...shape: number[]) => Tensor;

/** How a weight W [m, n] is changed in k directions. */
const kinds: Readonly<Record<string, (W: Tensor, k: number, normal: Normal) => Tensor>> = {
  // W + B A
  additive: (W, k, normal) =>
    add(W, mul(matmul(normal(W.shape[0]!, k), normal(k, W.shape[1]!)), 0.2 / Math.sqrt(k))),
  // W - Q Q^T W
  removal: (W, k, normal) => {
    const Q = orthonormalBasis(normal(W.shape[0]!, k));
    return sub(W, matmul(Q, matmul(transpose(Q), W)));
  },
  // W + (Q' - Q) Q^T W: what is written in Q is written in Q' instead
  rotation: (W, k, normal) => {
    const Q = orthonormalBasis(normal(W.shape[0]!, k));
    const turned = orthonormalBasis(normal(W.shape[0]!, k));
    return add(W, matmul(sub(turned, Q), matmul(transpose(Q), W)));
  },
  // W + B A, both sparse and never negative
  nonNegative: (W, k, normal) => {
    const sparse = (x: Tensor): Tensor => relu(sub(x, 0.8));
    return add(W, mul(matmul(sparse(normal(W.shape[0]!, k)), sparse(normal(k, W.shape[1]!))), 1.5));
  },
};

const { device } = await openDevice('wasm');
const spread = (x: Tensor, own: number, other: number): Tensor =>
  mul(x, concat([full([inputs / 2], own), full([inputs / 2], other)], 0));

/** The tensors of one task: everything is a pure function of its number. */
async function planted(number: number, kind: string, k: number) {
  let stream = 0;
  const normal: Normal = (...shape) => {
    stream += 1;
    return randomNormal([firstSeed + number, stream], shape);
  };
  const base = {
    first: mul(normal(hidden, inputs), inputs ** -0.5),
    second: mul(normal(outputs, hidden), hidden ** -0.5),
  };
  await evaluate([base.first, base.second]);
  const teacher = {
    first: kinds[kind]!(base.first, k, normal),
    second: kinds[kind]!(base.second, k, normal),
  };
  await evaluate([teacher.first, teacher.second]);
  const network = ({ first, second }: typeof base, x: Tensor): Tensor =>
    matmul(silu(matmul(x, transpose(first))), transpose(second));
  const examples = async (count: number) => {
    const x = spread(normal(count, inputs), 1, 0.3);
    const example = { x, y: network(teacher, x) };
    await evaluate(Object.values(example));
    return example;
  };
  const { x, y } = await examples(heldOut);
  const other = spread(normal(heldOut, inputs), 0.3, 1);
  const judged = { x, y, other, kept: network(base, other), change: meanSquaredError(y, network(base, x)) };
  await evaluate(Object.values(judged));
  const batches = [];
  for (let step = 0; step < steps; step += 1) batches.push(await examples(batch));
  return { base, judged, batches };
}

const student = new Network();
let current = await planted(0, 'additive', 1);
const task = {
  module: student,
  targetModules: 'all-linear',
  data: (step: number) => current.batches[step]!,
  loss: ({ x, y }: { x: Tensor; y: Tensor }) => meanSquaredError(student.forward(x), y),
  get heldOut() {
    return current.judged;
  },
  score: ({ x, y, other, kept, change }: (typeof current)['judged']) =>
    div(
      add(
        meanSquaredError(student.forward(x), y),
        mul(meanSquaredError(student.forward(other), kept), driftWeight),
      ),
      change,
    ),
  learningRate,
  seed: 1,
  device,
};
const trials = trialsOf(task);
const called = ({ name, rank }: Candidate): string => `${name} ${rank}`;
const sweep = (Object.keys(candidateMethods) as CandidateName[]).flatMap((name) =>
  ranks.map((rank) => ({ name, rank })),
);

console.log(`# The advisor against the full sweep

\`node --import tsx --conditions=@deftjs/source benchmarks/advisor.ts${firstSeed === 0 ? ' > docs/results/advisor.md' : ` ${firstSeed}`}\`

${sweep.length} candidates of ${steps} steps for each of 20 tasks; the advisor takes ${probeSteps} probe steps and may take 25 % of the
sweep's in all. Score: equation (1) of the script, error plus ${driftWeight} drift relative to what the teacher changes (an untrained
student has 1). "within 5 %" counts the candidates of the sweep that would have done.

| change | rank | best of the sweep | score | advised | score | over the best | steps | within 5 % |
|---|---|---|---|---|---|---|---|---|`);

const shares: number[] = [];
const excess = new Map<string, number[]>(sweep.map((candidate) => [called(candidate), []]));
const advised: number[] = [];
const blind: number[] = [];
/** Signals that leave nothing out. */
const silent = (signals: readonly LayerSignals[]) =>
  signals.map((layer) => ({ ...layer, rank: 0, askedRemoval: 1 }));
let explained: readonly string[] = [];
let number = 0;
for (const kind of Object.keys(kinds)) {
  for (const k of [1, 2, 3, 4, 6]) {
    number += 1;
    current = await planted(number, kind, k);
    student.first.weight.value = current.base.first;
    student.second.weight.value = current.base.second;
    const signals = await probe(task, probeSteps);
    const advice = await advise({ signals, probeSteps, ranks, steps, start: trials.start });
    const unsignalled = await advise({
      signals: silent(signals),
      probeSteps: 0,
      ranks,
      steps,
      start: trials.start,
    });
    const scores = new Map<string, number>();
    for (const candidate of sweep) {
      const trial = await trials.start(candidate);
      scores.set(called(candidate), await trial.advance(steps));
      trial.end();
    }
    const best = sweep.reduce((a, b) => (scores.get(called(b))! < scores.get(called(a))! ? b : a));
    const least = scores.get(called(best))!;
    const over = (candidate: Candidate): number => scores.get(called(candidate))! / least - 1;
    for (const candidate of sweep) excess.get(called(candidate))!.push(over(candidate));
    const own = over(advice.best);
    advised.push(own);
    blind.push(over(unsignalled.best));
    shares.push(advice.steps / advice.sweepSteps);
    if (number === 1) explained = advice.reasons;
    const good = sweep.filter((candidate) => over(candidate) <= 0.05).length;
    console.log(
      `| ${kind} | ${k} | ${called(best)} | ${least.toFixed(4)} | ${called(advice.best)} | ${scores.get(called(advice.best))!.toFixed(4)} | ` +
        `${(100 * own).toFixed(1)} % | ${(100 * shares.at(-1)!).toFixed(1)} % | ${good} of ${sweep.length} |`,
    );
  }
}
const within = (all: readonly number[]): number => all.filter((over) => over <= 0.05).length;
const [fixed, fixedExcess] = [...excess].reduce((a, b) => (within(b[1]) > within(a[1]) ? b : a));
console.log(`
- The advisor's choice is within 5 % of the best score on ${within(advised)} of ${number} tasks (target 16), at most ${(100 * Math.max(...shares)).toFixed(1)} % of the
  sweep's steps taken (target 25 %); ${advised.filter((over) => over === 0).length} times it is the best itself, and at worst ${(100 * Math.max(...advised)).toFixed(1)} % over it.
- Halving alone, with no probe and no signals, is within 5 % on ${within(blind)} tasks.
- The best fixed choice, known only after all sweeps, is ${fixed}: within 5 % on ${within(fixedExcess)} tasks. A candidate taken at random
  is within 5 % on ${([...excess.values()].reduce((sum, all) => sum + within(all), 0) / sweep.length).toFixed(1)} tasks on average.

What it prints for the first task:

\`\`\`
${explained.join('\n')}
\`\`\``);
trials[Symbol.dispose]();
await device.close();

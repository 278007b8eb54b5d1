/**
 * Which projector and which rank: signals of the mean gradient choose where to look, successive halving decides.
 *
 * The paper leaves the choice open and its sources contradict each other on the best. Here it costs a quarter of a full
 * sweep: a few gradients at the base weights, then short trainings of which the better half goes on.
 */
import { deft } from '../parametrizations/deft.ts';
import { type Method, methods } from '../parametrizations/index.ts';
import { lora } from '../parametrizations/lora.ts';
import { costOf, halve, type Outcome, rungsWithin, type Trial } from './halving.ts';
import { heldEnergy, type LayerSignals } from './signals.ts';

/** What is compared, each as a method of a rank: DEFT by its projectors, with identity starts, and its two rivals. */
export const candidateMethods = {
  none: (rank) => deft({ rank, projector: 'none' }),
  relu: (rank) => deft({ rank, projector: 'relu' }),
  qr: (rank) => deft({ rank, projector: 'qr' }),
  polar: (rank) => deft({ rank, projector: 'polar' }),
  tsvd: (rank) => deft({ rank, projector: 'tsvd' }),
  eigen: (rank) => deft({ rank, projector: 'eigen' }),
  nmf: (rank) => deft({ rank, projector: 'nmf' }),
  lora: (rank) => lora({ rank }),
  para: (rank) => methods.para({ rank }),
} as const satisfies Readonly<Record<string, (rank: number) => Method>>;

export type CandidateName = keyof typeof candidateMethods;

/** A way to train: the method of the name at the rank. */
export interface Candidate {
  readonly name: CandidateName;
  readonly rank: number;
}

export interface AdviseOptions {
  /** Of every targeted layer. */
  readonly signals: readonly LayerSignals[];
  /** Steps that the signals cost. */
  readonly probeSteps: number;
  /** Ranks that may be advised, each >= 1. */
  readonly ranks: readonly number[];
  /** Steps of a whole training. */
  readonly steps: number;
  /** Share of the steps of a full sweep, probe included, that may be taken; default 0.25. */
  readonly share?: number;
  /** Begins to train a candidate. */
  readonly start: (candidate: Candidate) => Promise<Trial>;
}

export interface Advice {
  readonly best: Candidate;
  /** Every candidate that was trained, best first. */
  readonly ranking: readonly Outcome<Candidate>[];
  /** Steps that were taken, probe included, and those of training every method at every rank. */
  readonly steps: number;
  readonly sweepSteps: number;
  /** Sentences to print: what the signals say of each layer, what was left out and why, how the best was found. */
  readonly reasons: readonly string[];
}

/** Removal alone is left out where less of the gradient than this asks for it. */
const leastAskedRemoval = 0.1;

/**
 * The candidate to train with.
 * @throws RangeError when there are no signals or ranks, or the share of the sweep's steps is too small for a choice
 */
export async function advise(options: AdviseOptions): Promise<Advice> {
  const { signals, ranks, steps, probeSteps, share = 0.25, start } = options;
  if (signals.length === 0 || ranks.length === 0) {
    throw new RangeError(
      `advise: expected signals and ranks; got ${signals.length} layers and ${ranks.length} ranks`,
    );
  }
  const names = Object.keys(candidateMethods) as CandidateName[];
  const sweepSteps = names.length * ranks.length * steps;
  const { candidates, reasons } = candidatesFor(signals, ranks);
  const rungs = rungsWithin(share * sweepSteps - probeSteps, candidates.length, steps);
  const ranking = await halve(candidates, rungs, start);
  const [best, second] = ranking;
  const taken = probeSteps + costOf(rungs);
  const found = [
    `${candidates.length} candidates in rungs of ${rungs.map((rung) => `${rung.candidates} x ${rung.steps} steps`).join(', ')}`,
    `${called(best!.candidate)} is best: score ${best!.score.toPrecision(4)}${second ? `, then ${called(second.candidate)} with ${second.score.toPrecision(4)} after ${second.steps} steps` : ''}`,
    `${taken} steps taken of the ${sweepSteps} of a full sweep: ${((100 * taken) / sweepSteps).toFixed(1)} %`,
  ];
  return { best: best!.candidate, ranking, steps: taken, sweepSteps, reasons: [...reasons, ...found] };
}

/** The candidates that the signals leave, with the reasons. */
function candidatesFor(
  signals: readonly LayerSignals[],
  ranks: readonly number[],
): { readonly candidates: Candidate[]; readonly reasons: string[] } {
  const whole = signals.reduce((sum, { gradientNorm }) => sum + gradientNorm ** 2, 0);
  const weighted = (of: (layer: LayerSignals) => number): number =>
    signals.reduce((sum, layer) => sum + (whole === 0 ? 0 : layer.gradientNorm ** 2 / whole) * of(layer), 0);
  const widest = Math.max(...signals.map(({ rank }) => rank));
  const asked = weighted(({ askedRemoval }) => askedRemoval);
  const kept = ranksFrom(
    ranks,
    weighted(({ rank }) => rank),
  );
  const names = (Object.keys(candidateMethods) as CandidateName[]).filter(
    (name) => name !== 'para' || asked >= leastAskedRemoval,
  );
  const reasons = signals.map(sentence);
  const dropped = ranks.filter((rank) => !kept.includes(rank));
  if (dropped.length > 0) {
    reasons.push(
      `ranks ${dropped.join(', ')} are left out: the gradients need up to ${widest} directions, ${weighted(({ rank }) => rank).toFixed(1)} on average by energy`,
    );
  }
  if (!names.includes('para')) {
    reasons.push(
      `para is left out: descent does not shrink what the weights write (asked removal ${asked.toFixed(2)})`,
    );
  }
  return { candidates: kept.flatMap((rank) => names.map((name) => ({ name, rank }))), reasons };
}

/** The ranks from half of the directions that the gradients need on; the largest where all are smaller. */
function ranksFrom(ranks: readonly number[], needed: number): number[] {
  const large = ranks.filter((rank) => rank >= needed / 2);
  return large.length > 0 ? large : [Math.max(...ranks)];
}

function sentence(layer: LayerSignals): string {
  const { path, rank, removal, askedRemoval, sparsity, growing, anglesToWeight } = layer;
  if (rank === 0) return `${path}: no gradient`;
  const angle = anglesToWeight.reduce((sum, a) => sum + Math.cos(a) ** 2, 0) / rank;
  return (
    `${path}: ${rank} directions hold ${100 * heldEnergy} % of the mean gradient; they share ${percent(angle)} of the weight's ` +
    `top directions and hold ${percent(removal)} of the weight, of which ${askedRemoval >= leastAskedRemoval ? 'descent removes some' : 'descent removes nothing'} ` +
    `(${askedRemoval.toFixed(2)}); sparsity ${sparsity.toFixed(2)}, ${percent(growing)} of it grows entries`
  );
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

function called({ name, rank }: Candidate): string {
  return `${name} at rank ${rank}`;
}

/** Several adapters as one: joined, drawn with and measured like a run that was trained on everything at once. */
import { join } from 'node:path';
import { combineAdapters } from '@deftjs/deft';
import { loadPeftFolder } from '@deftjs/deft/node';
import type { Device } from '@deftjs/tensor';
import { drawPrompts } from '../base/draw.ts';
import { openBaseOf } from '../base/trained.ts';
import { castOfNames, driftOf, evaluateSamples } from '../metrics/index.ts';
import { gridPng } from '../report/index.ts';
import { makeFolder, writeFileAtomically } from '../runs/index.ts';
import { type Toy, toyName } from '../world/index.ts';
import { type CellMetrics, conceptPrompts, type MergedCell, measuredBy } from './cells.ts';

/** Joins the adapters of the cell's parts, draws, measures, and writes metrics.json and samples.png. @throws {UserError} */
export async function measureMerged(cell: MergedCell, device: Device): Promise<void> {
  const { parts, kind, folder } = cell;
  const { config } = parts[0]!;
  const toys = parts.map(({ topic }) => topic as Toy);
  const model = await openBaseOf(config);
  const draw = (prompts: readonly string[]) => {
    const { seeds, steps, guidance_scale: guidanceScale } = config.sampling;
    return prompts.length === 0 ? [] : drawPrompts(model, { prompts, seeds, steps, guidanceScale, device });
  };
  const prompts = conceptPrompts(toys);
  const others = config.sampling.other_prompts;
  const [before, othersBefore] = [await draw(prompts), await draw(others)];
  for (const { folder: run, topic } of parts) {
    await loadPeftFolder(join(run, 'adapter'), model.denoiser, { adapterName: topic, device });
  }
  if (parts.length > 1) {
    const weights = Object.fromEntries(toys.map((toy) => [toy, 1]));
    await combineAdapters(model.denoiser, { kind, weights, adapterName: 'merged', device });
  }
  const after = await draw(prompts);
  const drift = driftOf(othersBefore, await draw(others));
  const cast = castOfNames(Object.fromEntries(toys.map((toy) => [toyName(toy), toy])));
  const metrics = parts.map((part) => measuredBy(part)!);
  const sum = (of: (part: CellMetrics) => number): number =>
    metrics.reduce((total, part) => total + of(part), 0);
  makeFolder(folder);
  const side = before.flatMap(({ pictures }, i) => [pictures[0]!, after[i]!.pictures[0]!]);
  writeFileAtomically(join(folder, 'samples.png'), await gridPng(side, { columns: 2, rowLabels: prompts }));
  const results = {
    format: 1,
    merge: kind,
    runs: parts.map(({ folder: run }) => run),
    evaluation: { ...evaluateSamples(before, after, cast), drift },
    training: { seconds: sum(({ training }) => training.seconds) },
    targets: { trained: sum(({ targets }) => targets.trained) },
  };
  writeFileAtomically(join(folder, 'metrics.json'), `${JSON.stringify(results, null, 2)}\n`);
}

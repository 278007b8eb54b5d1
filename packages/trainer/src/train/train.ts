/** `deft train`, from a configuration to a run folder with adapter, pictures, numbers and a report. */
import { performance } from 'node:perf_hooks';
import { loadState, namedParameters } from '@deftjs/autograd/nn';
import { diagnose, type LayerDiagnostics } from '@deftjs/deft';
import { type Device, numel, scope } from '@deftjs/tensor';
import { drawPrompts, withWeights } from '../base/draw.ts';
import type { TextToImage } from '../base/textToImage.ts';
import { type TrainedFiles, writeTrained } from '../base/trained.ts';
import { methodNames, type TrainConfig, writeConfig } from '../config/index.ts';
import type { ImageFolder } from '../data/index.ts';
import { castOf, type Drift, driftOf, evaluateSamples, type PromptSamples } from '../metrics/index.ts';
import { beat } from '../progress/index.ts';
import {
  chartPng,
  curveChart,
  framed,
  gridPng,
  layersTable,
  lossChart,
  type ReportData,
  renderMetrics,
  renderPage,
  renderReport,
} from '../report/index.ts';
import { type Run, readStepLog } from '../runs/index.ts';
import { fromPlanes, subjectWords } from '../world/index.ts';
import { settingsInWords, type TrainedPart } from './method.ts';
import { keptByName, type PackedState, unpacked } from './packed.ts';
import { faultOf, learnt, packingOf } from './personalize.ts';
import { checkFits, planLines } from './plan.ts';
import { prepare } from './prepare.ts';
import { withSheetRecipe } from './sheetRecipe.ts';
import { addStepSamples, stepsSheet } from './stepSamples.ts';
import { type Finished, runSteps } from './steps.ts';

/** Prints what a job would do and need, having compiled its step and trained nothing. @throws {UserError} as {@link train} */
export async function plan(config: TrainConfig): Promise<void> {
  const prepared = await prepare(config);
  console.log(planLines(prepared.plan).join('\n'));
  checkFits(prepared.plan);
}

/**
 * Trains as configured and leaves in the run's folder: checkpoints, the files of base/trained.ts, samples.png and
 * samples/, pictures.png, loss.png, metrics.json, layers.json, report.md and report.html. Returns early, with a
 * checkpoint and without a report, when aborted.
 * @throws {UserError}
 */
export async function train(config: TrainConfig, open: () => Run, signal: AbortSignal): Promise<void> {
  const { seeds, steps, guidance_scale: guidanceScale } = config.sampling;
  let before: readonly PromptSamples[] = [];
  let othersBefore: readonly PromptSamples[] = [];
  const drawOthers = (model: TextToImage, device: Device) => {
    const options = { prompts: config.sampling.other_prompts, seeds, steps, guidanceScale, device };
    return options.prompts.length === 0 ? [] : drawPrompts(model, options);
  };
  const prepared = await prepare(config, async (model, drawn, device) => {
    before = await drawPrompts(model, { ...drawn, seeds, steps, guidanceScale, device });
    othersBefore = await drawOthers(model, device);
  });
  const { model, data, seen, drawn, device, trained, first, step } = prepared;
  for (const line of planLines(prepared.plan)) console.error(`deft: ${line}`);
  checkFits(prepared.plan);
  const drawSamples = (of: readonly number[]) =>
    drawPrompts(model, { ...drawn, seeds: of, steps, guidanceScale, device });
  using run = open();
  const sampleEvery = config.sample_every ?? config.steps;
  const isSampled = (done: number): boolean => done % sampleEvery === 0 && done < config.steps;
  if (config.sample_every !== null) await addStepSamples(run, config, 0, before, sampleEvery);
  const began = performance.now();
  const packed = packingOf(model, config);
  const finished = await runSteps({
    label: `train ${config.name}`,
    run,
    total: config.steps,
    checkpointEvery: config.checkpoint_every,
    keepCheckpoints: config.keep_checkpoints,
    first,
    kept: keptByName(packed, device),
    step: step.take,
    fault: (state, at) => faultOf(model, config, seen, state, at, device),
    after: async (state, done) => {
      if (!isSampled(done)) return;
      beat('other');
      const samples = await scope(async () => {
        const weights = await unpacked(packed, learnt(state), device);
        return withWeights(model, weights, () => drawSamples(seeds.slice(0, 1)));
      });
      await addStepSamples(run, config, done, samples, sampleEvery);
    },
    stop: () => signal.aborted,
  });
  const seconds = (performance.now() - began) / 1000;
  if (signal.aborted && finished.done < config.steps) return;
  loadState(model, await unpacked(packed, learnt(finished.state), device), true);
  const after = await drawSamples(seeds);
  if (config.sample_every !== null) await addStepSamples(run, config, finished.done, after, sampleEvery);
  const drift = driftOf(othersBefore, await drawOthers(model, device));
  await writeResults({ config, model, device, data, trained, before, after, drift, finished, seconds, run });
}

interface Results {
  readonly config: TrainConfig;
  readonly model: TextToImage;
  readonly device: Device;
  readonly data: ImageFolder;
  readonly trained: TrainedPart;
  readonly before: readonly PromptSamples[];
  readonly after: readonly PromptSamples[];
  readonly drift: Drift | null;
  readonly finished: Finished<PackedState>;
  readonly seconds: number;
  readonly run: Run;
}

async function writeResults(results: Results): Promise<void> {
  const { config, model, data, before, after, finished, run } = results;
  let bytes = 0;
  const written = await writeTrained(
    (name, contents) => {
      run.write(name, contents);
      if (typeof contents !== 'string') bytes += contents.length;
    },
    model,
    config,
  );

  const seeds = config.sampling.seeds.length;
  const side = before.flatMap((row, i) => [...row.pictures, ...after[i]!.pictures]);
  const comparison = await gridPng(side, {
    columns: 2 * seeds,
    headings: [
      { text: 'base', columns: seeds },
      { text: `with ${methodNames[config.method]}`, columns: seeds },
    ],
    rowLabels: before.map(({ prompt }) => prompt),
  });
  const size = model.pictureSize;
  const shown = data.pictures.map(({ pixels, bucket }) =>
    fromPlanes(pixels, bucket?.width ?? size, bucket?.height ?? size),
  );
  const pictures = await gridPng(framed(shown), {
    columns: Math.min(5, data.pictures.length),
    labels: data.pictures.map(({ caption }) => caption),
  });
  const points = finished.losses.map((loss, i) => ({ step: i + 1, loss }));
  const recipe = {
    trainedSteps: [0, finished.done],
    prompts: before.map(({ prompt }) => prompt),
    seeds: config.sampling.seeds,
  };
  run.write('samples.png', withSheetRecipe(comparison, config, recipe));
  run.write('pictures.png', pictures);
  run.write('loss.png', await chartPng(await lossChart(points, config.name)));
  const report = reportOf(results, written, bytes);
  run.write('metrics.json', renderMetrics(report));
  const markdown = renderReport(report);
  run.write('report.md', markdown);
  const layers = await diagnostics(results);
  if (layers.length > 0) run.write('layers.json', `${JSON.stringify(layers, null, 2)}\n`);
  const steps = report.files.steps === null ? [] : ([[stepsSheet, run.read(stepsSheet)!]] as const);
  const page = renderPage({
    name: config.name,
    markdown,
    pictures: new Map([['samples.png', comparison], ['pictures.png', pictures], ...steps]),
    charts: new Map([['loss.png', await curves(run)]]),
    layers: layers.length > 0 ? layersTable(layers) : null,
    config: writeConfig(config),
  });
  console.error(`deft: ${run.write('report.html', page)}`);
}

/**
 * What the adapters do to their layers; none of methods without a rank: their changes are whole weights, each of which
 * would have to be decomposed.
 */
async function diagnostics({ config, model, device }: Results): Promise<LayerDiagnostics[]> {
  return 'rank' in config ? diagnose(model, undefined, device) : [];
}

/** Drawings of everything that was logged. */
function curves(run: Run): Promise<string[]> {
  const lines = readStepLog(run);
  const names = Object.keys(lines[0]?.values ?? {});
  const drawings = names.map((name) =>
    curveChart(
      lines.map(({ step, values }) => ({ step, value: values[name]! })),
      { title: name.replaceAll('_', ' '), smooth: name !== 'learning_rate', height: 260, dots: 600 },
    ),
  );
  return Promise.all(drawings);
}

/** The mean of up to `count` losses from either end. */
function meanLoss(losses: readonly number[], from: 'start' | 'end', count = 20): number {
  const part = from === 'start' ? losses.slice(0, count) : losses.slice(-count);
  return part.reduce((sum, loss) => sum + loss, 0) / part.length;
}

function reportOf(results: Results, written: TrainedFiles, adapterBytes: number): ReportData {
  const { config, model, device, data, trained, before, after, drift, finished, seconds, run } = results;
  const parameters = [...namedParameters(model).values()];
  const total = parameters.reduce((sum, { shape }) => sum + numel(shape), 0);
  const named = new RegExp(`\\b(${subjectWords.join('|')}) \\w+`).exec(data.pictures[0]!.caption);
  return {
    name: config.name,
    subjectWords: named?.[0] ?? null,
    base: config.base.split('/').at(-1)!,
    method: methodNames[config.method],
    settings: settingsInWords(config),
    targets: { layers: trained.layers, trained: trained.parameters, total },
    training: {
      pictures: data.pictures.length,
      captions: data.captionSource,
      steps: finished.done,
      batchSize: config.batch_size,
      learningRate: config.learning_rate,
      pLearningRateRatio: config.method === 'deft' ? config.p_learning_rate_ratio : null,
      seed: config.seed,
      seconds,
      device: `${device.kind}, ${device.description}`,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
    },
    loss: { first: meanLoss(finished.losses, 'start'), last: meanLoss(finished.losses, 'end') },
    evaluation: { ...evaluateSamples(before, after, castOf(config), config.style), drift },
    sampling: {
      steps: config.sampling.steps,
      guidanceScale: config.sampling.guidance_scale,
      seeds: config.sampling.seeds,
    },
    files: {
      trainingPictures: 'pictures.png',
      comparison: 'samples.png',
      steps: config.sample_every === null ? null : stepsSheet,
      lossCurve: 'loss.png',
      adapter: written.main,
      adapterFormat: written.format,
      adapterBytes,
      config: 'config.yaml',
      metrics: 'metrics.json',
    },
    commands: [
      {
        does: 'Draw with it',
        command: `npm run deft -- sample ${run.folder} --prompt "${before[0]!.prompt}"`,
      },
    ],
  };
}

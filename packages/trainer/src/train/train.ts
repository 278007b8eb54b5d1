/** `deft train`, from a configuration to a run folder with adapter, pictures, numbers and a report. */
import { performance } from 'node:perf_hooks';
import { loadState, namedParameters } from '@deftjs/autograd/nn';
import { diagnose, type LayerDiagnostics } from '@deftjs/deft';
import { type Device, numel } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { drawPrompts, withWeights } from '../base/draw.ts';
import { loadBase } from '../base/folder.ts';
import type { TextToImage } from '../base/textToImage.ts';
import { type TrainedFiles, teachWordOf, writeTrained } from '../base/trained.ts';
import { methodNames, type TrainConfig, writeConfig } from '../config/index.ts';
import { type ImageFolder, readTrainingData } from '../data/index.ts';
import { type Drift, driftOf, evaluateSamples, type PromptSamples } from '../metrics/index.ts';
import { beat } from '../progress/index.ts';
import {
  chartPng,
  curveChart,
  gridPng,
  layersTable,
  lossChart,
  type ReportData,
  renderMetrics,
  renderPage,
  renderReport,
} from '../report/index.ts';
import { type Run, readStepLog } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { fromPlanes, type Picture, subjectWords } from '../world/index.ts';
import { encodeCaptions, encodePictures } from './encoded.ts';
import { halveFrozen, recomputeBlocks } from './memory.ts';
import { applyMethod, settingsInWords, type TrainedPart, trainsText } from './method.ts';
import { faultOf, firstState, learnt, type StepData, type TrainState, trainStep } from './personalize.ts';
import { checkBaseFits, checkFits, type Plan, planLines, planTraining } from './plan.ts';
import { checkPrior, priorPictures } from './priorPictures.ts';
import { addStepSamples, stepsSheet } from './stepSamples.ts';
import { type Finished, runSteps } from './steps.ts';

/** What is drawn before and after. */
interface Drawn {
  readonly prompts: readonly string[];
  /** The picture that each prompt names; absent where they name none. */
  readonly inputs?: readonly Picture[];
}

/** Pictures whose captions are drawn where no prompts are configured and each comes with a picture. */
const mostInputs = 8;

/** The prompts to draw: those configured, or those of a folder, else the captions of the pictures. */
async function drawnOf(
  model: TextToImage,
  { sampling }: TrainConfig,
  data: ImageFolder,
  read: (folder: string) => Promise<ImageFolder>,
): Promise<Drawn> {
  const configured = { prompts: sampling.prompts ?? [], other_prompts: sampling.other_prompts };
  for (const [key, list] of Object.entries(configured)) {
    for (const prompt of list) {
      const problem = model.captionProblem(prompt);
      if (problem) throw new UserError(`sampling.${key}: "${prompt}": ${problem}`, 2);
    }
  }
  if (sampling.prompts) return { prompts: sampling.prompts };
  const { pictures } = sampling.folder ? await read(sampling.folder) : data;
  const prompts = pictures.map(({ caption }) => caption);
  const inputs = pictures.flatMap(({ input }) => (input ? [toPicture(model, input)] : []));
  if (inputs.length === 0) return { prompts: [...new Set(prompts)] };
  const most = sampling.folder ? pictures.length : mostInputs;
  return { prompts: prompts.slice(0, most), inputs: inputs.slice(0, most) };
}

function toPicture({ pictureSize: size }: TextToImage, planes: Float32Array): Picture {
  return fromPlanes(planes, size, size);
}

/** A job whose input has been found right: the adapted model, and everything that its steps take. */
interface Prepared {
  readonly model: TextToImage;
  readonly data: ImageFolder;
  readonly seen: StepData;
  readonly drawn: Drawn;
  readonly device: Device;
  readonly trained: TrainedPart;
  readonly first: TrainState;
  readonly step: ReturnType<typeof trainStep>;
  readonly plan: Plan;
}

/**
 * Everything before the first step: what can be wrong with the input is found here, before the run's folder is touched.
 * @param untrained called with the model as the base is, before the method is applied
 * @throws {UserError}
 */
async function prepare(
  config: TrainConfig,
  untrained: (model: TextToImage, drawn: Drawn, device: Device) => Promise<void>,
): Promise<Prepared> {
  const freeBytes = process.availableMemory();
  checkBaseFits(config.base, freeBytes);
  const model = await loadBase(config.base);
  model.resize(config.data.resolution);
  if ('text_encoder' in config && config.text_encoder !== null && model.textEncoders.length === 0) {
    throw new UserError('text_encoder: the base has no text encoder that can be trained', 2);
  }
  await teachWordOf(model, config);
  const read = (folder: string) =>
    readTrainingData(folder, {
      size: model.pictureSize,
      instancePrompt: config.data.instance_prompt,
      triggerWord: config.data.trigger_word,
      captionProblem: (caption, hasInput) => model.captionProblem(caption, hasInput),
    });
  const data = await read(config.data.folder);
  for (const { path, reason } of data.passedOver) console.error(`deft: ${path} is passed over: ${reason}`);
  const drawn = await drawnOf(model, config, data, read);
  checkPrior(model, config);
  const { device, why } = await openDevice(config.device);
  console.error(`deft: ${why}`);
  await untrained(model, drawn, device);
  const prior = await priorPictures(model, config, device);
  const trained = await applyMethod(model, config, device).catch((error: Error) => {
    throw new UserError(error.message, 2);
  });
  if (config.precision === 'f16') await halveFrozen(model, device);
  if (config.recompute) recomputeBlocks(model.denoiser);
  const first = firstState(model, config);
  const pictures = data.epoch;
  const { flip, shuffle_captions: shuffles, cache } = config.data;
  const captions = [...pictures, ...prior].map(({ caption }) => caption);
  const encodesOnce = model.vae !== null && !trainsText(model) && !shuffles;
  const seen: StepData = {
    pictures: await encodePictures(model, pictures, { flip: flip > 0, device, cache }),
    prior: await encodePictures(model, prior, { flip: false, device, cache }),
    contexts: encodesOnce ? await encodeCaptions(model, captions, { device, cache }) : null,
  };
  const step = trainStep(model, config, seen, device);
  const plan = await planTraining({
    config,
    model,
    data,
    prompts: drawn.prompts,
    seen,
    trained,
    first,
    step,
    device,
    freeBytes,
  });
  return { model, data, seen, drawn, device, trained, first, step, plan };
}

/** Prints what a job would do and need, having compiled its step and trained nothing. @throws {UserError} as {@link train} */
export async function plan(config: TrainConfig): Promise<void> {
  const prepared = await prepare(config, async () => {});
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
  if (config.sample_every !== null) await addStepSamples(run, 0, before, sampleEvery);
  const began = performance.now();
  const finished = await runSteps<TrainState>({
    label: `train ${config.name}`,
    run,
    total: config.steps,
    checkpointEvery: config.checkpoint_every,
    keepCheckpoints: config.keep_checkpoints,
    first,
    step: step.take,
    fault: (state, at) => faultOf(model, config, seen, state, at, device),
    after: async (state, done) => {
      if (!isSampled(done)) return;
      beat('other');
      const samples = await withWeights(model, learnt(state), () => drawSamples(seeds.slice(0, 1)));
      await addStepSamples(run, done, samples, sampleEvery);
    },
    stop: () => signal.aborted,
  });
  const seconds = (performance.now() - began) / 1000;
  if (signal.aborted && finished.done < config.steps) return;
  loadState(model, learnt(finished.state), true);
  const after = await drawSamples(seeds);
  if (config.sample_every !== null) await addStepSamples(run, finished.done, after, sampleEvery);
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
  readonly finished: Finished<TrainState>;
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
  const pictures = await gridPng(
    data.pictures.map(({ pixels }) => fromPlanes(pixels, size, size)),
    { columns: Math.min(5, data.pictures.length), labels: data.pictures.map(({ caption }) => caption) },
  );
  const points = finished.losses.map((loss, i) => ({ step: i + 1, loss }));
  run.write('samples.png', comparison);
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
    evaluation: { ...evaluateSamples(before, after, config.subject), drift },
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

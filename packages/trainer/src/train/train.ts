/** `deft train`, from a configuration to a run folder with adapter, pictures, numbers and a report. */
import { performance } from 'node:perf_hooks';
import { loadState, namedParameters } from '@deftjs/autograd/nn';
import { type AdaptedRow, writePeft } from '@deftjs/deft';
import { type Device, numel } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { drawPrompts } from '../base/draw.ts';
import { loadBase } from '../base/folder.ts';
import { promptProblem } from '../base/prompt.ts';
import type { TextToImage } from '../base/textToImage.ts';
import { modelName, type TrainConfig } from '../config/index.ts';
import { type ImageFolder, readImageFolder } from '../data/index.ts';
import { evaluateSamples, type PromptSamples } from '../metrics/index.ts';
import {
  chartPng,
  gridPng,
  lossChart,
  type ReportData,
  renderMetrics,
  renderReport,
} from '../report/index.ts';
import type { Run } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { fromPlanes, subjectWords } from '../world/index.ts';
import {
  type AdapterState,
  adapterStep,
  attachMethod,
  firstAdapterState,
  priorPictures,
} from './personalize.ts';
import { type Finished, runSteps } from './steps.ts';

/** The prompts to draw: those configured, else the captions of the pictures. */
function promptsOf(config: TrainConfig, data: ImageFolder): readonly string[] {
  const prompts = config.sampling.prompts ?? [...new Set(data.pictures.map(({ caption }) => caption))];
  for (const prompt of prompts) {
    const problem = promptProblem(prompt);
    if (problem) throw new UserError(`sampling.prompts: "${prompt}": ${problem}`, 2);
  }
  return prompts;
}

/**
 * Trains as configured and leaves in the run's folder: checkpoints, adapter/ (PEFT's files), samples.png, pictures.png,
 * loss.png, metrics.json and report.md. Returns early, with a checkpoint and without a report, when aborted.
 * @throws {UserError}
 */
export async function train(config: TrainConfig, open: () => Run, signal: AbortSignal): Promise<void> {
  // Everything that can be wrong with the input is found before the run's folder is touched.
  const model = await loadBase(config.base);
  const data = await readImageFolder(config.data.folder, {
    size: model.pictureSize,
    instancePrompt: config.data.instance_prompt,
    captionProblem: promptProblem,
  });
  for (const { path, reason } of data.passedOver) console.error(`deft: ${path} is passed over: ${reason}`);
  const prompts = promptsOf(config, data);
  const { device, why } = await openDevice(config.device);
  console.error(`deft: ${why}`);
  const { seeds, steps, guidance_scale: guidanceScale } = config.sampling;
  const drawSamples = () => drawPrompts(model, { prompts, seeds, steps, guidanceScale, device });

  const before = await drawSamples();
  const prior = await priorPictures(model, config, device);
  const rows = await attachMethod(model, config, device).catch((error: Error) => {
    throw new UserError(error.message, 2);
  });
  using run = open();
  const began = performance.now();
  const finished = await runSteps<AdapterState>({
    label: `train ${config.name}`,
    run,
    total: config.steps,
    checkpointEvery: config.checkpoint_every,
    keepCheckpoints: config.keep_checkpoints,
    first: firstAdapterState(model, config),
    step: adapterStep(
      model,
      config,
      data.pictures.map(({ pixels, caption }) => ({ pixels, caption })),
      prior,
      device,
    ),
    stop: () => signal.aborted,
  });
  const seconds = (performance.now() - began) / 1000;
  if (signal.aborted && finished.done < config.steps) return;
  loadState(model.unet, finished.state.weights, true);
  const after = await drawSamples();
  await writeResults({ config, model, device, data, rows, before, after, finished, seconds, run });
}

interface Results {
  readonly config: TrainConfig;
  readonly model: TextToImage;
  readonly device: Device;
  readonly data: ImageFolder;
  readonly rows: readonly AdaptedRow[];
  readonly before: readonly PromptSamples[];
  readonly after: readonly PromptSamples[];
  readonly finished: Finished<AdapterState>;
  readonly seconds: number;
  readonly run: Run;
}

async function writeResults(results: Results): Promise<void> {
  const { config, model, data, before, after, finished, run } = results;
  const { weights, config: adapterConfig } = await writePeft(model.unet, {
    base: { nameOrPath: modelName(config.base), autoMapping: null },
  });
  run.write('adapter/adapter_model.safetensors', weights);
  run.write('adapter/adapter_config.json', adapterConfig);

  const seeds = config.sampling.seeds.length;
  const side = before.flatMap((row, i) => [...row.pictures, ...after[i]!.pictures]);
  const comparison = await gridPng(side, {
    columns: 2 * seeds,
    headings: [
      { text: 'base', columns: seeds },
      { text: `with ${config.method.toUpperCase()}`, columns: seeds },
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
  const report = reportOf(results, weights.length);
  run.write('metrics.json', renderMetrics(report));
  console.error(`deft: ${run.write('report.md', renderReport(report))}`);
}

/** The mean of up to `count` losses from either end. */
function meanLoss(losses: readonly number[], from: 'start' | 'end', count = 20): number {
  const part = from === 'start' ? losses.slice(0, count) : losses.slice(-count);
  return part.reduce((sum, loss) => sum + loss, 0) / part.length;
}

function reportOf(results: Results, adapterBytes: number): ReportData {
  const { config, model, device, data, rows, before, after, finished, seconds, run } = results;
  const parameters = [...namedParameters(model).values()];
  const total = parameters.reduce((sum, { shape }) => sum + numel(shape), 0);
  const named = new RegExp(`\\b(${subjectWords.join('|')}) \\w+`).exec(data.pictures[0]!.caption);
  return {
    name: config.name,
    subjectWords: named?.[0] ?? null,
    base: config.base.split('/').at(-1)!,
    method: config.method,
    rank: config.rank,
    projector: config.projector,
    targets: {
      layers: rows.length,
      trained: rows.reduce((sum, row) => sum + row.parameters, 0),
      total,
    },
    training: {
      pictures: data.pictures.length,
      captions: data.captionSource,
      steps: finished.done,
      batchSize: config.batch_size,
      learningRate: config.learning_rate,
      pLearningRateRatio: config.p_learning_rate_ratio,
      seed: config.seed,
      seconds,
      device: `${device.kind}, ${device.description}`,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
    },
    loss: { first: meanLoss(finished.losses, 'start'), last: meanLoss(finished.losses, 'end') },
    evaluation: evaluateSamples(before, after, config.subject),
    sampling: {
      steps: config.sampling.steps,
      guidanceScale: config.sampling.guidance_scale,
      seeds: config.sampling.seeds,
    },
    files: {
      trainingPictures: 'pictures.png',
      comparison: 'samples.png',
      lossCurve: 'loss.png',
      adapter: 'adapter/adapter_model.safetensors',
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

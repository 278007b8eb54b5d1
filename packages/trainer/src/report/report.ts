/** What a fine-tuning run learnt, as a page that a person reads: report.md, and the same numbers as metrics.json. */
import {
  type Comparison,
  conditions,
  type Estimate,
  type Evaluation,
  formatEstimate,
} from '../metrics/index.ts';
import { formatDuration } from '../progress/progress.ts';

/** Everything that the report says. Paths are relative to the report. */
export interface ReportData {
  readonly name: string;
  /** What the subject is called in prompts, such as "sks toy"; null when the captions name none. */
  readonly subjectWords: string | null;
  /** The base model, as the user knows it. */
  readonly base: string;
  /** The method's name, as its paper spells it. */
  readonly method: string;
  /** Such as "rank 4, projector qr". */
  readonly settings: string;
  /** The layers that were adapted, and how many numbers were trained of how many. */
  readonly targets: { readonly layers: number; readonly trained: number; readonly total: number };
  readonly training: {
    readonly pictures: number;
    readonly captions: string;
    readonly steps: number;
    readonly batchSize: number;
    readonly learningRate: number;
    /** P's, as a multiple of R's; null where there is no P. */
    readonly pLearningRateRatio: number | null;
    readonly seed: number;
    readonly seconds: number;
    /** Such as "wasm, 2 threads". */
    readonly device: string;
    readonly peakMemoryBytes: number;
  };
  readonly loss: { readonly first: number; readonly last: number };
  readonly evaluation: Evaluation;
  /** How the samples were drawn. */
  readonly sampling: {
    readonly steps: number;
    readonly guidanceScale: number;
    readonly seeds: readonly number[];
  };
  readonly files: {
    readonly trainingPictures: string;
    readonly comparison: string;
    /** Samples over the steps; null when none were drawn. */
    readonly steps: string | null;
    readonly lossCurve: string;
    readonly adapter: string;
    /** Whose file names and keys they are, in words. */
    readonly adapterFormat: string;
    readonly adapterBytes: number;
    readonly config: string;
    readonly metrics: string;
  };
  /** Commands that use the adapter, each with a word on what it does. */
  readonly commands: readonly { readonly does: string; readonly command: string }[];
}

/** The report as Markdown. */
export function renderReport(data: ReportData): string {
  const { files } = data;
  const sections = [
    `# ${escapeMarkdown(data.name)}`,
    summary(data),
    `## Before and after\n\n${image('The same prompts and seeds without and with the adapter', files.comparison)}`,
    ...(files.steps === null
      ? []
      : [`## Over the steps\n\n${image('The same prompts and seed as training went on', files.steps)}`]),
    `## What it saw\n\n${image('Training pictures with their captions', files.trainingPictures)}`,
    `## In numbers\n\n${numbers(data.evaluation)}`,
    promptTable(data.evaluation),
    `## To keep in mind\n\n${caveats(data)
      .map((line) => `- ${line}`)
      .join('\n')}`,
    `## How it was trained\n\n${trainingTable(data)}\n\n${image('Loss over the steps', files.lossCurve)}`,
    `## Using the adapter\n\n${usage(data)}`,
  ];
  return `${sections.join('\n\n')}\n`;
}

/** The numbers of the report for programs. */
export function renderMetrics(data: ReportData): string {
  const { evaluation, training, loss, targets } = data;
  return `${JSON.stringify({ format: 1, name: data.name, evaluation, training, loss, targets }, null, 2)}\n`;
}

function summary({ evaluation, training, targets, method, subjectWords, base }: ReportData): string {
  const share = (100 * targets.trained) / targets.total;
  const what =
    subjectWords === null ? 'what the pictures show' : `what **${escapeMarkdown(subjectWords)}** is`;
  const taught =
    `In ${formatDuration(training.seconds)}, ${training.pictures} pictures taught \`${escapeCode(base)}\` ${what}: ` +
    `${escapeMarkdown(method)} trained ${count(targets.trained)} numbers (${share.toPrecision(2)} % of the model) ` +
    'and left the rest as it was.';
  const { subjectSimilarity: similarity, promptFollowing: following } = evaluation;
  const found = [
    similarity ? `the subject is matched at ${arrow(similarity)}` : null,
    evaluation.styleSimilarity ? `the style is met at ${arrow(evaluation.styleSimilarity)}` : null,
    `prompts are followed at ${arrow(following)}`,
  ].filter((part) => part !== null);
  return `${taught} On prompts it was not trained on, ${found.join(', and ')}.`;
}

function arrow({ base, adapted }: Comparison): string {
  return `${base.mean.toFixed(2)} → **${adapted.mean.toFixed(2)}**`;
}

/** What the score of a task is. */
const conditionWords = {
  canny:
    '**Canny F1** compares the edges that are found in the drawings again with those given: 1 is all of them and no others.',
  depth:
    '**Depth RMSE** is how far depths told from the drawings are from those given: 0 is none. Telling depths from a picture is a ' +
    'proxy with an error of its own.',
};

function numbers({
  subjectSimilarity,
  toldApart,
  styleSimilarity,
  promptFollowing,
  condition,
  drift,
}: Evaluation): string {
  const row = (name: string, { base, adapted, difference }: Comparison): string[] => [
    name,
    formatEstimate(base),
    formatEstimate(adapted),
    signed(difference),
  ];
  const rows = [
    ...(subjectSimilarity ? [row('subject similarity', subjectSimilarity)] : []),
    ...(toldApart ? [row('told apart', toldApart)] : []),
    ...(styleSimilarity ? [row('style similarity', styleSimilarity)] : []),
    ...(condition ? [row(conditions[condition.task].name, condition.score)] : []),
    row('prompt following', promptFollowing),
    ...(drift ? [row('following other prompts', drift.promptFollowing)] : []),
  ];
  const explained = [
    subjectSimilarity
      ? '**Subject similarity** asks whether the subject itself is in the picture: its true drawing is laid over what ' +
        'stands before the background, at the place and size that fit best, and compared pixel by pixel. 1 is a ' +
        'perfect copy; missing parts, wrong colours and additions (even a hat that was asked for) all cost.'
      : null,
    toldApart
      ? '**Told apart** is the share of pictures that resemble the subject that was named more than any other of the job.'
      : null,
    styleSimilarity
      ? '**Style similarity** is how much of the style a picture has, whatever it shows, measured from its pixels: 0 is none, ' +
        '1 is what pictures painted in the style have.'
      : null,
    '**Prompt following** is the share of the things a prompt names (background, size, place, number, hat) that are ' +
      'found in the picture again, measured from its pixels alone.',
    `Each number is a mean over ${promptFollowing.base.number} prompts ± its standard error; the change is taken prompt by ` +
      'prompt, with the same seeds on both sides.',
    condition ? conditionWords[condition.task] : null,
    drift
      ? `Pictures of ${drift.change.number} **other prompts**, which are not about the subject, moved by ${formatEstimate(drift.change)} ` +
        '(root mean squared difference of brightness, 1 from black to white).'
      : null,
  ].filter((line) => line !== null);
  return `${table(['', 'base', 'adapted', 'change'], rows)}\n\n${explained.join('\n\n')}`;
}

function promptTable({ prompts, subjectSimilarity }: Evaluation): string {
  const cell = (value: number | null): string => (value === null ? '' : value.toFixed(2));
  const rows = prompts.base.map((base, i) => {
    const adapted = prompts.adapted[i]!;
    const following = [cell(base.promptFollowing), cell(adapted.promptFollowing)];
    const similarity = [cell(base.subjectSimilarity), cell(adapted.subjectSimilarity)];
    return [escapeMarkdown(base.prompt), ...(subjectSimilarity ? similarity : []), ...following];
  });
  const headings = [
    'prompt',
    ...(subjectSimilarity ? ['subject, base', 'adapted'] : []),
    'following, base',
    'adapted',
  ];
  return `<details>\n<summary>Prompt by prompt</summary>\n\n${table(headings, rows)}\n\n</details>`;
}

/** A subject is called learnt from this similarity on: the drawing is recognisable at a glance. */
const learntSimilarity = 0.6;

/** What the numbers do not show, or show against the run: plain sentences, at least one. */
export function caveats({ evaluation, training, loss, targets }: ReportData): string[] {
  const { subjectSimilarity: similarity, promptFollowing: following } = evaluation;
  const said: string[] = [];
  if (similarity && similarity.adapted.mean < learntSimilarity) {
    said.push(
      `The subject is only partly learnt: a similarity of ${similarity.adapted.mean.toFixed(2)} is below ` +
        `${learntSimilarity}, where it is recognised at a glance. More steps or a higher rank may help.`,
    );
  }
  if (similarity && !isClear(similarity.difference)) {
    said.push(
      `The change in subject similarity (${signed(similarity.difference)}) is within its uncertainty: ` +
        'these prompts do not show that anything was learnt.',
    );
  }
  if (following.difference.mean < 0) {
    const { difference } = following;
    said.push(
      isClear(difference)
        ? `Prompts are followed less well than before: by ${Math.abs(difference.mean).toFixed(2)} of all named attributes ` +
            `(± ${difference.standardError?.toFixed(2)}). Fewer steps, a lower learning rate or prior preservation hold them up.`
        : `Prompts are followed a little less than before (${signed(difference)}); with ${difference.number} prompts ` +
            'that can be chance.',
    );
  }
  if (!similarity) {
    said.push(
      'The subject is not one of the world’s own, so nothing here measures whether it was learnt: look at the pictures.',
    );
  }
  if (!Number.isFinite(loss.last)) said.push('The loss was not finite at the end: this run has diverged.');
  else if (loss.last >= loss.first) {
    said.push(
      `The loss did not fall (${loss.first.toPrecision(3)} at first, ${loss.last.toPrecision(3)} at last).`,
    );
  }
  if (targets.trained >= targets.total)
    said.push('Every number of the model was trained: there is no frozen base.');
  said.push(
    `All of this rests on ${training.pictures} training pictures, ${following.base.number} prompts and one run ` +
      `(seed ${training.seed}); another seed gives other pictures.`,
  );
  return said;
}

/** Whether a difference is more than twice its standard error; one value alone is never clear. */
function isClear({ mean, standardError }: Estimate): boolean {
  return standardError !== null && Math.abs(mean) > 2 * standardError;
}

function trainingTable({ method, settings, base, targets, training, loss, sampling }: ReportData): string {
  return table(
    ['', ''],
    [
      ['method', escapeMarkdown(`${method}, ${settings}`)],
      ['base', `\`${escapeCode(base)}\``],
      ['adapted', `${targets.layers} layers, ${count(targets.trained)} of ${count(targets.total)} numbers`],
      ['pictures', `${training.pictures}; captions: ${escapeMarkdown(training.captions)}`],
      ['steps', `${count(training.steps)} of ${training.batchSize} pictures`],
      ['learning rate', learningRates(training)],
      ['loss', `${loss.first.toPrecision(3)} → ${loss.last.toPrecision(3)}`],
      ['seed', String(training.seed)],
      ['device', escapeMarkdown(training.device)],
      ['time', formatDuration(training.seconds)],
      ['peak memory', bytes(training.peakMemoryBytes)],
      [
        'samples',
        `${sampling.steps} steps, guidance ${sampling.guidanceScale}, seeds ${sampling.seeds.join(', ')}`,
      ],
    ],
  );
}

function learningRates({ learningRate, pLearningRateRatio: ratio }: ReportData['training']): string {
  if (ratio === null) return String(learningRate);
  return `${learningRate} for R, ${Number((learningRate * ratio).toPrecision(6))} for P`;
}

function usage({ files, commands }: ReportData): string {
  const lines = commands.map(({ does, command }) => `${does}:\n\n\`\`\`sh\n${command}\n\`\`\``);
  const list =
    `What was learnt is in [\`${escapeCode(files.adapter)}\`](${link(files.adapter)}) ` +
    `(${bytes(files.adapterBytes)}, ${files.adapterFormat}). [\`${escapeCode(files.config)}\`](${link(files.config)}) repeats the run, ` +
    `[\`${escapeCode(files.metrics)}\`](${link(files.metrics)}) holds its numbers.`;
  return [list, ...lines].join('\n\n');
}

function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(headings), line(headings.map(() => '---')), ...rows.map(line)].join('\n');
}

function image(words: string, path: string): string {
  return `![${escapeMarkdown(words)}](${link(path)})`;
}

function link(path: string): string {
  return encodeURI(path).replace(/[()]/g, (bracket) => (bracket === '(' ? '%28' : '%29'));
}

/** "+0.12 ± 0.03". */
function signed(difference: Estimate): string {
  const written = formatEstimate(difference);
  return difference.mean < 0 ? written.replace('-', '−') : `+${written}`;
}

/** "12,345". */
function count(number: number): string {
  return number.toLocaleString('en-US');
}

function bytes(size: number): string {
  return size < 1e6
    ? `${(size / 1e3).toFixed(0)} kB`
    : size < 1e9
      ? `${(size / 1e6).toFixed(1)} MB`
      : `${(size / 1e9).toFixed(2)} GB`;
}

/** Text that Markdown and HTML show as it is, on one line. */
export function escapeMarkdown(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replace(/[\\`*_{}[\]#|~$!]/g, (sign) => `\\${sign}`)
    .replace(/\s+/g, ' ');
}

function escapeCode(text: string): string {
  return text.replaceAll('`', "'").replace(/[\s|]+/g, ' ');
}

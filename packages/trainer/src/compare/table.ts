/** The table that a comparison ends with, as Markdown and as numbers. */
import type { CompareConfig } from '../config/index.ts';
import { type Condition, type Evaluation, estimate, median } from '../metrics/index.ts';
import { version } from '../version.ts';
import { type Cell, type MergedCell, measuredBy } from './cells.ts';

/** Every column of scores, and where a run's metrics have it; null where they do not. */
const columns: Readonly<
  Record<string, (evaluation: Evaluation, side: 'base' | 'adapted') => number | null | undefined>
> = {
  'subject similarity': ({ subjectSimilarity }, side) => subjectSimilarity?.[side].mean,
  'told apart': ({ toldApart }, side) => toldApart?.[side].mean,
  'style similarity': ({ styleSimilarity }, side) => styleSimilarity?.[side].mean,
  'canny F1': (evaluation, side) => conditionScore('canny', evaluation, side),
  'depth RMSE': (evaluation, side) => conditionScore('depth', evaluation, side),
  'prompt following': ({ promptFollowing }, side) => promptFollowing[side].mean,
  drift: ({ drift }, side) => drift && (side === 'base' ? 0 : drift.change.mean),
};

function conditionScore(task: Condition, { condition }: Evaluation, side: 'base' | 'adapted') {
  return condition?.task === task ? condition.score[side].mean : null;
}

/** Scores by column; without those that the run does not have. */
type Scores = Readonly<Record<string, number>>;

/** What one run measured. */
interface Measured {
  /** The subject or task. */
  readonly topic: string;
  readonly seed: number;
  /** Of the base, on the same prompts and seeds. */
  readonly base: Scores;
  readonly adapted: Scores;
  readonly trained: number;
  readonly seconds: number;
}

export interface TableRow {
  readonly label: string;
  readonly runs: readonly Measured[];
}

export interface Table {
  readonly format: 1;
  readonly name: string;
  readonly title: string;
  readonly version: string;
  readonly rows: readonly TableRow[];
}

/** The table of finished cells: a row for each of the job's, or for each of its numbers of concepts. */
export function tableOf(
  { name, title, rows, concepts }: CompareConfig,
  cells: readonly Cell[],
  merged: readonly MergedCell[],
): Table {
  const measured = ({ topic, seed, folder }: Pick<Cell, 'topic' | 'seed' | 'folder'>): Measured => {
    const { evaluation, training, targets } = measuredBy({ folder })!;
    const scores = (side: 'base' | 'adapted'): Scores =>
      Object.fromEntries(
        Object.entries(columns).flatMap(([column, of]) => {
          const score = of(evaluation, side);
          return score == null ? [] : [[column, score]];
        }),
      );
    const [base, adapted] = [scores('base'), scores('adapted')];
    return { topic, seed, base, adapted, trained: targets.trained, seconds: training.seconds };
  };
  const filled = rows.flatMap(({ label, merge }, row): TableRow[] => {
    const own = merge === null ? cells : merged;
    const runs = own.filter((cell) => cell.row === row).map(measured);
    if (concepts.length === 0) return [{ label, runs }];
    return concepts.map((count) => ({
      label: `${label}, ${count}`,
      runs: runs.filter(({ topic }) => topic === `${count}`),
    }));
  });
  return { format: 1, name, title, version, rows: filled };
}

/** "0.612 ± 0.013" of the runs that have the column; nothing where none has. */
function digits(scores: readonly Scores[], column: string): string {
  const values = scores.flatMap((of) => of[column] ?? []);
  if (values.length === 0) return '';
  const { mean, standardError } = estimate(values);
  return standardError === null ? mean.toFixed(3) : `${mean.toFixed(3)} ± ${standardError.toFixed(3)}`;
}

/** The table as Markdown. @param command that made it */
export function renderTable({ title, rows, version: made }: Table, command: string): string {
  const runs = rows.flatMap((row) => row.runs);
  const topics = [...new Set(runs.map(({ topic }) => topic))];
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const shown = Object.keys(columns).filter((column) => runs.some(({ adapted }) => column in adapted));
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const of = (scores: readonly Scores[]): string[] => shown.map((column) => digits(scores, column));
  const body = rows.map((row) => [
    row.label,
    row.runs[0]!.trained.toLocaleString('en-US'),
    ...of(row.runs.map(({ adapted }) => adapted)),
    median(row.runs.map(({ seconds }) => seconds)).toFixed(0),
  ]);
  const head = ['', 'trained', ...shown, 'seconds'];
  // Every row drew the same prompts of a topic with the base.
  const drawn = new Map(runs.map((run) => [`${run.topic} ${run.seed}`, run.base]));
  const base = ['base', '0', ...of([...drawn.values()]), ''];
  return [
    `# ${title}`,
    '',
    line(head),
    line(head.map((_, i) => (i === 0 ? '---' : '---:'))),
    ...[base, ...body].map(line),
    '',
    `Mean ± standard error over the runs: ${topics.join(', ')}; seeds ${seeds.join(', ')}. Higher is better, but for drift and RMSE.` +
      ' Seconds are the median of a run, training alone.',
    '',
    `Made by \`${command}\` with deft ${made}; docs/metrics.md defines the columns.`,
    '',
  ].join('\n');
}

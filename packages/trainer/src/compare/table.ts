/** The table that a comparison ends with, as Markdown and as numbers. */
import type { CompareConfig } from '../config/index.ts';
import { type Estimate, type Evaluation, estimate, median } from '../metrics/index.ts';
import { version } from '../version.ts';
import { type Cell, measuredBy } from './cells.ts';

/** What one run measured. */
interface Measured {
  readonly subject: string;
  readonly seed: number;
  readonly subjectSimilarity: number;
  readonly promptFollowing: number;
  /** How far pictures of other prompts moved; null where none were drawn. */
  readonly drift: number | null;
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
  /** What the base scores on the same prompts and seeds. */
  readonly base: { readonly subjectSimilarity: Estimate; readonly promptFollowing: Estimate };
  readonly rows: readonly TableRow[];
}

type Metrics = {
  readonly evaluation: Evaluation;
  readonly training: { readonly seconds: number };
  readonly targets: { readonly trained: number };
};

/** The table of finished cells. */
export function tableOf(config: CompareConfig, cells: readonly Cell[]): Table {
  const read = cells.map((cell) => ({ cell, metrics: measuredBy(cell) as Metrics }));
  const base = (key: 'subjectSimilarity' | 'promptFollowing'): Estimate =>
    estimate(
      read.filter(({ cell }) => cell.row === 0).map(({ metrics }) => metrics.evaluation[key]!.base.mean),
    );
  const rows = config.rows.map(({ label }, row) => ({
    label,
    runs: read
      .filter(({ cell }) => cell.row === row)
      .map(({ cell: { subject, seed }, metrics: { evaluation, training, targets } }) => ({
        subject,
        seed,
        subjectSimilarity: evaluation.subjectSimilarity!.adapted.mean,
        promptFollowing: evaluation.promptFollowing.adapted.mean,
        drift: evaluation.drift?.change.mean ?? null,
        trained: targets.trained,
        seconds: training.seconds,
      })),
  }));
  const { name, title } = config;
  return {
    format: 1,
    name,
    title,
    version,
    base: { subjectSimilarity: base('subjectSimilarity'), promptFollowing: base('promptFollowing') },
    rows,
  };
}

/** "0.612 ± 0.013" */
function digits({ mean, standardError }: Estimate): string {
  const shown = mean.toFixed(3);
  return standardError === null ? shown : `${shown} ± ${standardError.toFixed(3)}`;
}

/** The table as Markdown. @param command that made it */
export function renderTable({ title, base, rows, version: made }: Table, command: string): string {
  const runs = rows[0]!.runs;
  const subjects = [...new Set(runs.map(({ subject }) => subject))];
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const hasDrift = rows.every((row) => row.runs.every(({ drift }) => drift !== null));
  const head = [
    '',
    'trained',
    'subject similarity',
    'prompt following',
    ...(hasDrift ? ['drift'] : []),
    'seconds',
  ];
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const of = (row: TableRow, key: 'subjectSimilarity' | 'promptFollowing' | 'drift'): string =>
    digits(estimate(row.runs.map((run) => run[key]!)));
  const body = rows.map((row) => [
    row.label,
    row.runs[0]!.trained.toLocaleString('en-US'),
    of(row, 'subjectSimilarity'),
    of(row, 'promptFollowing'),
    ...(hasDrift ? [of(row, 'drift')] : []),
    median(row.runs.map(({ seconds }) => seconds)).toFixed(0),
  ]);
  const first = [
    'base',
    '0',
    digits(base.subjectSimilarity),
    digits(base.promptFollowing),
    ...(hasDrift ? ['0'] : []),
    '',
  ];
  return [
    `# ${title}`,
    '',
    line(head),
    line(head.map((_, i) => (i === 0 ? '---' : '---:'))),
    line(first),
    ...body.map(line),
    '',
    `Mean ± standard error over ${runs.length} runs: ${subjects.join(', ')}; seeds ${seeds.join(', ')}. Higher is better, but for` +
      ' drift. Seconds are the median of a run, training alone.',
    '',
    `Made by \`${command}\` with deft ${made}; docs/metrics.md defines the columns.`,
    '',
  ].join('\n');
}

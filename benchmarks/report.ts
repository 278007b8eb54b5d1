/** The table of medians and ratios, and the record of a run. */
import { cpus, hostname, loadavg, release, totalmem } from 'node:os';
import type { Backend } from './contender.ts';
import type { Row } from './rows.ts';

/** What came of a row on a contender. */
export interface Cell {
  readonly contender: string;
  /** Milliseconds of each timed run; empty when it failed or was wrong. */
  readonly times: readonly number[];
  /** Compilation and the first results, ms. */
  readonly firstMs: number | null;
  /** Largest error over the largest value. */
  readonly error: number | null;
  readonly problem: string | null;
}

export interface Measured {
  readonly row: Row;
  /** This engine first. */
  readonly cells: readonly Cell[];
}

export interface BackendResult {
  readonly backend: Backend;
  readonly devices: { readonly [contender: string]: string };
  readonly measured: readonly Measured[];
  /** Load averages (1, 5, 15 minutes) before and after. */
  readonly loadBefore: readonly number[];
  readonly loadAfter: readonly number[];
}

/** The p-quantile of numbers, between the two nearest. */
export function quantile(numbers: readonly number[], p: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const at = p * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low]! + (at - low) * ((sorted[low + 1] ?? sorted[low]!) - sorted[low]!);
}

const median = (cell: Cell): number | null => (cell.times.length > 0 ? quantile(cell.times, 0.5) : null);

/** The fastest right peer's median over this engine's; null when there is none. */
export function bestRatio({ cells: [own, ...peers] }: Measured): number | null {
  const medians = peers.map(median).filter((ms) => ms !== null);
  const ours = median(own!);
  return ours === null || medians.length === 0 ? null : Math.min(...medians) / ours;
}

const digits = (ms: number): string => String(Number(ms.toPrecision(3)));

function cellText(cell: Cell, row: Row, own: number | null): string {
  const ms = median(cell);
  if (ms === null) return cell.problem?.startsWith('WRONG') ? 'WRONG' : 'fails';
  const spread = `${digits(ms)} [${digits(quantile(cell.times, 0.25))}-${digits(quantile(cell.times, 0.75))}]`;
  const rate = row.flops === undefined ? '' : ` ${(row.flops / ms / 1e6).toFixed(1)}GF`;
  return spread + rate + (own === null ? '' : ` (${digits(ms / own)}x)`);
}

/** A backend's table: ms [quartiles], GFLOP/s where they count, and in brackets how many times as long as this engine. */
export function tableOf({ backend, devices, measured }: BackendResult): string {
  const contenders = measured[0]?.cells.map(({ contender }) => contender) ?? [];
  const header = ['', ...contenders, 'best peer / ours'];
  const body = measured.map((entry) => {
    const own = median(entry.cells[0]!);
    const ratio = bestRatio(entry);
    return [
      entry.row.name,
      ...entry.cells.map((cell, i) => cellText(cell, entry.row, i === 0 ? null : own)),
      ratio === null ? '-' : `${digits(ratio)}x${ratio < 1 ? ' SLOWER' : ''}`,
    ];
  });
  const widths = header.map((_, column) =>
    Math.max(...[header, ...body].map((line) => line[column]!.length)),
  );
  const lines = [header, ...body].map((line) => line.map((text, i) => text.padEnd(widths[i]!)).join('  '));
  const ratios = measured.map(bestRatio).filter((ratio) => ratio !== null);
  const mean = Math.exp(ratios.reduce((total, ratio) => total + Math.log(ratio), 0) / ratios.length);
  const problems = measured.flatMap(({ row, cells }) =>
    cells
      .filter(({ problem }) => problem !== null)
      .map(({ contender, problem }) => `${row.name}, ${contender}: ${problem}`),
  );
  const legend =
    backend === 'webgpu'
      ? [
          'TF.js computes tensors of fewer than 1000 elements in JavaScript: its rows of tiny ops are not the adapter.',
        ]
      : [];
  return [
    `${backend}: ${Object.entries(devices)
      .map(([name, device]) => `${name} on ${device}`)
      .join('; ')}`,
    ...lines.map((line) => line.trimEnd()),
    ratios.length > 0
      ? `geometric mean of best peer / ours over ${ratios.length} rows: ${mean.toFixed(2)}x; slower in ${ratios.filter((ratio) => ratio < 1).length}`
      : 'no row has a peer to compare with',
    ...legend,
    ...problems,
  ].join('\n');
}

/** Everything of a run that a reader may ask for, as JSON. */
export function recordOf(
  results: readonly BackendResult[],
  versions: { readonly [name: string]: string },
): string {
  const [processor] = cpus();
  const record = {
    date: new Date().toISOString(),
    machine: {
      host: hostname(),
      processor: `${cpus().length} x ${processor?.model ?? 'unknown'}`,
      memoryBytes: totalmem(),
      system: `${process.platform} ${release()}`,
      loadNow: loadavg(),
    },
    versions: { node: process.version, ...versions },
    results: results.map(({ measured, ...backend }) => ({
      ...backend,
      rows: measured.map((entry) => ({
        name: entry.row.name,
        bestPeerOverOurs: bestRatio(entry),
        contenders: entry.cells.map((cell) => ({
          ...cell,
          medianMs: median(cell),
          times: cell.times.map((ms) => Number(ms.toPrecision(4))),
        })),
      })),
    })),
  };
  return `${JSON.stringify(record, null, 1)}\n`;
}

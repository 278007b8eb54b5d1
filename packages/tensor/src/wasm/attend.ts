/**
 * Code for attention (Dao et al. 2022, algorithm 1): a chunk computes a block of queries. For each block of keys it
 * packs keys and values, and for each panel of queries (attendPanels.ts) computes scores S, then
 *
 *     m' = max(m, max S)     P = exp(S - m')     l' = l exp(m - m') + sum P     O' = O exp(m - m') + P V
 *
 * m begins at the lowest finite number, so that where all scores are -infinity P and l are 0.
 */
import type { AttendKernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import type { Local } from './assembler.ts';
import { keysAtOnce, layout, Panels, panelBytes, panelWidth } from './attendPanels.ts';
import { decompose, forRange } from './loops.ts';
import { log } from './math.ts';
import type { Target, WrittenKernel } from './target.ts';

const lowest = -3.4028234663852886e38;

/** Queries of a chunk: fewer where there would be too few chunks for threads to share. */
function queriesAtOnce({ batch, queries, width, valueWidth }: AttendKernel): number {
  let block = width + valueWidth <= 256 ? 128 : 64;
  while (block > panelWidth && numel(batch) * Math.ceil(queries / block) < 8) block /= 2;
  return block;
}

export function writeAttend(target: Target, kernel: AttendKernel): WrittenKernel {
  const { queries, keys, width, valueWidth } = kernel;
  const block = queriesAtOnce(kernel);
  const blocks = Math.ceil(queries / block);
  const depth = keysAtOnce(target, kernel);
  const mean = kernel.outputs.findIndex(({ result }) => result === 'mean');
  const logSum = kernel.outputs.findIndex(({ result }) => result === 'logSum');
  const valueColumns = mean < 0 ? 0 : valueWidth;
  const { at, bytes } = layout({
    query: block * width,
    key: depth * width,
    value: depth * valueColumns,
    scores: depth * panelWidth,
    mask: kernel.operands.mask ? depth * panelWidth : 0,
    // Of each panel: the rows of O, then m, then l.
    sums: block * (valueColumns + 2),
  });
  const p = new Panels(target, kernel);
  const { body, opened, zero } = p;
  const query = p.packed('query', 'rows', panelWidth);
  const key = p.packed('key', 'rows', p.tileRows);
  const value = p.packed('value', 'columns', p.tileRows);
  const mask = kernel.operands.mask ? p.packed('mask', 'rows', panelWidth) : null;
  const place = Object.fromEntries(Object.entries(at).map(([name, offset]) => [name, p.scratch(offset)])) as {
    [name in keyof typeof at]: Local;
  };
  const [index, rest, q0, q1, q, k0, k1, limit, count, held, sums] = Array.from({ length: 11 }, () =>
    p.local(),
  ) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
  const [lastQuery, columns, widthOf] = [p.constant(queries), p.constant(valueColumns), p.constant(width)];
  const stateBytes = valueColumns * panelBytes;

  /** Runs `each` for every panel of the block: its first query, its packed queries and its sums. */
  const eachPanel = (each: () => void): void => {
    body.get(q0).set(q).get(place.query).set(held).get(place.sums).set(sums);
    forRange(body, q, q1, panelWidth, () => {
      each();
      body
        .get(held)
        .i32(width * panelBytes)
        .op('i32.add')
        .set(held);
      body
        .get(sums)
        .i32(stateBytes + 2 * panelBytes)
        .op('i32.add')
        .set(sums);
    });
  };

  body.get(opened.chunk).set(rest);
  decompose(body, rest, [
    { extent: numel(kernel.batch), local: index },
    { extent: blocks, local: q0 },
  ]);
  body.get(q0).i32(block).op('i32.mul').set(q0);
  p.upTo(q1, q0, block, lastQuery);
  p.startBatch(index);
  eachPanel(() => {
    const m = p.lanes;
    query.pack(q, zero, widthOf, held, panelWidth);
    p.scale(held, widthOf, [m.f32(kernel.scale), m.f32(kernel.scale)]);
    p.clear(sums, columns);
    p.store(sums, [m.f32(lowest), m.f32(lowest), m.f32(0), m.f32(0)], stateBytes);
  });
  // The last query of the block sees no key after its own.
  const lastKey = p.constant(keys);
  body.get(lastKey).set(limit);
  if (kernel.causal) p.upTo(limit, q1, 0, lastKey);
  body.i32(0).set(k0);
  forRange(body, k0, limit, depth, () => {
    p.upTo(k1, k0, depth, lastKey);
    body.get(k1, k0).op('i32.sub').set(count);
    const range = { start: k0, end: k1, extent: keys };
    key.packAll(range, zero, widthOf, place.key);
    if (mean >= 0) value.packAll({ start: zero, end: columns, extent: valueWidth }, k0, k1, place.value);
    eachPanel(() => {
      p.product(range, place.key, widthOf, held, place.scores, zero);
      mask?.pack(q, k0, k1, place.mask, panelWidth);
      takeUp();
      if (mean >= 0) {
        p.product(
          { start: zero, end: columns, extent: valueWidth },
          place.value,
          count,
          place.scores,
          sums,
          p.one,
        );
      }
    });
  });
  eachPanel(() => finish());
  const phase = { index: target.module.add(opened.fn), chunks: numel(kernel.batch) * blocks };
  return { phases: [phase], scratchBytes: bytes, sharedBytes: 0 };

  /** Scores of the panel become P; its sums are scaled to the new m. */
  function takeUp(): void {
    const m = p.lanes;
    const before = p.load(sums, stateBytes);
    const largest = [0, 1].map(() => opened.fn.local('v128'));
    for (const half of [0, 1]) body.get(before[half]!).set(largest[half]!);
    const [j, bias] = [p.local(), p.local()];
    body.get(k0).set(j).get(place.mask).set(bias);
    const isMasked = mask !== null || kernel.causal;
    p.eachRow(place.scores, count, (row) => {
      const scores = p.masked(p.load(row), mask && bias, j, q);
      if (isMasked) p.store(row, scores);
      for (const half of [0, 1])
        body.get(m.op('f32x4.max', largest[half]!, scores[half]!)).set(largest[half]!);
      if (mask) body.get(bias).i32(panelBytes).op('i32.add').set(bias);
      if (kernel.causal) body.get(j).i32(1).op('i32.add').set(j);
    });
    const change = largest.map((local, half) => p.weight(m.op('f32x4.sub', before[half]!, local)));
    const total = p.load(sums, stateBytes + panelBytes).map((l, half) => m.op('f32x4.mul', l, change[half]!));
    p.eachRow(place.scores, count, (row) => {
      const weights = p.load(row).map((s, half) => p.weight(m.op('f32x4.sub', s, largest[half]!)));
      p.store(row, weights);
      for (const half of [0, 1]) body.get(m.op('f32x4.add', total[half]!, weights[half]!)).set(total[half]!);
    });
    p.store(sums, [...largest, ...total], stateBytes);
    p.scale(sums, columns, change);
  }

  function finish(): void {
    const m = p.lanes;
    const [first, left] = [p.local(), p.local()];
    p.step(first, q, index, queries);
    body.get(lastQuery, q).op('i32.sub').set(left);
    const largest = p.load(sums, stateBytes);
    const total = p.load(sums, stateBytes + panelBytes);
    const isEmpty = total.map((l) => m.op('f32x4.eq', l, m.f32(0)));
    if (mean >= 0) {
      const shares = total.map((l, half) => m.select(isEmpty[half]!, l, m.op('f32x4.div', m.f32(1), l)));
      p.scale(sums, columns, shares);
      p.storeColumns(sums, valueWidth, opened.outputs[mean]!, first, left);
    }
    if (logSum >= 0) {
      const logs = total.map((l, half) =>
        m.select(
          isEmpty[half]!,
          m.f32(Number.POSITIVE_INFINITY),
          m.op('f32x4.add', largest[half]!, log(m, l)),
        ),
      );
      p.store(sums, logs);
      p.storeColumns(sums, 1, opened.outputs[logSum]!, first, left);
    }
  }
}

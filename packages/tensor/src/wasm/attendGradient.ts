/**
 * Code for the gradients of attention (ops/attention.ts, equations 2 and 3). A chunk takes up a segment of the keys,
 * block by block, and passes with each block over all queries: five products in all, where one pass for dQ and another
 * for dK and dV would take seven. What it adds to dQ stays its own until a second phase adds up the segments.
 *
 * P and dS of a panel come as [keys][8 queries], the right factors of dQ^T = K^T dS^T; transposed to [queries][8 keys]
 * they are those of dV^T = dO^T P and dK^T = Q^T dS.
 */
import type { AttendKernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import type { Local } from './assembler.ts';
import { keysAtOnce, layout, Panels, panelBytes, panelWidth } from './attendPanels.ts';
import { decompose, forRange } from './loops.ts';
import type { Phase, Target, WrittenKernel } from './target.ts';

/** Queries whose P and dS are kept, until they are taken into dV and dK at once. */
const block = 256;

/** Parts that the keys of a batch are cut into, so that there is work for eight threads. */
function segmentsOf(target: Target, kernel: AttendKernel): { readonly count: number; readonly keys: number } {
  const blocks = Math.ceil(kernel.keys / keysAtOnce(target, kernel));
  const wanted = Math.min(blocks, Math.ceil(8 / numel(kernel.batch)));
  const each = Math.ceil(blocks / wanted);
  return { count: Math.ceil(blocks / each), keys: each * keysAtOnce(target, kernel) };
}

export function writeAttendGradient(target: Target, kernel: AttendKernel): WrittenKernel {
  const segments = segmentsOf(target, kernel);
  const batch = numel(kernel.batch);
  const phases: Phase[] = [{ index: writeSegment(target, kernel, segments), chunks: batch * segments.count }];
  const panels = Math.ceil(kernel.queries / panelWidth);
  const dQ = kernel.outputs.findIndex(({ result }) => result === 'query');
  if (dQ >= 0) phases.push({ index: writeSum(target, kernel, dQ, segments.count), chunks: batch });
  return {
    phases,
    scratchBytes: scratchOf(target, kernel).bytes,
    sharedBytes: dQ < 0 ? 0 : segments.count * batch * panels * kernel.width * panelBytes,
  };
}

function scratchOf(target: Target, kernel: AttendKernel) {
  const { width, valueWidth } = kernel;
  const depth = keysAtOnce(target, kernel);
  return layout({
    key: depth * width,
    keyColumns: depth * width,
    value: depth * valueWidth,
    queryColumns: block * width,
    cotangentColumns: block * valueWidth,
    query: panelWidth * width,
    cotangent: panelWidth * valueWidth,
    logSum: panelWidth,
    rowSum: panelWidth,
    mask: depth * panelWidth,
    P: depth * panelWidth,
    dS: depth * panelWidth,
    // [panel of keys][query of the block][8 keys]
    turnedP: depth * block,
    turnedS: depth * block,
    dK: depth * width,
    dV: depth * valueWidth,
  });
}

function writeSegment(
  target: Target,
  kernel: AttendKernel,
  segments: { readonly count: number; readonly keys: number },
): number {
  const { queries, keys, width, valueWidth } = kernel;
  const depth = keysAtOnce(target, kernel);
  const p = new Panels(target, kernel);
  const { body, opened, zero, one } = p;
  const outputOf = (result: 'query' | 'key' | 'value') => {
    const at = kernel.outputs.findIndex((output) => output.result === result);
    return at < 0 ? null : opened.outputs[at]!;
  };
  const [dQ, dK, dV] = [outputOf('query'), outputOf('key'), outputOf('value')];
  const needsS = dQ !== null || dK !== null;
  const packed = {
    key: p.packed('key', 'rows', p.tileRows),
    keyColumns: p.packed('key', 'columns', p.tileRows),
    value: p.packed('value', 'rows', p.tileRows),
    queryColumns: p.packed('query', 'columns', p.tileRows),
    cotangentColumns: p.packed('cotangent', 'columns', p.tileRows),
    query: p.packed('query', 'rows', panelWidth),
    cotangent: p.packed('cotangent', 'rows', panelWidth),
    logSum: p.packed('logSum', 'rows', panelWidth),
    rowSum: p.packed('rowSum', 'rows', panelWidth),
  };
  const mask = kernel.operands.mask ? p.packed('mask', 'rows', panelWidth) : null;
  const { at } = scratchOf(target, kernel);
  const place = Object.fromEntries(Object.entries(at).map(([name, offset]) => [name, p.scratch(offset)])) as {
    [name in keyof typeof at]: Local;
  };
  const [index, segment, rest, k0, k1, last, q0, q1, q, count, taken, sums, offset] = Array.from(
    { length: 13 },
    () => p.local(),
  ) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
  const [lastQuery, lastKey] = [p.constant(queries), p.constant(keys)];
  const ofWidth = { start: zero, end: p.constant(width), extent: width };
  const ofValues = { start: zero, end: p.constant(valueWidth), extent: valueWidth };
  const ofKeys = { start: k0, end: k1, extent: keys };
  const panels = Math.ceil(queries / panelWidth);

  body.get(opened.chunk).set(rest);
  decompose(body, rest, [
    { extent: segments.count, local: segment },
    { extent: numel(kernel.batch), local: index },
  ]);
  p.startBatch(index);
  // The chunk's sums for dQ: [chunk][panel of queries][width][8].
  p.step(sums, opened.shared, opened.chunk, panels * width * panelBytes);
  if (dQ) p.clear(sums, p.constant(panels * width));
  body.get(segment).i32(segments.keys).op('i32.mul').set(k0);
  p.upTo(last, k0, segments.keys, lastKey);
  forRange(body, k0, last, depth, () => {
    p.upTo(k1, k0, depth, lastKey);
    body.get(k1, k0).op('i32.sub').set(count);
    packed.key.packAll(ofKeys, zero, ofWidth.end, place.key);
    if (dQ) packed.keyColumns.packAll(ofWidth, k0, k1, place.keyColumns);
    if (needsS) packed.value.packAll(ofKeys, zero, ofValues.end, place.value);
    if (dK) p.clear(place.dK, p.constant((depth / panelWidth) * width));
    if (dV) p.clear(place.dV, p.constant((depth / panelWidth) * valueWidth));
    // Queries before the block's first key see none of its keys.
    if (kernel.causal) body.get(k0).i32(-block).op('i32.and').set(q0);
    else body.i32(0).set(q0);
    forRange(body, q0, lastQuery, block, () => {
      p.upTo(q1, q0, block, lastQuery);
      body.get(q1, q0).op('i32.sub').set(taken);
      body.get(q0).set(q);
      forRange(body, q, q1, panelWidth, () => takePanel());
      if (dK) packed.queryColumns.packAll(ofWidth, q0, q1, place.queryColumns);
      if (dV) packed.cotangentColumns.packAll(ofValues, q0, q1, place.cotangentColumns);
      eachKeyPanel((panel) => {
        const [turned, to] = [p.local(), p.local()];
        if (dK) {
          p.step(turned, place.turnedS, panel, block * panelBytes);
          p.step(to, place.dK, panel, width * panelBytes);
          p.product(ofWidth, place.queryColumns, taken, turned, to, one);
        }
        if (dV) {
          p.step(turned, place.turnedP, panel, block * panelBytes);
          p.step(to, place.dV, panel, valueWidth * panelBytes);
          p.product(ofValues, place.cotangentColumns, taken, turned, to, one);
        }
      });
    });
    eachKeyPanel((panel) => {
      const m = p.lanes;
      const [first, left, from] = [p.local(), p.local(), p.local()];
      p.step(first, k0, panel, panelWidth);
      body.get(lastKey, first).op('i32.sub').set(left);
      p.step(first, first, index, keys);
      if (dK) {
        p.step(from, place.dK, panel, width * panelBytes);
        p.scale(from, ofWidth.end, [m.f32(kernel.scale), m.f32(kernel.scale)]);
        p.storeColumns(from, width, dK, first, left);
      }
      if (dV) {
        p.step(from, place.dV, panel, valueWidth * panelBytes);
        p.storeColumns(from, valueWidth, dV, first, left);
      }
    });
  });
  return target.module.add(opened.fn);

  /** Runs `each` with the number of every panel of the block's keys. */
  function eachKeyPanel(each: (panel: Local) => void): void {
    const [panel, end] = [p.local(), p.local()];
    body
      .get(count)
      .i32(panelWidth - 1)
      .op('i32.add')
      .i32(panelWidth)
      .op('i32.div_u')
      .set(end);
    body.i32(0).set(panel);
    forRange(body, panel, end, 1, () => each(panel));
  }

  /** P and dS of a panel of queries and the block of keys; dQ takes dS at once, dK and dV will. */
  function takePanel(): void {
    const m = p.lanes;
    packed.query.pack(q, zero, ofWidth.end, place.query, panelWidth);
    p.scale(place.query, ofWidth.end, [m.f32(kernel.scale), m.f32(kernel.scale)]);
    packed.logSum.pack(q, zero, one, place.logSum, panelWidth);
    mask?.pack(q, k0, k1, place.mask, panelWidth);
    p.product(ofKeys, place.key, ofWidth.end, place.query, place.P, zero);
    if (needsS) {
      packed.cotangent.pack(q, zero, ofValues.end, place.cotangent, panelWidth);
      packed.rowSum.pack(q, zero, one, place.rowSum, panelWidth);
      p.product(ofKeys, place.value, ofValues.end, place.cotangent, place.dS, zero);
    }
    const logSum = p.load(place.logSum);
    const rowSum = needsS ? p.load(place.rowSum) : [];
    const [j, bias, other] = [p.local(), p.local(), p.local()];
    body.get(k0).set(j).get(place.mask).set(bias).get(place.dS).set(other);
    p.eachRow(place.P, count, (row) => {
      const scores = p.masked(p.load(row), mask && bias, j, q);
      const weights = scores.map((s, half) => p.weight(m.op('f32x4.sub', s, logSum[half]!)));
      p.store(row, weights);
      if (needsS) {
        const T = p.load(other);
        p.store(
          other,
          T.map((t, half) => m.op('f32x4.mul', weights[half]!, m.op('f32x4.sub', t, rowSum[half]!))),
        );
        body.get(other).i32(panelBytes).op('i32.add').set(other);
      }
      if (mask) body.get(bias).i32(panelBytes).op('i32.add').set(bias);
      if (kernel.causal) body.get(j).i32(1).op('i32.add').set(j);
    });
    if (dQ) {
      const to = p.local();
      p.step(to, sums, q, (width * panelBytes) / panelWidth);
      p.product(ofWidth, place.keyColumns, count, place.dS, to, one);
    }
    body.get(q, q0).op('i32.sub').i32(panelBytes).op('i32.mul').set(offset);
    if (dK) turn(place.dS, place.turnedS);
    if (dV) turn(place.P, place.turnedP);
  }

  /** Copies [keys][8 queries] to [panel of keys][8 queries from `offset` bytes on][8 keys]. */
  function turn(from: Local, to: Local): void {
    const m = p.lanes;
    eachKeyPanel((panel) => {
      const [source, target_] = [p.local(), p.local()];
      p.step(source, from, panel, panelWidth * panelBytes);
      p.step(target_, to, panel, block * panelBytes);
      body.get(target_, offset).op('i32.add').set(target_);
      const zip = (x: Local, y: Local, lanes: readonly number[]): Local => {
        body.get(x, y).shuffle32(...lanes);
        return m.keep();
      };
      for (const [half, group] of [0, 1].flatMap((h) => [0, 1].map((g) => [h, g] as const))) {
        const rows = [0, 1, 2, 3].map((i) => {
          body.get(source).op('v128.load', (4 * group + i) * panelBytes + 16 * half);
          return m.keep();
        }) as [Local, Local, Local, Local];
        const [low01, high01] = [zip(rows[0], rows[1], [0, 4, 1, 5]), zip(rows[0], rows[1], [2, 6, 3, 7])];
        const [low23, high23] = [zip(rows[2], rows[3], [0, 4, 1, 5]), zip(rows[2], rows[3], [2, 6, 3, 7])];
        [
          zip(low01, low23, [0, 1, 4, 5]),
          zip(low01, low23, [2, 3, 6, 7]),
          zip(high01, high23, [0, 1, 4, 5]),
          zip(high01, high23, [2, 3, 6, 7]),
        ].forEach((column, i) => {
          body.get(target_, column).op('v128.store', (4 * half + i) * panelBytes + 16 * group);
        });
      }
    });
  }
}

/** The second phase: dQ of a batch is the sum of what its segments of keys add. */
function writeSum(target: Target, kernel: AttendKernel, output: number, segments: number): number {
  const { queries, width } = kernel;
  const p = new Panels(target, kernel);
  const { body, opened } = p;
  const panels = Math.ceil(queries / panelWidth);
  const [lastQuery, rows] = [p.constant(queries), p.constant(width)];
  const [q, sums, other, first, left] = Array.from({ length: 5 }, () => p.local()) as [
    Local,
    Local,
    Local,
    Local,
    Local,
  ];
  const batchBytes = panels * width * panelBytes;
  p.step(sums, opened.shared, opened.chunk, batchBytes);
  body.i32(0).set(q);
  forRange(body, q, lastQuery, panelWidth, () => {
    const m = p.lanes;
    for (let segment = 1; segment < segments; segment += 1) {
      body
        .get(sums)
        .i32(segment * numel(kernel.batch) * batchBytes)
        .op('i32.add')
        .set(other);
      p.eachRow(sums, rows, (row) => {
        const more = p.load(other);
        p.store(
          row,
          p.load(row).map((x, half) => m.op('f32x4.add', x, more[half]!)),
        );
        body.get(other).i32(panelBytes).op('i32.add').set(other);
      });
    }
    p.scale(sums, rows, [m.f32(kernel.scale), m.f32(kernel.scale)]);
    p.step(first, q, opened.chunk, queries);
    body.get(lastQuery, q).op('i32.sub').set(left);
    p.storeColumns(sums, width, opened.outputs[output]!, first, left);
    body
      .get(sums)
      .i32(width * panelBytes)
      .op('i32.add')
      .set(sums);
  });
  return target.module.add(opened.fn);
}

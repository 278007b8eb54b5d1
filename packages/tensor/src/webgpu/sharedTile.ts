/**
 * Tiles for GPUs: a workgroup of 16 by 16 invocations stages 16 steps of A and B in workgroup memory, and each
 * invocation computes up to eight rows of four columns from there.
 */
import type { Contraction, Tile } from './contract.ts';
import { COMPONENTS } from './contract.ts';
import { GROUP, LANE } from './launch.ts';
import { type Module, Statements } from './module.ts';
import type { Operand } from './operand.ts';

export const SIDE = 16;
const LANES = SIDE * SIDE;
/** Steps along k that are staged at a time. */
export const STEPS = 16;
const WIDTH = 4 * SIDE;
/** Tiles that fill a device: rather than fewer, tiles get smaller. */
const ENOUGH_TILES = 256;

function tilesOf({ batch, rows, columns }: Contraction, height: number): number {
  return batch * Math.ceil(columns / WIDTH) * Math.ceil(rows / (SIDE * height));
}

/** Rows of an invocation, by rule. */
export function sharedHeight(contraction: Contraction): number {
  const { rows } = contraction;
  const tall = [8, 4, 2].find((own) => rows > SIDE * (own / 2) && tilesOf(contraction, own) >= ENOUGH_TILES);
  return tall ?? (rows > SIDE ? 2 : 1);
}

/** A function that writes tiles of so many rows (1, 2, 4 or 8) to an invocation. */
export function sharedTile(contraction: Contraction, height: number): (body: Statements) => Tile {
  const { module, batch, rows, columns, depth, a, b } = contraction;
  const across = Math.ceil(columns / WIDTH);
  return (body) => {
    const down = Math.ceil(rows / (SIDE * height));
    const first = body.let('u32', `${GROUP} % ${across}u * ${WIDTH}u`);
    const top = body.let('u32', `${GROUP} / ${across}u % ${down}u * ${SIDE * height}u`);
    // Invocations of workgroups that only round up the grid compute the last slice again and store nothing.
    const wanted = body.let('u32', `${GROUP} / ${across * down}u`);
    const slice = body.let('u32', `min(${wanted}, ${batch - 1}u)`);
    const x = body.let('u32', `${LANE} % ${SIDE}u`);
    const y = body.let('u32', `${LANE} / ${SIDE}u`);
    const row = body.let('u32', `select(${rows}u, ${top} + ${y} * ${height}u, ${wanted} < ${batch}u)`);
    const column = body.let('u32', `${first} + ${x} * 4u`);
    for (let r = 0; r < height; r += 1) body.line(`var c${r} = vec4f();`);
    const tile = {
      workgroupSize: LANES,
      workgroups: tilesOf(contraction, height),
      slice,
      row,
      column,
      height,
    };
    if (depth === 0) return tile;
    const loop = new Statements(module, body);
    const stageA = stage(
      module,
      a,
      'stagedA',
      { slice, start: top, extent: rows, tile: SIDE * height, depth },
      body,
      loop,
    );
    const stageB = stage(
      module,
      b,
      'stagedB',
      { slice, start: first, extent: columns, tile: WIDTH, depth },
      body,
      loop,
    );
    loop.line('workgroupBarrier();');
    const inner = new Statements(module, loop);
    const quad = inner.let('vec4f', `stagedB[step * ${stageB}u + ${x}]`);
    const elementsOfA = (r: number): string => {
      if (height < 4)
        return `stagedA[step * ${stageA}u + (${y} * ${height}u + ${r}u) / 4u][(${y} * ${height}u + ${r}u) % 4u]`;
      const four = inner.let('vec4f', `stagedA[step * ${stageA}u + ${y} * ${height / 4}u + ${r >> 2}u]`);
      return `${four}.${COMPONENTS[r & 3]}`;
    };
    for (let r = 0; r < height; r += 1) inner.line(`c${r} = fma(vec4f(${elementsOfA(r)}), ${quad}, c${r});`);
    loop.nest(`for (var step = 0u; step < ${STEPS}u; step += 1u)`, inner);
    loop.line('workgroupBarrier();'); // the next turn overwrites what was staged
    body.nest(`for (var k = 0u; k < ${depth}u; k += ${STEPS}u)`, loop);
    return tile;
  };
}

interface Region {
  readonly slice: string;
  /** The tile's first row or column. */
  readonly start: string;
  /** Rows or columns there are. */
  readonly extent: number;
  /** Rows or columns of the tile. */
  readonly tile: number;
  readonly depth: number;
}

/**
 * Reads a tile's part of an operand into workgroup memory as [step][row or column], steps beyond the depth as zeros.
 * Returns quads to a step.
 */
export function stage(
  module: Module,
  operand: Operand,
  name: string,
  { slice, start, extent, tile, depth }: Region,
  body: Statements,
  loop: Statements,
): number {
  const quads = tile / 4;
  module.declare(`var<workgroup> ${name}: array<vec4f, ${STEPS * quads}>;`);
  const inDepth = (k: string) => (depth % STEPS === 0 ? null : `(${k} < ${depth}u)`);
  // Which element, or quad of elements, an invocation reads in its i-th turn.
  const perQuad = operand.quads === 'none' ? 1 : 4;
  const items = (STEPS * tile) / perQuad;
  for (let i = 0; i * LANES < items; i += 1) {
    const item = items < LANES ? LANE : body.let('u32', `${LANE} + ${i * LANES}u`);
    const inner = items < LANES ? new Statements(module, loop) : loop;
    if (operand.quads === 'free') {
      const place = body.let('u32', `${item} % ${quads}u`);
      const step = body.let('u32', `${item} / ${quads}u`);
      const fixed = operand.fixed(
        body,
        slice,
        body.let('u32', `min(${start} + ${place} * 4u, ${extent - 4}u)`),
      );
      const k = inner.let('u32', `k + ${step}`);
      inner.line(
        `${name}[${item}] = ${operand.read(inner, fixed, operand.step(inner, k), true, inDepth(k))};`,
      );
    } else {
      // Neighbouring invocations read neighbouring steps, or rows where those lie closer in memory.
      const stepsFirst = operand.quads === 'k' || !operand.isCloserAlongFree();
      const turns = STEPS / perQuad;
      const step = body.let('u32', stepsFirst ? `${item} % ${turns}u * ${perQuad}u` : `${item} / ${tile}u`);
      const place = body.let('u32', stepsFirst ? `${item} / ${turns}u` : `${item} % ${tile}u`);
      const fixed = operand.fixed(body, slice, body.let('u32', `min(${start} + ${place}, ${extent - 1}u)`));
      const k = inner.let('u32', `k + ${step}`);
      const value = operand.read(inner, fixed, operand.step(inner, k), perQuad === 4, inDepth(k));
      for (let j = 0; j < perQuad; j += 1) {
        const element = perQuad === 1 ? value : `${value}.${COMPONENTS[j]}`;
        inner.line(`${name}[(${step} + ${j}u) * ${quads}u + ${place} / 4u][${place} % 4u] = ${element};`);
      }
    }
    if (items < LANES) loop.nest(`if (${LANE} < ${items}u)`, inner);
  }
  return quads;
}

/**
 * Tiles of halves for GPUs whose subgroups multiply 16 by 16 matrices: a workgroup of two by two subgroups computes 128
 * by 128 results, each subgroup 4 by 4 matrices of them; or 64 by 64, 2 by 2 of them, where those would be few.
 *
 * Both panels are staged with their steps along k side by side, as the matrix units take them in pairs: an operand
 * that lies the other way is turned on its way through registers, four by four. Sums are f32; they pass through workgroup
 * memory, a row of matrices at a time, to invocations that know which row and columns they have.
 */
import { COMPONENTS, type Contraction, type EachResult, type Tile } from './contract.ts';
import { LANE, SUBGROUP } from './launch.ts';
import { type Module, Statements } from './module.ts';
import type { Operand } from './operand.ts';
import { type Extents, placeTile, tilesIn } from './tileGrid.ts';

/** Rows, columns and steps of a matrix. */
const EDGE = 16;
const SUBGROUP_LANES = 32;
const LANES = 4 * SUBGROUP_LANES;
/** Steps along k that are staged at a time. */
const STEPS = 32;
/** Quads of halves from one row of a panel to the next: two more than it has, so that rows meet other banks. */
const STRIDE = STEPS / 4 + 2;

/** A tiling of that kind. */
class MatrixTiling {
  /** Matrices of a subgroup, down and across. */
  readonly side: number;
  /** Rows and columns of a subgroup, and of a workgroup. */
  readonly share: number;
  readonly tile: number;
  /** Quads of results from one row of a subgroup's to the next. */
  readonly resultStride: number;
  readonly storageBytes: number;

  constructor(side: number) {
    this.side = side;
    this.share = EDGE * side;
    this.tile = 2 * this.share;
    this.resultStride = this.share / 4 + 1;
    this.storageBytes = 8 * 2 * this.tile * STRIDE + 16 * 4 * EDGE * this.resultStride;
  }

  /** How many tiles there are. */
  tiles(extents: Extents): number {
    return tilesIn(extents, { tall: this.tile, wide: this.tile });
  }
}

const large = new MatrixTiling(4);
const small = new MatrixTiling(2);
/** Tiles that keep a device busy, and those for which the matrix units are worth it at all. */
const ENOUGH_LARGE = 96;
const ENOUGH_SMALL = 16;

/** How the contraction is tiled, or null where it is not of halves that can be staged, or too small. */
export function matrixTiling(contraction: Contraction): MatrixTiling | null {
  const { module, a, b, depth } = contraction;
  const { matrices, subgroupSize, maxWorkgroupStorageBytes } = module.capabilities;
  if (!matrices || subgroupSize !== SUBGROUP_LANES || !a.isHalfQuads || !b.isHalfQuads || depth < STEPS)
    return null;
  const fits = ({ storageBytes }: MatrixTiling): boolean => storageBytes <= maxWorkgroupStorageBytes;
  if (fits(large) && large.tiles(contraction) >= ENOUGH_LARGE) return large;
  return fits(small) && small.tiles(contraction) >= ENOUGH_SMALL ? small : null;
}

/** A function that writes such tiles. */
export function matrixTile(contraction: Contraction, tiling: MatrixTiling): (body: Statements) => Tile {
  const { module, rows, columns, depth, a, b } = contraction;
  const { side, share: own, tile, resultStride } = tiling;
  module.useMatrices();
  module.declare(`var<workgroup> results: array<vec4f, ${4 * EDGE * resultStride}>;`);
  const all = Array.from({ length: side }, (_, i) => i);
  return (body) => {
    const { slice, top, first, limited } = placeTile(body, contraction, { tall: tile, wide: tile });
    const ownTop = body.let('u32', `${SUBGROUP} / 2u * ${own}u`);
    const ownFirst = body.let('u32', `${SUBGROUP} % 2u * ${own}u`);
    for (const i of all)
      for (const j of all) body.line(`var c${i}_${j}: subgroup_matrix_result<f32, ${EDGE}, ${EDGE}>;`);
    const loop = new Statements(module, body);
    stage(module, tile, a, 'panelA', slice, top, rows, depth, body, loop);
    stage(module, tile, b, 'panelB', slice, first, columns, depth, body, loop);
    loop.line('workgroupBarrier();');
    for (let k = 0; k < STEPS; k += EDGE) {
      const product = new Statements(module, loop);
      const load = (side: 'left' | 'right', major: string, panel: string, start: string, i: number): string =>
        `subgroupMatrixLoad<subgroup_matrix_${side}<f16, ${EDGE}, ${EDGE}>, ${major}>(&${panel}, (${start} + ${i * EDGE}u) * ${STRIDE}u + ${k / 4}u, ${STRIDE}u)`;
      for (const i of all) product.line(`let a${i} = ${load('left', 'row_major', 'panelA', ownTop, i)};`);
      for (const j of all) product.line(`let b${j} = ${load('right', 'col_major', 'panelB', ownFirst, j)};`);
      for (const i of all)
        for (const j of all)
          product.line(`c${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, c${i}_${j});`);
      loop.nest('', product);
    }
    loop.line('workgroupBarrier();');
    body.nest(`for (var k = 0u; k < ${depth}u; k += ${STEPS}u)`, loop);
    return {
      workgroupSize: LANES,
      workgroups: tiling.tiles(contraction),
      slice,
      visit: (block, each) => {
        const share = block.let('u32', `${SUBGROUP} * ${EDGE * resultStride}u`);
        visitMatrices(
          module,
          tiling,
          block,
          each,
          share,
          limited(block, `${top} + ${ownTop}`),
          `${first} + ${ownFirst}`,
        );
      },
    };
  };
}

/** Reads a panel into workgroup memory as [row or column][step], zeros beyond the depth. */
function stage(
  module: Module,
  tile: number,
  operand: Operand,
  name: string,
  slice: string,
  start: string,
  extent: number,
  depth: number,
  body: Statements,
  loop: Statements,
): void {
  module.declare(`var<workgroup> ${name}: array<vec4<f16>, ${tile * STRIDE}>;`);
  const misses = depth % STEPS !== 0;
  const fetch = (register: string, fixed: readonly string[], step: string): void => {
    const k = loop.let('u32', `k + ${step}`);
    operand.declare(loop, register, misses);
    operand.fetch(loop, register, fixed, operand.step(loop, k), misses ? `(${k} < ${depth}u)` : null);
  };
  const stepQuad = body.let('u32', `${LANE} % ${STEPS / 4}u`);
  const step = body.let('u32', `${stepQuad} * 4u`);
  const row = body.let('u32', `${LANE} / ${STEPS / 4}u`);
  /** Rows that the workgroup reads at once, or quads of rows. */
  const atOnce = LANES / (STEPS / 4);
  if (operand.quads === 'k') {
    const places = Array.from({ length: tile / atOnce }, (_, i) =>
      body.let('u32', `${row} + ${i * atOnce}u`),
    );
    places.forEach((place, i) => {
      const fixed = operand.fixed(body, slice, body.let('u32', `min(${start} + ${place}, ${extent - 1}u)`));
      fetch(`${name}${i}`, fixed, step);
    });
    places.forEach((place, i) => {
      const halves = operand.fetchedHalves(loop, `${name}${i}`, misses);
      loop.line(`${name}[${place} * ${STRIDE}u + ${stepQuad}] = ${halves};`);
    });
    return;
  }
  const places = Array.from({ length: tile / 4 / atOnce }, (_, i) =>
    body.let('u32', `(${row} + ${i * atOnce}u) * 4u`),
  );
  places.forEach((place, i) => {
    const fixed = operand.fixed(body, slice, body.let('u32', `min(${start} + ${place}, ${extent - 4}u)`));
    COMPONENTS.forEach((_, j) => {
      fetch(`${name}${i}_${j}`, fixed, body.let('u32', `${step} + ${j}u`));
    });
  });
  places.forEach((place, i) => {
    const steps = COMPONENTS.map((_, j) => operand.fetchedHalves(loop, `${name}${i}_${j}`, misses));
    COMPONENTS.forEach((component, r) => {
      const turned = steps.map((halves) => `${halves}.${component}`).join(', ');
      loop.line(`${name}[(${place} + ${r}u) * ${STRIDE}u + ${stepQuad}] = vec4<f16>(${turned});`);
    });
  });
}

/** A visit to a subgroup's results, which begin at row `top` and column `first`, by way of its share of `results`. */
function visitMatrices(
  module: Module,
  { side, share: extent, resultStride }: MatrixTiling,
  block: Statements,
  each: EachResult,
  share: string,
  top: string,
  first: string,
): void {
  const turn = new Statements(module, block);
  const cases = Array.from({ length: side }, (_, i) => {
    const stores = Array.from(
      { length: side },
      (_, j) =>
        `subgroupMatrixStore<row_major>(&results, ${share} + ${(j * EDGE) / 4}u, c${i}_${j}, ${resultStride}u);`,
    );
    return `${i === side - 1 ? 'default' : `case ${i}u`}: { ${stores.join(' ')} }`;
  });
  turn.line(`switch i { ${cases.join(' ')} }`);
  turn.line('workgroupBarrier();');
  const visit = new Statements(module, turn);
  // Neighbouring lanes have neighbouring columns.
  const quads = extent / 4;
  const quad = visit.let('u32', `${LANE} % ${quads}u`);
  const row = visit.let('u32', `r + ${LANE} % ${SUBGROUP_LANES}u / ${quads}u`);
  const result = visit.let('vec4f', `results[${share} + ${row} * ${resultStride}u + ${quad}]`);
  const at = visit.let('u32', `${top} + i * ${EDGE}u + ${row}`);
  each(visit, at, visit.let('u32', `${first} + ${quad} * 4u`), result);
  turn.nest(`for (var r = 0u; r < ${EDGE}u; r += ${SUBGROUP_LANES / quads}u)`, visit);
  turn.line('workgroupBarrier();');
  block.nest(`for (var i = 0u; i < ${side}u; i += 1u)`, turn);
}

/**
 * Tiles of halves for GPUs whose subgroups multiply 16 by 16 matrices: a workgroup of four subgroups computes 128 by
 * 128 results, each subgroup 4 by 4 matrices of them.
 *
 * Both panels are staged with their steps along k side by side, as the matrix units take them in pairs: an operand
 * that lies the other way is turned on its way through registers, four by four. Sums are f32; they pass through workgroup
 * memory, a row of matrices at a time, to invocations that know which row and columns they have.
 */
import { COMPONENTS, type Contraction, type EachResult, type Tile } from './contract.ts';
import { LANE, SUBGROUP } from './launch.ts';
import { type Module, Statements } from './module.ts';
import type { Operand } from './operand.ts';
import { placeTile, tilesIn } from './tileGrid.ts';

/** Rows, columns and steps of a matrix. */
const EDGE = 16;
/** Matrices of a subgroup, down and across. */
const SIDE = 4;
/** Rows and columns of a subgroup, and of a workgroup of two by two subgroups. */
const SHARE = EDGE * SIDE;
const TILE = 2 * SHARE;
const SUBGROUP_LANES = 32;
const LANES = 4 * SUBGROUP_LANES;
/** Steps along k that are staged at a time. */
const STEPS = 32;
/** Quads of halves from one row of a panel to the next: two more than it has, so that rows meet other banks. */
const STRIDE = STEPS / 4 + 2;
/** Quads of results from one row of a subgroup's to the next. */
const RESULT_STRIDE = SHARE / 4 + 1;
const STORAGE_BYTES = 8 * 2 * TILE * STRIDE + 16 * 4 * EDGE * RESULT_STRIDE;
/** Tiles that keep a device busy: fewer are better computed in smaller ones. */
const ENOUGH_TILES = 96;

const tileSize = { tall: TILE, wide: TILE };

/** Whether the contraction is of halves that can be staged, and large enough. */
export function suitsMatrices(contraction: Contraction): boolean {
  const { module, a, b, depth } = contraction;
  const { matrices, subgroupSize, maxWorkgroupStorageBytes } = module.capabilities;
  return (
    matrices &&
    subgroupSize === SUBGROUP_LANES &&
    maxWorkgroupStorageBytes >= STORAGE_BYTES &&
    a.isHalfQuads &&
    b.isHalfQuads &&
    depth >= STEPS &&
    tilesIn(contraction, tileSize) >= ENOUGH_TILES
  );
}

/** A function that writes such tiles. */
export function matrixTile(contraction: Contraction): (body: Statements) => Tile {
  const { module, rows, columns, depth, a, b } = contraction;
  module.useMatrices();
  module.declare(`var<workgroup> results: array<vec4f, ${4 * EDGE * RESULT_STRIDE}>;`);
  const all = Array.from({ length: SIDE }, (_, i) => i);
  return (body) => {
    const { slice, top, first, limited } = placeTile(body, contraction, tileSize);
    const ownTop = body.let('u32', `${SUBGROUP} / 2u * ${SHARE}u`);
    const ownFirst = body.let('u32', `${SUBGROUP} % 2u * ${SHARE}u`);
    for (const i of all)
      for (const j of all) body.line(`var c${i}_${j}: subgroup_matrix_result<f32, ${EDGE}, ${EDGE}>;`);
    const loop = new Statements(module, body);
    stage(module, a, 'panelA', slice, top, rows, depth, body, loop);
    stage(module, b, 'panelB', slice, first, columns, depth, body, loop);
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
      workgroups: tilesIn(contraction, tileSize),
      slice,
      visit: (block, each) => {
        const share = block.let('u32', `${SUBGROUP} * ${EDGE * RESULT_STRIDE}u`);
        visitMatrices(
          module,
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
  operand: Operand,
  name: string,
  slice: string,
  start: string,
  extent: number,
  depth: number,
  body: Statements,
  loop: Statements,
): void {
  module.declare(`var<workgroup> ${name}: array<vec4<f16>, ${TILE * STRIDE}>;`);
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
    const places = Array.from({ length: TILE / atOnce }, (_, i) =>
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
  const places = Array.from({ length: TILE / 4 / atOnce }, (_, i) =>
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
  block: Statements,
  each: EachResult,
  share: string,
  top: string,
  first: string,
): void {
  const turn = new Statements(module, block);
  const cases = Array.from({ length: SIDE }, (_, i) => {
    const stores = Array.from(
      { length: SIDE },
      (_, j) =>
        `subgroupMatrixStore<row_major>(&results, ${share} + ${(j * EDGE) / 4}u, c${i}_${j}, ${RESULT_STRIDE}u);`,
    );
    return `${i === SIDE - 1 ? 'default' : `case ${i}u`}: { ${stores.join(' ')} }`;
  });
  turn.line(`switch i { ${cases.join(' ')} }`);
  turn.line('workgroupBarrier();');
  const visit = new Statements(module, turn);
  // Neighbouring lanes have neighbouring columns: half a subgroup has a row.
  const quad = visit.let('u32', `${LANE} % ${EDGE}u`);
  const row = visit.let('u32', `r + ${LANE} % ${SUBGROUP_LANES}u / ${EDGE}u`);
  const result = visit.let('vec4f', `results[${share} + ${row} * ${RESULT_STRIDE}u + ${quad}]`);
  const at = visit.let('u32', `${top} + i * ${EDGE}u + ${row}`);
  each(visit, at, visit.let('u32', `${first} + ${quad} * 4u`), result);
  turn.nest(`for (var r = 0u; r < ${EDGE}u; r += 2u)`, visit);
  turn.line('workgroupBarrier();');
  block.nest(`for (var i = 0u; i < ${SIDE}u; i += 1u)`, turn);
}

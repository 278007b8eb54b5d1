/**
 * Tiles for GPUs: a workgroup of 8 by 16 invocations stages panels of A and B in workgroup memory, and each
 * invocation computes up to eight rows of four columns from there.
 */
import type { Contraction, EachResult, Tile } from './contract.ts';
import { LANE } from './launch.ts';
import type { Statements } from './module.ts';
import { addProducts, DOWN, Panel, rowOf, SIDE, sweepPanels, TILE_LANES, WIDTH } from './panels.ts';
import { type Extents, placeTile, tilesIn } from './tileGrid.ts';

/** Tiles that keep a device busy: rather than fewer, tiles get smaller. */
const ENOUGH_TILES = 128;

/** Tiles of an output of so many rows and columns, an invocation computing `height` rows. */
export function sharedTiles(extents: Extents, height: number): number {
  return tilesIn(extents, { tall: DOWN * height, wide: WIDTH });
}

/** Rows of an invocation, by rule. */
export function sharedHeight(extents: Extents): number {
  const { rows } = extents;
  if (rows > 4 * DOWN && sharedTiles(extents, 8) >= ENOUGH_TILES) return 8;
  return rows > 2 * DOWN ? 4 : rows > DOWN ? 2 : 1;
}

/** A function that writes tiles of so many rows (1, 2, 4 or 8) to an invocation. */
export function sharedTile(contraction: Contraction, height: number): (body: Statements) => Tile {
  const { module, rows, columns, depth, a, b } = contraction;
  const tall = DOWN * height;
  return (body) => {
    const { slice, top, first, limited } = placeTile(body, contraction, { tall, wide: WIDTH });
    const x = body.let('u32', `${LANE} % ${SIDE}u`);
    const y = body.let('u32', `${LANE} / ${SIDE}u`);
    const own = limited(body, top);
    const column = body.let('u32', `${first} + ${x} * 4u`);
    for (let r = 0; r < height; r += 1) body.line(`var c${r} = vec4f();`);
    const tile = {
      workgroupSize: TILE_LANES,
      workgroups: sharedTiles(contraction, height),
      slice,
      // A GPU keeps in registers only what is indexed by constants.
      visit: (block: Statements, each: EachResult): void => {
        for (let r = 0; r < height; r += 1) {
          each(block, block.let('u32', `${own} + ${rowOf(height, y, r)}`), column, `c${r}`);
        }
      },
    };
    if (depth === 0) return tile;
    const ofA = { slice, start: top, extent: rows, tile: tall, depth };
    const ofB = { slice, start: first, extent: columns, tile: WIDTH, depth };
    const left = new Panel(module, a, 'panelA', ofA, TILE_LANES, body);
    const right = new Panel(module, b, 'panelB', ofB, TILE_LANES, body);
    sweepPanels(module, body, depth, [left, right], (step) => {
      const rowsOfA = (q: string): string => left.quad('step', q);
      addProducts(step, height, y, rowsOfA, right.quad('step', x), (r) => `c${r}`);
    });
    return tile;
  };
}

/**
 * Tiles for GPUs: a workgroup of 8 by 16 invocations stages panels of A and B in workgroup memory, and each
 * invocation computes up to eight rows of four columns from there.
 */
import type { Contraction, EachResult, Tile } from './contract.ts';
import { GROUP, LANE } from './launch.ts';
import type { Statements } from './module.ts';
import { DOWN, Panel, rowOf, rowsAt, SIDE, sweepPanels, TILE_LANES, WIDTH } from './panels.ts';

/** Tiles that keep a device busy: rather than fewer, tiles get smaller. */
const ENOUGH_TILES = 128;

/** Tiles of an output of so many rows and columns, an invocation computing `height` rows. */
export function sharedTiles(batch: number, rows: number, columns: number, height: number): number {
  return batch * Math.ceil(columns / WIDTH) * Math.ceil(rows / (DOWN * height));
}

/** Rows of an invocation, by rule. */
export function sharedHeight({ batch, rows, columns }: Contraction): number {
  if (rows > 4 * DOWN && sharedTiles(batch, rows, columns, 8) >= ENOUGH_TILES) return 8;
  return rows > 2 * DOWN ? 4 : rows > DOWN ? 2 : 1;
}

/** A function that writes tiles of so many rows (1, 2, 4 or 8) to an invocation. */
export function sharedTile(contraction: Contraction, height: number): (body: Statements) => Tile {
  const { module, batch, rows, columns, depth, a, b } = contraction;
  const across = Math.ceil(columns / WIDTH);
  const tall = DOWN * height;
  return (body) => {
    const down = Math.ceil(rows / tall);
    const first = body.let('u32', `${GROUP} % ${across}u * ${WIDTH}u`);
    const top = body.let('u32', `${GROUP} / ${across}u % ${down}u * ${tall}u`);
    // Invocations of workgroups that only round up the grid compute the last slice again and store nothing.
    const wanted = body.let('u32', `${GROUP} / ${across * down}u`);
    const slice = body.let('u32', `min(${wanted}, ${batch - 1}u)`);
    const x = body.let('u32', `${LANE} % ${SIDE}u`);
    const y = body.let('u32', `${LANE} / ${SIDE}u`);
    const own = body.let('u32', `select(${rows}u, ${top}, ${wanted} < ${batch}u)`);
    const column = body.let('u32', `${first} + ${x} * 4u`);
    for (let r = 0; r < height; r += 1) body.line(`var c${r} = vec4f();`);
    const tile = {
      workgroupSize: TILE_LANES,
      workgroups: sharedTiles(batch, rows, columns, height),
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
      const quad = step.let('vec4f', right.quad('step', x));
      rowsAt(step, height, y, (q) => left.quad('step', q)).forEach((element, r) => {
        step.line(`c${r} = fma(vec4f(${element}), ${quad}, c${r});`);
      });
    });
    return tile;
  };
}

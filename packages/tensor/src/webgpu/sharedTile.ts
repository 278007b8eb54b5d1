/**
 * Tiles for GPUs: a workgroup stages panels of A and B in workgroup memory, and each invocation computes some rows of
 * one or two quads of columns from there.
 */
import type { Contraction, EachResult, Tile } from './contract.ts';
import type { Statements } from './module.ts';
import {
  addProducts,
  COLUMNS,
  fetchFirst,
  inBlocks,
  Panel,
  panelBytes,
  rowOf,
  SIDE,
  type Stretch,
  sweepPanels,
} from './panels.ts';
import { type Extents, placeTile, tilesIn } from './tileGrid.ts';

/** Tiles of one kind, of 8 height by 64 elements or of 16 height by 128. */
export interface SharedTiling {
  readonly kind: 'shared' | 'large';
  /** Rows of an invocation: 1, 2, 4 or 8. */
  readonly height: number;
}

/** Rows of invocations, quads of columns of each, and columns of a tile. */
const shapes = {
  shared: { down: 8, wide: 1, columns: COLUMNS },
  large: { down: 16, wide: 2, columns: 2 * COLUMNS },
} as const;

/** Tiles that keep a device busy: rather than fewer, tiles get smaller. Large ones need more, two to a multiprocessor. */
const ENOUGH_TILES = { shared: 128, large: 192 };

/** Elements of large tiles to those of the four smaller tiles of each, at most: what lies beyond the output is lost. */
const MOST_WASTE = 1.25;

/** Tiles of an output of so many rows and columns. */
export function sharedTiles(extents: Extents, { kind, height }: SharedTiling): number {
  const { down, columns } = shapes[kind];
  return tilesIn(extents, { tall: down * height, wide: columns });
}

/** Bytes of a large tile's panels. */
const LARGE_BYTES = 2 * panelBytes(shapes.large.columns);

/** Whether workgroups with so many bytes of memory can compute tiles of the kind. */
export function fitsIn(kind: SharedTiling['kind'], maxStorageBytes: number): boolean {
  return kind !== 'large' || maxStorageBytes >= LARGE_BYTES;
}

/** The tiling by rule, for workgroups with so many bytes of memory. */
export function sharedTiling(extents: Extents, maxStorageBytes: number): SharedTiling {
  const { rows } = extents;
  const [large, tall] = [
    { kind: 'large', height: 8 },
    { kind: 'shared', height: 8 },
  ] as const;
  const [largeTiles, tallTiles] = [sharedTiles(extents, large), sharedTiles(extents, tall)];
  const suits = fitsIn('large', maxStorageBytes) && 4 * largeTiles <= MOST_WASTE * tallTiles;
  if (suits && largeTiles >= ENOUGH_TILES.large) return large;
  if (rows > 32 && tallTiles >= ENOUGH_TILES.shared) return tall;
  return { kind: 'shared', height: rows > 16 ? 4 : rows > 8 ? 2 : 1 };
}

/** A function that writes tiles of that kind. */
export function sharedTile(contraction: Contraction, tiling: SharedTiling): (body: Statements) => Tile {
  const { module, rows, columns, depth, a, b } = contraction;
  const { kind, height } = tiling;
  const { down, wide, columns: width } = shapes[kind];
  const [tall, lanes] = [down * height, down * SIDE];
  return (body) => {
    const { slice, top, first, limited } = placeTile(body, contraction, { tall, wide: width });
    const [x, y] = [body.let('u32', inBlocks.x), body.let('u32', inBlocks.y)];
    const share = { height, wide, down, x, y };
    const own = limited(body, top);
    const quads = Array.from({ length: wide }, (_, c) => c);
    const eachSum = (visit: (r: number, c: number) => void): void => {
      for (let r = 0; r < height; r += 1) for (const c of quads) visit(r, c);
    };
    eachSum((r, c) => {
      body.line(`var c${r}_${c} = vec4f();`);
    });
    const tile = {
      workgroupSize: lanes,
      workgroups: sharedTiles(contraction, tiling),
      slice,
      // A GPU keeps in registers only what is indexed by constants.
      visit: (block: Statements, each: EachResult): void => {
        eachSum((r, c) => {
          const column = block.let('u32', `${first} + ${c * COLUMNS}u + ${x} * 4u`);
          each(block, block.let('u32', `${own} + ${rowOf(share, r)}`), column, `c${r}_${c}`);
        });
      },
    };
    if (depth === 0) return tile;
    const ofA = { slice, start: top, extent: rows, tile: tall, depth };
    const ofB = { slice, start: first, extent: columns, tile: width, depth };
    const left = new Panel(module, a, 'panelA', ofA, lanes, body);
    const right = new Panel(module, b, 'panelB', ofB, lanes, body);
    const multiply: Stretch['multiply'] = (block, step) => {
      const [rowsOfA, columnsOfB] = [left, right].map((panel) => (quad: string) => panel.quad(step, quad));
      addProducts(block, share, rowsOfA!, columnsOfB!, (r, c) => `c${r}_${c}`);
    };
    const stretch = { panels: [left, right], depth, multiply, isWrittenOut: module.capabilities.unrolls };
    for (const panel of stretch.panels) panel.declare(body);
    fetchFirst(body, stretch);
    sweepPanels(module, body, stretch, null);
    return tile;
  };
}

/** Tiles of a contraction's output, one for each workgroup, row by row of every slice. */
import type { Contraction } from './contract.ts';
import { GROUP } from './launch.ts';
import type { Statements } from './module.ts';

export type Extents = Pick<Contraction, 'batch' | 'rows' | 'columns'>;

/** Rows and columns of a tile. */
interface TileSize {
  readonly tall: number;
  readonly wide: number;
}

/** How many tiles there are. */
export function tilesIn({ batch, rows, columns }: Extents, { tall, wide }: TileSize): number {
  return batch * Math.ceil(columns / wide) * Math.ceil(rows / tall);
}

/** Where the workgroup's tile is: u32 names. */
interface TilePlace {
  readonly slice: string;
  /** Its first row and column. */
  readonly top: string;
  readonly first: string;
  /** A name for a row, which lies beyond the last one in workgroups that have no tile of their own. */
  limited(block: Statements, row: string): string;
}

/** Names the place; workgroups that only round up the grid compute the last slice again, and are to store nothing. */
export function placeTile(
  body: Statements,
  { batch, rows, columns }: Extents,
  { tall, wide }: TileSize,
): TilePlace {
  const [down, across] = [Math.ceil(rows / tall), Math.ceil(columns / wide)];
  const first = body.let('u32', `${GROUP} % ${across}u * ${wide}u`);
  const top = body.let('u32', `${GROUP} / ${across}u % ${down}u * ${tall}u`);
  const wanted = body.let('u32', `${GROUP} / ${across * down}u`);
  const slice = body.let('u32', `min(${wanted}, ${batch - 1}u)`);
  const limited = (block: Statements, row: string): string =>
    block.let('u32', `select(${rows}u, ${row}, ${wanted} < ${batch}u)`);
  return { slice, top, first, limited };
}

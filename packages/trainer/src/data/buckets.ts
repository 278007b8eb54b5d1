/**
 * Aspect-ratio buckets: sizes of about as many pixels as the square that a model draws, for pictures that are wider than
 * high or higher than wide, so that little of them is cut away.
 */

/** Width and height, in pixels. */
export interface PictureSize {
  readonly width: number;
  readonly height: number;
}

/**
 * The square of `size` pixels and, either way round, every width above it with the largest height for which both are
 * multiples of `multiple`, the area at most size², and the longer side at most `ratio` times the shorter.
 */
export function bucketSizes(size: number, multiple: number, ratio: number): PictureSize[] {
  const sizes: PictureSize[] = [{ width: size, height: size }];
  for (let long = size + multiple; ; long += multiple) {
    const short = Math.floor(size ** 2 / long / multiple) * multiple;
    if (short === 0 || long / short > ratio) return sizes;
    sizes.push({ width: long, height: short }, { width: short, height: long });
  }
}

/** The size whose shape is nearest to that of a picture: by the ratio of their ratios of sides. */
export function nearestSize(sizes: readonly PictureSize[], { width, height }: PictureSize): PictureSize {
  const farness = (size: PictureSize): number =>
    Math.abs(Math.log((size.width / size.height) * (height / width)));
  return sizes.reduce((best, size) => (farness(size) < farness(best) ? size : best));
}

/** "40 x 24" */
export function sizeInWords({ width, height }: PictureSize): string {
  return `${width} x ${height}`;
}

/**
 * How much of a picture's foreground is a known subject.
 *
 * The subject is drawn on the picture's own background at a pose (x, y, radius) and compared pixel by pixel over
 * everything that either of the two shows:
 *
 *     s(pose) = mean over U of exp(-|picture - drawn|^2 / (2 sigma^2)),   U = foreground or drawn subject       (1)
 *
 * so that missing parts, wrong colours and additions all cost. The similarity is the best s over poses near the
 * foreground's box: coordinate descent with halving steps.
 */

import { foreground, frameOf, pixelAt, placeOf, rgbDistance } from './measure.ts';
import { blankPicture, type Picture, paintLayers } from './render.ts';
import type { Pose } from './scene.ts';
import { drawingOf, type Subject } from './subjects.ts';

/** RGB distance at which a pixel has lost 40 % of its match. */
const sigma = 0.2;

/** The best match in [0, 1] of the picture's foreground with the subject at any place and size; 0 without foreground. */
export function subjectSimilarity(picture: Picture, subject: Subject): number {
  const { background, mask, bounds } = foreground(picture);
  if (bounds === null) return 0;
  const { width } = picture;
  const { layers } = drawingOf(subject);

  const match = (pose: Pose): number => {
    const drawn = blankPicture(width, background);
    paintLayers(drawn, layers, pose);
    let total = 0;
    let union = 0;
    for (let i = 0; i < mask.length; i += 1) {
      const ours = pixelAt(drawn, i);
      if (mask[i] === 0 && rgbDistance(ours, background) < 0.1) continue;
      union += 1;
      total += Math.exp(-(rgbDistance(pixelAt(picture, i), ours) ** 2) / (2 * sigma ** 2)); // (1)
    }
    return union === 0 ? 0 : total / union;
  };

  const { x, y, extent } = placeOf(bounds, width);
  const frame = frameOf(layers);
  const radius = extent / frame.extent;
  let best: Pose = { x: x - frame.x * radius, y: y - frame.y * radius, radius, rotation: 0 };
  let bestMatch = match(best);
  const steps = { x: 4 / width, y: 4 / width, radius: 0.15 * best.radius, rotation: 0.1 };
  for (let halving = 0; halving < 5; halving += 1) {
    for (let sweep = 0; sweep < 3; sweep += 1) {
      const before = bestMatch;
      for (const key of ['x', 'y', 'radius', 'rotation'] as const) {
        for (const sign of [-1, 1]) {
          const pose = { ...best, [key]: best[key] + (sign * steps[key]) / 2 ** halving };
          const value = pose.radius > 0.1 && Math.abs(pose.rotation) < 0.3 ? match(pose) : 0;
          if (value > bestMatch) [best, bestMatch] = [pose, value];
        }
      }
      if (bestMatch === before) break;
    }
  }
  return bestMatch;
}

/** Examples of the tasks with pictures: what is given, what is asked for, and the picture that answers. */
import { canny, luma } from '../metrics/index.ts';
import {
  caption,
  draws,
  elsewhere,
  fromPlane,
  type Picture,
  type PictureTask,
  placePhrase,
  renderDepth,
  renderScene,
  type Scene,
  sampleScene,
} from '../world/index.ts';

export interface PictureExample {
  readonly input: Picture;
  /** In the world's words, without those of the task. */
  readonly caption: string;
  readonly target: Picture;
  /** What the target shows. */
  readonly scene: Scene;
}

/** The edges of a picture, white on black. */
export function edgePicture(picture: Picture): Picture {
  return fromPlane(picture.width, picture.height, canny(luma(picture)));
}

/** (1 - share) of the first picture and `share` of the second. */
export function blended(first: Picture, second: Picture, share: number): Picture {
  return { ...first, data: first.data.map((value, i) => (1 - share) * value + share * second.data[i]!) };
}

/** Scene `index` of the world, or, where it has several things, the next one under another number that has one. */
function singleScene(seed: number, index: number): Scene {
  for (let attempt = 0; ; attempt += 1) {
    const scene = sampleScene(seed, index + attempt * 2 ** 32);
    if (scene.count === 1) return scene;
  }
}

/** Example `index` of a task in the world of a seed, `size` x `size` pixels: a pure function of all four. */
export function pictureExample(task: PictureTask, seed: number, index: number, size: number): PictureExample {
  if (task === 'reference') {
    const from = singleScene(seed, index);
    const scene = elsewhere(from, draws(seed ^ 0x4ef, index));
    const words = placePhrase(scene.position, scene.background);
    return { input: renderScene(from, size), caption: words, target: renderScene(scene, size), scene };
  }
  const scene = sampleScene(seed, index);
  const target = renderScene(scene, size);
  const input = {
    copy: () => target,
    canny: () => edgePicture(target),
    depth: () => renderDepth(scene, size),
  }[task]();
  return { input, caption: caption(scene, seed, index), target, scene };
}

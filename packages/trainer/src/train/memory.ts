/** Memory for accuracy, and memory for time. */
import { checkpoint } from '@deftjs/autograd';
import { Conv2d, Linear, type Module, namedModules } from '@deftjs/autograd/nn';
import { ResnetBlock2D, Transformer2DModel } from '@deftjs/models';
import { cast, type Device, evaluate, keep } from '@deftjs/tensor';
import { UserError } from '../userError.ts';

/** Stores the weights of layers that are not trained as f16, half the bytes. Computation is in f32. */
export async function halveFrozen(module: Module, device: Device): Promise<void> {
  const layers = [...namedModules(module).values()].filter((m) => m instanceof Linear || m instanceof Conv2d);
  const frozen = layers.map(({ weight }) => weight).filter(({ trainable }) => !trainable);
  const halves = frozen.map(({ value }) => cast(value, 'f16'));
  await evaluate(halves, device);
  keep(halves);
  frozen.forEach((parameter, i) => {
    parameter.value.dispose();
    parameter.value = halves[i]!;
  });
}

/**
 * Lets the blocks of a UNet compute their inner values a second time in the backward pass instead of keeping them.
 * @throws {UserError} when the network has none
 */
export function recomputeBlocks(unet: Module): void {
  const blocks = [...namedModules(unet).values()];
  if (!blocks.some((block) => block instanceof ResnetBlock2D)) {
    throw new UserError('recompute: expected a base with a UNet; got one without', 2);
  }
  for (const block of blocks) {
    if (block instanceof ResnetBlock2D) block.forward = checkpoint(block.forward.bind(block));
    if (block instanceof Transformer2DModel) block.forward = checkpoint(block.forward.bind(block));
  }
}

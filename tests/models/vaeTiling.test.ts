import { initialize, setTrainable } from '@deftjs/autograd/nn';
import {
  AutoencoderKL,
  decodeInTiles,
  encodeInTiles,
  type JsonConfig,
  loadWeights,
  vaeWeights,
} from '@deftjs/models';
import { openWeights } from '@deftjs/models/node';
import {
  compile,
  type Device,
  keyOf,
  mean,
  narrow,
  randomNormal,
  read,
  reshape,
  type Tensor,
  upsampleNearest,
  zeros,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCase } from './goldenCase.ts';

let device: Device;
/** Bytes of temporaries of each program that the device has prepared. */
let prepared: number[];
let vae: AutoencoderKL;
beforeAll(async () => {
  ({ device } = await openDevice('wasm'));
  const prepare = device.prepare.bind(device);
  prepared = [];
  device.prepare = async (graph) => {
    const program = await prepare(graph);
    prepared.push(program.temporaryBytes);
    return program;
  };
  const golden = await openCase('vae-tiny');
  vae = new AutoencoderKL(golden.config as JsonConfig);
  initialize(vae, 0);
  setTrainable(vae, () => false);
  await using weights = await openWeights(golden.folder);
  await loadWeights(vae, vaeWeights(weights));
});
afterAll(() => device.close());

const numbers = async (x: Tensor) => Float64Array.from(await read(x, device));

/** An autoencoder of pixels alone, for which tiles change nothing: each latent becomes a block of its value. */
function blockwise(factor: number): AutoencoderKL {
  const local = {
    factor,
    decode: (latents: Tensor) => upsampleNearest(latents, factor),
    encode: (pictures: Tensor) => ({
      mean: meanOfBlocks(pictures, factor),
      logvar: zeros(meanOfBlocks(pictures, factor).shape),
    }),
  };
  return local as unknown as AutoencoderKL;
}

function meanOfBlocks(x: Tensor, factor: number): Tensor {
  const [n, c, h, w] = x.shape as [number, number, number, number];
  return mean(reshape(x, [n, c, h / factor, factor, w / factor, factor]), [3, 5]);
}

describe('the autoencoder in tiles', () => {
  it.each([
    [5, 7, 4, 0.25],
    [9, 16, 4, 0.5],
    [8, 3, 8, 0.25],
    [13, 11, 6, 0.34],
  ])(
    'blends without seams: %i x %i latents in tiles of %i, a part %f of which overlaps',
    async (h, w, size, overlap) => {
      const factor = 4;
      const options = { tileSize: size * factor, overlap, device };
      const latents = randomNormal(keyOf(1), [2, 3, h, w]);
      const decoded = await decodeInTiles(blockwise(factor), latents, options);
      expect(decoded.shape).toEqual([2, 3, h * factor, w * factor]);
      const expected = await numbers(upsampleNearest(latents, factor));
      const pixels = await numbers(decoded);
      pixels.forEach((value, i) => {
        expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-5);
      });
      const { mean: encoded } = await encodeInTiles(blockwise(factor), decoded, options);
      const [back, original] = [await numbers(encoded), await numbers(latents)];
      back.forEach((value, i) => {
        expect(Math.abs(value - original[i]!)).toBeLessThan(1e-5);
      });
    },
  );

  it('is that of one pass for what fits one tile, picture by picture', async () => {
    const { factor, config } = vae;
    const latents = randomNormal(keyOf(2), [3, config.latentChannels, 4, 6]);
    const options = { tileSize: 6 * factor, overlap: 0.25, device };
    // 6 latents are more than the stride of 4: a second tile begins within the first and ends with it.
    const narrowed = narrow(latents, 3, 0, 4);
    const decoded = await decodeInTiles(vae, narrowed, options);
    const whole = await numbers(vae.decode(narrowed));
    const pixels = await numbers(decoded);
    pixels.forEach((value, i) => {
      expect(Math.abs(value - whole[i]!)).toBeLessThan(1e-4);
    });
    const pictures = await encodeInTiles(vae, decoded, options);
    const once = vae.encode(decoded);
    for (const part of ['mean', 'logvar'] as const) {
      const [a, b] = [await numbers(pictures[part]), await numbers(once[part])];
      a.forEach((value, i) => {
        expect(Math.abs(value - b[i]!)).toBeLessThan(1e-4);
      });
    }
  });

  it('takes the memory of a tile, however large the picture is', async () => {
    const { factor, config } = vae;
    async function most(run: () => Promise<Tensor>): Promise<number> {
      prepared.length = 0;
      (await run()).dispose();
      return Math.max(...prepared);
    }
    const latents = (side: number) => randomNormal(keyOf(3), [1, config.latentChannels, side, side]);
    const decode = compile((x: Tensor) => vae.decode(x), { device });
    const tiled = (side: number) =>
      most(() => decodeInTiles(vae, latents(side), { tileSize: 8 * factor, device }));
    const [once, small, large] = [await most(() => decode(latents(24))), await tiled(8), await tiled(24)];
    expect(large).toBeLessThan(1.5 * small); // tiles at the border have shapes of their own
    expect(large).toBeLessThan(once / 2); // a ninth of the pixels, and what packing takes at any size
    decode.dispose();
  });

  it('leaves nothing on the device but the pictures', async () => {
    const latents = randomNormal(keyOf(4), [2, vae.config.latentChannels, 6, 6]);
    (await decodeInTiles(vae, latents, { tileSize: 4 * vae.factor, device })).dispose();
    const before = device.bytesInUse;
    const decoded = await decodeInTiles(vae, latents, { tileSize: 4 * vae.factor, device });
    expect(device.bytesInUse - before).toBeLessThan(2 * decoded.sizeBytes);
    decoded.dispose();
    expect(device.bytesInUse).toBeLessThanOrEqual(before);
  });

  it('refuses tiles that the autoencoder cannot have', async () => {
    const latents = zeros([1, vae.config.latentChannels, 4, 4]);
    await expect(decodeInTiles(vae, latents, { tileSize: vae.factor + 1, device })).rejects.toThrow(
      `decodeInTiles: tileSize: expected a multiple of ${vae.factor} pixels; got ${vae.factor + 1}`,
    );
    await expect(
      decodeInTiles(vae, latents, { tileSize: 2 * vae.factor, overlap: 0.9, device }),
    ).rejects.toThrow('decodeInTiles: overlap: expected a part of the 2 latents of a tile; got 0.9');
  });
});

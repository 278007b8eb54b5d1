/** `deft inspect`: what a file of weights, a model folder or an adapter holds; and random models of full size. */
import { Command } from 'commander';
import type { InspectRequest, RandomModelRequest } from '../inspect/index.ts';
import { UserError } from '../userError.ts';

type InspectOptions = InspectRequest & Partial<RandomModelRequest> & { readonly base?: string };

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('print shapes, types, norms and counts of a safetensors file, model folder or adapter')
    .argument('<path>', 'what to look at; with --make-random, a new folder')
    .option('--json <file>', 'everything as JSON')
    .option('--base <folder>', 'of an adapter, in any format: how much it changes each weight of this model')
    .option('--make-random <layout>', 'write random weights in a published layout: sd15, sdxl, flux-dev')
    .option('--dtype <type>', 'of random weights: f16 or f32')
    .action(async (path: string, options: InspectOptions) => {
      const { inspect, makeRandom } = await import('../inspect/index.ts');
      const { makeRandom: layout, dtype, base, json } = options;
      if (base !== undefined) {
        if (layout !== undefined) throw new UserError('--base: not with --make-random', 2);
        const { inspectAdapter } = await import('../adapters/inspect.ts');
        return inspectAdapter(path, { base, ...(json === undefined ? {} : { json }) });
      }
      if (layout === undefined) {
        if (dtype !== undefined) throw new UserError('--dtype: only with --make-random', 2);
        return inspect(path, options);
      }
      if (options.json !== undefined) throw new UserError('--json: not with --make-random', 2);
      return makeRandom(path, { makeRandom: layout, dtype: dtype ?? 'f32' });
    });
}

/** `deft merge`: a base model with an adapter folded into its weights. */
import { Command } from 'commander';
import type { MergeRequest } from '../adapters/merge.ts';

export function mergeCommand(): Command {
  return new Command('merge')
    .description('fold an adapter into the weights of its base; print what it changed, and check the result')
    .argument('<adapter>', 'a file, a folder or a run')
    .requiredOption('--base <folder>', 'the base model: a pipeline or one of its parts')
    .requiredOption('--out <folder>', 'a new folder for the merged model')
    .option('--no-verify', 'do not compare the outputs of the merged layers with those of the adapter')
    .option('--device <name>', 'auto, webgpu, wasm or reference', 'auto')
    .action(async (input: string, request: MergeRequest) => {
      const { mergeAdapter } = await import('../adapters/merge.ts');
      await mergeAdapter(input, request);
    });
}

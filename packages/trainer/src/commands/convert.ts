/** `deft convert`: adapters from one format to another. */
import { Command } from 'commander';
import type { ConvertRequest } from '../adapters/convert.ts';

export function convertCommand(): Command {
  return new Command('convert')
    .description(
      'convert an adapter: PEFT, LoRA of diffusers or kohya, SVDiff, Custom Diffusion or a checkpoint of the DEFT authors',
    )
    .argument('<in>', 'a file, a folder or a run')
    .argument('<out>', 'a new folder (peft) or safetensors file (diffusers, kohya)')
    .requiredOption('--to <format>', 'peft, diffusers or kohya (for ComfyUI and A1111)')
    .option('--base <folder>', 'the base model, where names of layers or its weights are needed')
    .option('--as <method>', 'with --to peft: lora or deft, with the same change of the weights')
    .option('--device <name>', 'auto, webgpu, wasm or reference', 'auto')
    .action(async (input: string, output: string, request: ConvertRequest) => {
      const { convert } = await import('../adapters/convert.ts');
      await convert(input, output, request);
    });
}

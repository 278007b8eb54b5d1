/** `deft score`: CLIP-T, CLIP-I, DINO similarity and Fréchet distance of pictures, by encoders in folders. */
import { Command } from 'commander';

interface ScoreOptions {
  readonly encoder?: readonly string[];
  readonly against?: string;
  readonly device: string;
  readonly json?: string;
}

export function scoreCommand(): Command {
  return new Command('score')
    .description('score pictures against their captions and against real pictures, by CLIP, DINO or DINOv2')
    .argument(
      '<folder>',
      'pictures; captions are the recipes inside (deft sample --out-dir) or text files beside',
    )
    .option(
      '--encoder <folder>',
      'a model as transformers saves it, with preprocessor_config.json (repeatable); default: world-encoder, a proxy ' +
        'that knows the picture world alone',
      (path: string, before: readonly string[] = []) => [...before, path],
    )
    .option('--against <folder>', 'real pictures, such as those trained on')
    .option('--device <name>', 'auto, webgpu, wasm or reference', 'auto')
    .option('--json <file>', 'the numbers')
    .action(async (folder: string, { encoder, against, device, json }: ScoreOptions) => {
      const { scoreFolder } = await import('../base/score.ts');
      await scoreFolder(folder, {
        encoders: encoder ?? ['world-encoder'],
        against: against ?? null,
        device,
        json: json ?? null,
      });
    });
}

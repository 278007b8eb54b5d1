/** `deft diagnose`: what a run's adapter does to each layer, as numbers and as a drawing. */
import { Command } from 'commander';

interface DiagnoseOptions {
  readonly other?: string;
  readonly device: string;
  readonly out?: string;
}

export function diagnoseCommand(): Command {
  return new Command('diagnose')
    .description(
      "measure what a run's adapter does to each layer: norms, angles, spectra; as JSON, SVG and PNG",
    )
    .argument('<run>', 'a run folder of deft train')
    .option('--other <run>', 'another run on the same layers: angles between the directions of both')
    .option('--device <name>', 'auto, webgpu, wasm or reference', 'auto')
    .option('--out <folder>', "where the files are written; default: the run's folder")
    .action(async (run: string, { other, device, out }: DiagnoseOptions) => {
      const { diagnoseToFiles } = await import('../inspect/diagnose.ts');
      await diagnoseToFiles(run, { other: other ?? null, device, out: out ?? run });
    });
}

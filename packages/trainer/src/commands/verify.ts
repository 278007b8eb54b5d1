/** `deft verify`: results recorded from PyTorch, diffusers, transformers and PEFT, computed again here. */
import { Command } from 'commander';
import type { VerifyRequest } from '../verify/report.ts';
import { Exit } from './exit.ts';

export function verifyCommand(): Command {
  return new Command('verify')
    .description(
      'compute golden cases again and compare: one line for each check, exit status 1 if any fails',
    )
    .argument('<dir...>', 'folders of cases, or of folders of them')
    .option('--device <name>', 'auto, webgpu, wasm or reference', 'auto')
    .option('--json <file>', 'the checks as JSON')
    .action(async (folders: string[], request: VerifyRequest) => {
      const { verify } = await import('../verify/report.ts');
      if (!(await verify(folders, request))) throw new Exit(1);
    });
}

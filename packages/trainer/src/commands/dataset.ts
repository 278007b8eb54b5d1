/** `deft dataset check`: a folder of pictures, read as training would read it. */
import { Command } from 'commander';
import type { CheckRequest } from '../data/checkFolder.ts';
import { numberOption } from './numbers.ts';

export function datasetCommand(): Command {
  const check = new Command('check')
    .description('read a folder as deft train would: one line for each file that is refused or passed over')
    .argument('<folder>', 'pictures with captions, or folders such as "10_sks toy"')
    .option('--instance-prompt <text>', 'the caption of pictures that have none of their own')
    .option(
      '--size <pixels>',
      'across the pictures that the model takes',
      numberOption('size', 1, 65536, { whole: true }),
      32,
    )
    .action(async (folder: string, options: CheckRequest) => {
      const { checkFolder } = await import('../data/checkFolder.ts');
      await checkFolder(folder, options);
    });
  return new Command('dataset').description('look at training data').addCommand(check);
}

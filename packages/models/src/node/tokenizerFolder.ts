/** Tokenizer folders as save_pretrained writes them, old and new. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { clipDefinition, clipTokenizer, type Tokenizer, t5Tokenizer } from '../tokenizer.ts';
import { readConfigFile } from './modelFolder.ts';

/**
 * The CLIP tokenizer of the folder: from tokenizer.json, or from vocab.json and merges.txt where there is none.
 * @throws ConfigError; the system's error where a file is missing
 */
export async function openClipTokenizer(folder: string): Promise<Tokenizer> {
  const config = await readConfigFile(join(folder, 'tokenizer_config.json'));
  const definition = await readConfigFile(join(folder, 'tokenizer.json')).catch(async (error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const vocabulary = await readConfigFile(join(folder, 'vocab.json'));
    return clipDefinition(vocabulary, await readFile(join(folder, 'merges.txt'), 'utf8'));
  });
  return clipTokenizer(definition, config);
}

/** The T5 tokenizer of the folder. @throws ConfigError; the system's error where a file is missing */
export async function openT5Tokenizer(folder: string): Promise<Tokenizer> {
  const config = await readConfigFile(join(folder, 'tokenizer_config.json'));
  return t5Tokenizer(await readConfigFile(join(folder, 'tokenizer.json')), config);
}

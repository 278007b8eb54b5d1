import { readFileSync } from 'node:fs';

const { version: written } = JSON.parse(
  // The same place from src/ and from the bundle dist/deft.js.
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
) as { version: string };

/** The version of this package. */
export const version = written;

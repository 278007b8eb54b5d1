#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { runProgram } from './commands/program.ts';

// `deft inspect ... | head`: the reader has what it wants.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});

// The same place from src/main.ts and from the bundle dist/deft.js.
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
process.exitCode = await runProgram(process.argv.slice(2), version);

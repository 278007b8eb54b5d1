#!/usr/bin/env node
import { runProgram } from './commands/program.ts';
import { version } from './version.ts';

// `deft inspect ... | head`: the reader has what it wants.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});

process.exitCode = await runProgram(process.argv.slice(2), version);

/** The `deft` program: arguments in, exit status out, every error as one line. */

import { Command, CommanderError } from 'commander';
import { deviceLostStatus, UserError } from '../userError.ts';
import { Exit } from './exit.ts';
import { commands } from './index.ts';

/** Errors of the packages below that say what is wrong with the user's files or machine. */
const plainErrors: ReadonlySet<string> = new Set([
  'ConfigError',
  'DeviceError',
  'SafetensorsError',
  'TorchFileError',
  'WeightsError',
]);

/**
 * Runs one command line and resolves to its exit status: 0, 1 when something went wrong, 2 for bad usage or
 * configuration, or what the command says. Never rejects.
 *
 * @param args without the program's name
 * @param version what `--version` prints
 */
export async function runProgram(args: readonly string[], version: string): Promise<number> {
  try {
    await program(version).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof Exit) return error.status;
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2; // commander has printed it
    console.error(printable(message(error)));
    return statusOf(error);
  }
}

/** 3: out of memory. 5: the device was lost. What a user error says, else 1. */
function statusOf(error: unknown): number {
  if (error instanceof UserError) return error.exitStatus;
  const { name, need } = error as { name?: string; need?: number }; // without loading the engine for its class
  if (name !== 'DeviceError') return 1;
  return need === undefined ? deviceLostStatus : 3;
}

function program(version: string): Command {
  const root = new Command('deft')
    .description('Fine-tunes text-to-image models with DEFT, on WebGPU or plain CPU.')
    .version(version)
    .showSuggestionAfterError();
  for (const make of commands) root.addCommand(make());
  const within = root.commands.flatMap(({ commands }) => commands);
  for (const command of [root, ...root.commands, ...within]) {
    command
      .exitOverride()
      .configureOutput({ outputError: (text, write) => write(`deft: ${oneLine(text)}\n`) });
  }
  return root;
}

/** commander's "error: unknown option '--jsn'\n(Did you mean --json?)" on one line. */
function oneLine(text: string): string {
  return text
    .replace(/^error: /, '')
    .trim()
    .replace(/\s*\n\s*/g, ' ');
}

/** Text from files may hold what moves the cursor or turns the line round: it is shown as \\u001b and the like. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Bidi_Control}]/gu, (sign) =>
    sign === '\n' ? sign : `\\u${sign.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  );
}

function message(error: unknown): string {
  const isDebug = process.env.DEFT_DEBUG === '1';
  if (!(error instanceof Error)) return `deft: ${String(error)}`;
  if (isDebug) return error.stack ?? error.message;
  if (error instanceof UserError || plainErrors.has(error.name)) {
    return error.message
      .split('\n')
      .map((line) => `deft: ${line}`)
      .join('\n');
  }
  return `deft: this is a fault of deft: ${error.message.split('\n')[0]} (DEFT_DEBUG=1 shows where)`;
}

import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Exit } from '../../packages/trainer/src/commands/exit.ts';
import { commands } from '../../packages/trainer/src/commands/index.ts';
import { runProgram } from '../../packages/trainer/src/commands/program.ts';
import { UserError } from '../../packages/trainer/src/userError.ts';

let output = '';
let errors = '';
beforeEach(() => {
  output = '';
  errors = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    output += chunk;
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((chunk) => {
    errors += chunk;
    return true;
  });
  vi.spyOn(console, 'error').mockImplementation((line) => {
    errors += `${line}\n`;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** The exit status of a program with one more command, which ends with the error. */
async function failing(error: unknown): Promise<number> {
  const make = (): Command =>
    new Command('fail').action(() => {
      throw error;
    });
  (commands as (() => Command)[]).push(make);
  try {
    return await runProgram(['fail'], '1.2.3');
  } finally {
    (commands as (() => Command)[]).pop();
  }
}

describe('the program', () => {
  it.each([
    [['docter'], "deft: unknown command 'docter' (Did you mean doctor?)\n"],
    [['doctor', '--jsn'], "deft: unknown option '--jsn' (Did you mean --json?)\n"],
    [['doctor', 'x'], "deft: too many arguments for 'doctor'. Expected 0 arguments but got 1.\n"],
    [['--colour'], "deft: unknown option '--colour'\n"],
  ])('refuses %j in one line, with exit status 2', async (args, line) => {
    expect(await runProgram(args, '1.2.3')).toBe(2);
    expect(errors).toBe(line);
  });

  it('prints its help and its version, with exit status 0', async () => {
    expect(await runProgram(['--help'], '1.2.3')).toBe(0);
    for (const make of commands) expect(output).toContain(`  ${make().name()}`);
    output = '';
    expect(await runProgram(['--version'], '1.2.3')).toBe(0);
    expect(output).toBe('1.2.3\n');
  });

  it('prints what the user can mend without a stack, one line for each problem', async () => {
    expect(await failing(new UserError('a.yaml: no such file', 2))).toBe(2);
    expect(await failing(new UserError('one\ntwo'))).toBe(1);
    expect(errors).toBe('deft: a.yaml: no such file\ndeft: one\ndeft: two\n');
  });

  it('prints errors of the packages below in one line too', async () => {
    expect(await failing(Object.assign(new Error('WebGPU adapter: none'), { name: 'DeviceError' }))).toBe(5);
    expect(errors).toBe('deft: WebGPU adapter: none\n');
  });

  it('admits its own faults, and shows where with DEFT_DEBUG=1', async () => {
    expect(await failing(new TypeError('x is not a function\nmore'))).toBe(1);
    expect(errors).toBe('deft: this is a fault of deft: x is not a function (DEFT_DEBUG=1 shows where)\n');
    errors = '';
    vi.stubEnv('DEFT_DEBUG', '1');
    expect(await failing(new TypeError('x is not a function'))).toBe(1);
    expect(errors).toMatch(/^TypeError: x is not a function\n {4}at .*command\.test\.ts/);
  });

  it('ends with the status that a command asks for', async () => {
    expect(await failing(new Exit(130))).toBe(130);
    expect(errors).toBe('');
  });

  it('does not let file names reach the terminal raw', async () => {
    await failing(new UserError('\u001b[2Jevil\u202e\0: no such file'));
    expect(errors).toBe('deft: \\u001b[2Jevil\\u202e\\u0000: no such file\n');
  });
});

/** `deft ARGS` as its own process. */
function deft(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  return new Promise<{ code: number; stdout: string; stderr: string }>((done) => {
    const node = ['--conditions=@deftjs/source', '--import', 'tsx', resolve('packages/trainer/src/main.ts')];
    execFile(
      process.execPath,
      [...node, ...args],
      { env: { ...process.env, ...env } },
      (error, stdout, stderr) => {
        done({ code: error ? Number(error.code) : 0, stdout, stderr });
      },
    );
  });
}

describe('deft dataset check', () => {
  it('says what a folder gives, or each thing that is wrong with it', async () => {
    vi.spyOn(console, 'log').mockImplementation((line) => {
      output += `${line}\n`;
    });
    expect(await runProgram(['dataset', 'check', 'examples/data/robot'], '1.2.3')).toBe(0);
    expect(output).toMatch(/robot: 5 pictures, 5 in an epoch; captions: 5 from text files/);
    expect(await runProgram(['dataset', 'check', 'packages'], '1.2.3')).toBe(1);
    expect(await runProgram(['dataset', 'check', 'examples', '--sice', '3'], '1.2.3')).toBe(2);
    expect(errors).toBe(
      "deft: packages: no pictures; expected PNG, JPEG or WebP files\ndeft: unknown option '--sice' (Did you mean --size?)\n",
    );
  });
});

describe('deft doctor', () => {
  it('says which device is used and why, also as JSON', async () => {
    const { code, stdout } = await deft(['doctor', '--json'], { DEFT_ADAPTER: 'none' });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      device: 'wasm',
      why: 'no WebGPU adapter answers',
      adapter: null,
      tried: [],
      selfTest: { ok: true, worstError: 0, problem: null },
    });
  });

  it('says so, with exit status 1, when the device asked for is not there', async () => {
    const { code, stdout } = await deft(['doctor', '--device', 'webgpu'], { DEFT_ADAPTER: 'none' });
    expect(code).toBe(1);
    expect(stdout).toContain('self-test webgpu: WebGPU adapter: none (none wanted)');
  });

  it('names the devices when told of one that is not there', async () => {
    expect(await runProgram(['doctor', '--device', 'abacus'], '1.2.3')).toBe(2);
    expect(errors).toBe('deft: --device: expected auto, webgpu, wasm, reference; got "abacus"\n');
  });

  it('names the drivers when told of one that is not there', async () => {
    const { code, stderr } = await deft(['doctor'], { DEFT_ADAPTER: 'voodoo' });
    expect(code).toBe(2);
    expect(stderr).toBe(
      'deft: adapter: unknown driver; expected one of auto, hardware, lavapipe, swiftshader, none; got "voodoo"\n',
    );
  });
});

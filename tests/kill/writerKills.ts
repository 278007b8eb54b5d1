/** Kills a process that saves checkpoints, at chosen moments of a save, and looks at what it left. */
import fs from 'node:fs';
import { join } from 'node:path';
import { listCheckpoints, newestCheckpoint, openRun } from '@deftjs/trainer';
import { draws } from '../../packages/trainer/src/world/index.ts';
import { childProgram, start } from '../trainer/children/child.ts';
import { contentOf } from '../trainer/children/saved.ts';

/** Where a save can be interrupted. */
export const moments = [
  'before the draft',
  'inside a write',
  'before a flush',
  'before a rename',
  'after a rename',
  'inside a rotation',
] as const;
type Moment = (typeof moments)[number];

const keep = 2;
/** A moment comes at least once in a save: kills fall into one of the first saves of a process. */
const latest = 12;

export interface KillReport {
  /** Kills at each moment. */
  readonly kills: Readonly<Record<Moment, number>>;
  /** What was not as promised, in words. */
  readonly failures: readonly string[];
}

/**
 * Kills a writer again and again, each time going on from what the one before left.
 * @param folder an empty folder for its run
 */
export async function killWriter({ folder, kills }: { folder: string; kills: number }): Promise<KillReport> {
  const program = await childProgram('writer');
  const checkpoints = join(folder, 'run', 'checkpoints');
  const counted = Object.fromEntries(moments.map((moment) => [moment, 0])) as Record<Moment, number>;
  const failures: string[] = [];
  let safe = 0; // the step of the newest checkpoint
  let told = 0; // the last step that a writer said to be safe, log and all
  for (let kill = 0; kill < kills; kill += 1) {
    const moment = moments[kill % moments.length]!;
    const number = 1 + Math.floor(draws(0x4b11, kill).uniform() * latest);
    const child = start(program, [folder, String(safe + 1), String(keep), moment, String(number)]);
    const ended = await child.ended;
    const expect = (holds: boolean, what: string): void => {
      if (!holds) failures.push(`kill ${kill}, ${moment} (${number}): ${what}`);
    };
    expect(ended.signal === 'SIGKILL', `the writer ended with ${JSON.stringify(ended)}: ${child.errors()}`);
    counted[moment] += 1;

    const words = child.output().trim().split('\n').at(-1)!;
    const said = words === '' ? safe : Number(words);
    if (words !== '') told = said;
    const { checkpoint, rejected } = newestCheckpoint(checkpoints);
    expect(rejected.length === 0, `a damaged checkpoint under its own name: ${rejected[0]?.reason}`);
    const step = checkpoint?.step ?? 0;
    expect(step === said || step === said + 1, `step ${said} was said to be safe; got ${step}`);
    const whole = [...(checkpoint?.files ?? [])].every(([name, data]) =>
      Buffer.from(contentOf(step).get(name)!).equals(data),
    );
    expect(whole, `the checkpoint of step ${step} holds other bytes`);
    expect(listCheckpoints(checkpoints).length >= Math.min(keep, said), 'fewer checkpoints than are kept');
    const log = join(folder, 'run', 'log.json');
    const logged = fs.existsSync(log) ? JSON.parse(fs.readFileSync(log, 'utf8')).length : 0;
    expect(logged >= told, `the log holds ${logged} steps of ${told}`);
    safe = step;
  }
  openRun({ root: folder, name: 'run', mode: 'resume', command: 'train' })[Symbol.dispose]();
  const names = fs.existsSync(checkpoints) ? fs.readdirSync(checkpoints) : [];
  const left = names.filter((name) => name.includes('.tmp-'));
  if (left.length > 0) failures.push(`opening the run left ${left.join(', ')}`);
  return { kills: counted, failures };
}

/** 200 kills at each moment of a save: `npm run test:kill`; $DEFT_KILLS another number in all. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { killWriter, moments } from './writerKills.ts';

test('a killed run has its newest checkpoint whole', async () => {
  const kills = Number(process.env.DEFT_KILLS ?? 200 * moments.length);
  const folder = fs.mkdtempSync(join(os.tmpdir(), 'deft-kills-'));
  const report = await killWriter({ folder, kills });
  console.log(JSON.stringify(report.kills));
  expect(report.failures).toEqual([]);
  expect(Object.values(report.kills).reduce((sum, count) => sum + count, 0)).toBe(kills);
  fs.rmSync(folder, { recursive: true });
}, 3_600_000);

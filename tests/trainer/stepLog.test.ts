import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { openRun, openStepLog, type Run } from '@deftjs/trainer';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { crc32c, eventFileHeader, scalarEvent } from '../../packages/trainer/src/runs/eventFile.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-log-'));
afterAll(() => fs.rmSync(root, { recursive: true }));

let number = 0;
function freshRun(): Run {
  number += 1;
  return openRun({ root, name: `run${number}`, mode: 'fresh', command: 'train' });
}

const linesOf = (run: Run): { step: number; loss: number }[] =>
  fs
    .readFileSync(join(run.folder, 'log.jsonl'), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as { step: number; loss: number });

/** The records of an event file, each checked against its length and checksums. */
function recordsOf(file: Buffer): Buffer[] {
  const unmask = (at: number): number => {
    const rotated = (file.readUInt32LE(at) - 0xa282ead8) >>> 0;
    return ((rotated >>> 17) | (rotated << 15)) >>> 0;
  };
  const records: Buffer[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    expect(unmask(at + 8)).toBe(crc32c(file.subarray(at, at + 8)));
    const message = file.subarray(at + 12, at + 12 + length);
    expect(unmask(at + 12 + length)).toBe(crc32c(message));
    records.push(message);
    at += 16 + length;
  }
  return records;
}

describe('the log of a run', () => {
  it('after a resumption is that of an unbroken run, whatever was torn', () => {
    fc.assert(
      fc.property(fc.nat(8), fc.nat(8), fc.nat(30), (kept, lost, torn) => {
        using run = freshRun();
        const first = openStepLog(run, 0);
        for (let step = 1; step <= kept + lost; step += 1) first.add(step, { loss: 1 / step });
        first.flush();
        run.append('log.jsonl', '{"step":99,"loss":0.123456789,"time":1}'.slice(0, torn));
        const second = openStepLog(run, kept);
        for (let step = kept + 1; step <= 10 + kept; step += 1) second.add(step, { loss: 2 / step });
        second.flush();
        const steps = linesOf(run).map(({ step, loss }) => [step, loss]);
        expect(steps).toEqual(
          Array.from({ length: kept + 10 }, (_, i) => [i + 1, (i < kept ? 1 : 2) / (i + 1)]),
        );
        const events = fs.readFileSync(join(run.folder, 'tensorboard/events.out.tfevents.deft'));
        expect(recordsOf(events)).toHaveLength(kept + 11);
      }),
      { numRuns: 20 },
    );
  });
});

describe('an event file', () => {
  it('has the checksum of RFC 3720', () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  });

  it('holds what TensorBoard writes', () => {
    // wall_time 1.5, "brain.Event:2"; wall_time 2, step 300, loss 0.5: as tensorboard 2.21 serialises these events.
    const [header] = recordsOf(Buffer.from(eventFileHeader(1.5)));
    expect(header!.toString('hex')).toBe('09000000000000f83f1a0d627261696e2e4576656e743a32');
    const [event] = recordsOf(Buffer.from(scalarEvent(300, 2, { loss: 0.5 })));
    expect(event!.toString('hex')).toBe('09000000000000004010ac022a0d0a0b0a046c6f7373150000003f');
  });
});

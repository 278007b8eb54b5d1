import { readdirSync, readFileSync } from 'node:fs';
import { readSafetensorsFile } from '@deftjs/models/node';
import {
  type DType,
  encode,
  type HostArray,
  memorySource,
  numel,
  openSafetensors,
  SafetensorsError,
  writeSafetensors,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

const corpus = new URL('../../golden/corpus/safetensors/', import.meta.url);
const golden = new URL('../../golden/', import.meta.url);

/** Row of reference/reliability.md section 4.1 -> what the message must say; rows not named here are accepted. */
const refusals: Readonly<Record<number, RegExp>> = {
  1: /file too short: 0 of 8/,
  2: /file too short: 7 of 8/,
  3: /header length 0, need at least 2/,
  4: /header runs past end of file \(needs 1008 bytes/,
  5: /header length 100000001 over limit 100000000/,
  6: /header length 9223372036854775808 over limit/,
  7: /header length 18446744073709551615 over limit/,
  8: /header invalid JSON/,
  9: /header not UTF-8 at byte \d+/,
  10: /header must start with "\{"/,
  11: /header invalid JSON/,
  12: /header must be an object/,
  13: /header must be an object/,
  14: /header must start with "\{"/,
  15: /only spaces may follow/,
  16: /only spaces may follow/,
  18: /4 bytes not covered by any tensor/,
  19: /data ends at \d+, header needs \d+ \(truncated download\?\)/,
  20: /tensor "\w+": gap of \d+ bytes before it/,
  21: /tensor "\w+": gap of \d+ bytes before it/,
  22: /tensor "\w+": .*overlaps "\w+"/,
  23: /tensor "\w+": .*overlaps "\w+"/,
  24: /tensor "\w+": begin \d+ after end \d+/,
  25: /tensor "\w+": data_offsets .*negative/,
  26: /tensor "\w+": data_offsets must hold non-negative integer literals/,
  27: /tensor "\w+": data_offsets: 9007199254740997 is too large to be exact/,
  28: /tensor "\w+": data_offsets: 18446744073709551616 is too large/,
  29: /data_offsets needs exactly 2/,
  30: /data_offsets needs exactly 2/,
  31: /shape needs 12 bytes, range has 16/,
  32: /shape must hold non-negative integer literals; got -1/,
  33: /shape must hold non-negative integer literals; got 2/,
  34: /shape must hold non-negative integer literals; got "2"/,
  35: /overflows/,
  36: /overflows/,
  37: /extents up to 2\^32/,
  38: /overflows/,
  39: /unsupported dtype "F128"; known: BOOL, /,
  40: /unsupported dtype "f32"/,
  41: /unsupported dtype "__proto__"/,
  42: /missing dtype/,
  44: /duplicate key "\w+"/,
  45: /duplicate key "\w+"/,
  46: /duplicate key "__metadata__"/,
  47: /duplicate key "\w+"/,
  48: /metadata values must be strings/,
  49: /metadata values must be strings/,
  55: /half of a surrogate pair/,
  56: /nested deeper than 4/,
  58: /offsets not contiguous/,
  60: /rank 70 over 8/,
  63: /unsupported dtype "F4"/,
  65: /pickle checkpoint/,
  66: /zip \(\.pt\) checkpoint/,
  67: /git-LFS pointer; run git lfs pull/,
  68: /looks like HTML/,
  69: /integer literals/,
  70: /header invalid JSON/,
  71: /header invalid JSON/,
};

const warned: Readonly<Record<number, RegExp>> = { 43: /unknown field/, 50: /__metadata__ is null/ };

function openBytes(bytes: Uint8Array, name = 'memory') {
  return openSafetensors(memorySource(name, bytes));
}

/** A file with this header text and that many zero bytes of data. */
function fileOf(header: string, dataBytes: number): Uint8Array {
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

describe('malformed safetensors files', () => {
  const rows = readdirSync(corpus)
    .filter((file) => file.endsWith('.safetensors'))
    .map((file) => Number.parseInt(file, 10));

  it('are all there', () => expect(rows).toHaveLength(71));

  it.each(rows)('row %i gets its verdict', async (row) => {
    const file = `${String(row).padStart(2, '0')}.safetensors`;
    const opening = openBytes(readFileSync(new URL(file, corpus)), file);
    const refusal = refusals[row];
    if (refusal !== undefined) {
      const error = await opening.then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(SafetensorsError);
      expect((error as SafetensorsError).message).toMatch(refusal);
      expect((error as SafetensorsError).file).toBe(file);
      return;
    }
    const { header } = await opening;
    if (row in warned) expect(header.warnings).toEqual([expect.stringMatching(warned[row]!)]);
    else expect(header.warnings).toEqual([]);
  });

  it('row 61: a BOOL byte of 2 is refused when the tensor is read', async () => {
    const file = await openBytes(readFileSync(new URL('61.safetensors', corpus)));
    await expect(file.read(file.names[0]!)).rejects.toThrow(/BOOL bytes must be 0 or 1; got 2/);
  });

  it('row 64: values at an odd offset are read like any others', async () => {
    const file = await openBytes(readFileSync(new URL('64.safetensors', corpus)));
    for (const name of file.names)
      expect((await file.read(name)).data).toHaveLength(numel(file.info(name).shape));
  });

  it('row 72: 100,000 tensors on one range overlap', async () => {
    const entry = '{"dtype":"F32","shape":[40000],"data_offsets":[0,160000]}';
    const header = `{${Array.from({ length: 100_000 }, (_, i) => `"t${i}":${entry}`).join(',')}}`;
    await expect(openBytes(fileOf(header, 160_000))).rejects.toThrow(/overlaps/);
  });

  it('row 73: more tensors than any model has are refused', async () => {
    const entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
    const header = `{${Array.from({ length: 200_002 }, (_, i) => `"${i}":${entry}`).join(',')}}`;
    await expect(openBytes(fileOf(header, 0))).rejects.toThrow(/more than 200001 members/);
  });

  it('row 74: a file that shrinks while it is open is noticed', async () => {
    const bytes = writeSafetensors({ w: { dtype: 'f32', shape: [4], data: new Float32Array(4) } });
    const whole = memorySource('w.safetensors', bytes);
    const file = await openSafetensors({
      ...whole,
      read: async (a, b) => bytes.slice(a, Math.min(b, bytes.length - 4)),
    });
    await expect(file.read('w')).rejects.toThrow(/file changed while open/);
  });

  it('keeps a tensor called __proto__ out of every prototype', async () => {
    const file = await openBytes(readFileSync(new URL('51.safetensors', corpus)));
    expect(file.names).toContain('__proto__');
    expect(({} as Record<string, unknown>).dtype).toBeUndefined();
  });

  it('survives random damage with a SafetensorsError or a valid header', async () => {
    const tensor = (length: number) => ({
      dtype: 'f32' as const,
      shape: [length],
      data: new Float32Array(length),
    });
    const good = writeSafetensors({ 'a.weight': tensor(3), 'b.weight': tensor(2) }, { format: 'pt' });
    const damage = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(damage, async (changes) => {
        const bytes = good.slice();
        for (const [at, value] of changes) bytes[at] = value;
        const outcome = await openBytes(bytes).catch((error: unknown) => error);
        if (outcome instanceof Error) expect(outcome).toBeInstanceOf(SafetensorsError);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('safetensors values', () => {
  const dtypes: readonly DType[] = ['f32', 'f16', 'f64', 'i32', 'u32', 'bool'];
  const values: Readonly<Record<DType, fc.Arbitrary<number>>> = {
    f32: fc.float(),
    f16: fc.float(),
    f64: fc.double(),
    i32: fc.integer(),
    u32: fc.nat(),
    bool: fc.nat(1),
  };
  const hostTensor = fc
    .tuple(fc.constantFrom(...dtypes), fc.array(fc.nat(3), { maxLength: 3 }))
    .chain(([dtype, shape]) =>
      fc
        .array(values[dtype], { minLength: numel(shape), maxLength: numel(shape) })
        .map((numbers) => ({ dtype, shape, data: encode(dtype, numbers) })),
    );
  const tensors = fc.dictionary(
    fc.string({ unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
    hostTensor,
    { noNullPrototype: true },
  );

  it('come back from a written file bit by bit, in any order of the tensors', async () => {
    await fc.assert(
      fc.asyncProperty(
        tensors,
        fc.dictionary(fc.string(), fc.string(), { noNullPrototype: true }),
        async (given, notes) => {
          const bytes = writeSafetensors(given, notes);
          const reversed = Object.fromEntries(Object.entries(given).reverse());
          expect(writeSafetensors(reversed, notes)).toEqual(bytes);
          const file = await openBytes(bytes);
          expect([...file.names].sort()).toEqual(Object.keys(given).sort());
          expect(Object.fromEntries(file.header.metadata)).toEqual(notes);
          for (const [name, tensor] of Object.entries(given)) expect(await file.read(name)).toEqual(tensor);
        },
      ),
    );
  });

  it('are written as the safetensors library writes them, byte by byte', async () => {
    const path = new URL('vae-tiny/diffusion_pytorch_model.safetensors', golden);
    const tensors = await readSafetensorsFile(path.pathname);
    expect(
      Buffer.from(writeSafetensors(Object.fromEntries(tensors), { format: 'pt' })).equals(readFileSync(path)),
    ).toBe(true);
  });

  it.each([
    ['BF16', [0x3f80, 0xc040, 0x7f80], new Float32Array([1, -3, Number.POSITIVE_INFINITY])],
    ['I16', [0xffff, 2, 3], new Int32Array([-1, 2, 3])],
    ['U16', [0xffff, 2, 3], new Uint32Array([65535, 2, 3])],
  ] as [string, number[], HostArray][])(
    'of dtype %s become the nearest type that has them all',
    async (dtype, words, expected) => {
      const bytes = fileOf(`{"x":{"dtype":"${dtype}","shape":[3],"data_offsets":[0,6]}}`, 6);
      bytes.set(new Uint8Array(Uint16Array.from(words).buffer), bytes.length - 6);
      expect((await (await openBytes(bytes)).read('x')).data).toEqual(expected);
    },
  );

  it('of dtype I64 are read as i32 where they fit and refused where they do not', async () => {
    const bytes = fileOf('{"x":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}', 16);
    const view = new DataView(bytes.buffer, bytes.length - 16);
    view.setBigInt64(0, -5n, true);
    view.setBigInt64(8, 2n ** 31n - 1n, true);
    expect((await (await openBytes(bytes)).read('x')).data).toEqual(new Int32Array([-5, 2 ** 31 - 1]));
    view.setBigInt64(8, 2n ** 31n, true);
    await expect((await openBytes(bytes)).read('x')).rejects.toThrow(
      'safetensors: memory: tensor "x": element 1 does not fit 32 bits; got 2147483648',
    );
  });

  it('of a dtype without a counterpart are listed and refused', async () => {
    const file = await openBytes(fileOf('{"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}', 2));
    expect(file.info('x').shape).toEqual([2]);
    await expect(file.read('x')).rejects.toThrow(/values of dtype F8_E4M3 cannot be read/);
    await expect(file.read('y')).rejects.toThrow(/tensor "y": there is no tensor of that name/);
  });

  it('that do not fit their shape or dtype are not written', () => {
    const data = new Float32Array(3);
    expect(() => writeSafetensors({ w: { dtype: 'f32', shape: [2], data } })).toThrow(
      /shape \[2\] does not hold 3/,
    );
    expect(() => writeSafetensors({ w: { dtype: 'f16', shape: [3], data } })).toThrow(
      /carried by a Uint16Array/,
    );
  });
});

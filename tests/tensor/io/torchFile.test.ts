import { readFileSync } from 'node:fs';
import { asFloat32, memorySource, openTorchFile, TorchFileError, torchTensors } from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { joined, latin1, torchFile, zip } from './zip.ts';

const fixture = (name: string): Uint8Array => readFileSync(new URL(`torch/${name}`, import.meta.url));
const open = (bytes: Uint8Array) => openTorchFile(memorySource('x.bin', bytes));

describe('files of torch.save', () => {
  it('hold tensors of every type, strided and shared, as PyTorch has them', async () => {
    const file = torchTensors(await open(fixture('kinds.bin')));
    const expected = JSON.parse(new TextDecoder().decode(fixture('kinds.json')));
    expect(file.names).toEqual(Object.keys(expected));
    for (const [name, [shape, numbers]] of Object.entries<[number[], number[]]>(expected)) {
      const read = await file.read(name);
      expect(read.shape, name).toEqual(shape);
      expect([...(read.dtype === 'f16' ? asFloat32(read) : read.data)], name).toEqual(numbers);
      expect(file.info(name).shape).toEqual(shape);
    }
  });

  it('hold plain values too', async () => {
    const { root } = await open(fixture('values.bin'));
    expect(root).toEqual(
      new Map<unknown, unknown>([
        ['list', [1, -2, 2 ** 40, 2.5, 'text', null, true, [1, 2]]],
        ['nested', new Map([['a', new Map([['b', []]])]])],
        [7, 'number'],
      ]),
    );
  });

  it('of the old format are refused with what to do', async () => {
    await expect(open(fixture('legacy.bin'))).rejects.toThrow(
      'torch file: x.bin: it is in the format of PyTorch before 1.6, which is not read; save it again',
    );
  });
});

/** Protocol 2, then the instructions. */
const pickle = (...parts: (string | Uint8Array)[]) => joined('\x80\x02', ...parts);
const storage = (key: string, count: string) =>
  `(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0${key}X\x03\0\0\0cpu${count}tQ`;
const tensor = (count: string, offset: string, shape: string, strides: string) =>
  `ctorch._utils\n_rebuild_tensor_v2\n(${storage('0', count)}${offset}${shape}${strides}\x89}tR.`;

describe('hostile pickles', () => {
  it.each<[string, Uint8Array, RegExp]>([
    [
      'a call of os.system',
      pickle('cos\nsystem\nX\x02\0\0\0id\x85R.'),
      /it names "os\.system", which is not allowed/,
    ],
    ['the same by STACK_GLOBAL', pickle('X\x02\0\0\0osX\x06\0\0\0system\x93.'), /it names "os\.system"/],
    ['builtins.eval', pickle('cbuiltins\neval\n.'), /it names "builtins\.eval"/],
    [
      'a name that looks like a prototype',
      pickle('c__proto__\nconstructor\n.'),
      /it names "__proto__\.constructor"/,
    ],
    ['numpy', pickle('cnumpy.core.multiarray\nscalar\n.'), /it names "numpy\.core\.multiarray\.scalar"/],
    ['INST', pickle('(ios\nsystem\n.'), /instruction INST \(it makes an object\) is not allowed/],
    ['OBJ', pickle('(o.'), /instruction OBJ/],
    ['NEWOBJ', pickle('ccollections\nOrderedDict\n)\x81.'), /instruction NEWOBJ/],
    ['EXT1', pickle('\x82\x01.'), /instruction EXT1/],
    ['BUILD on a list', pickle('])b.'), /BUILD is not allowed but for a dict/],
    [
      'an OrderedDict of something',
      pickle('ccollections\nOrderedDict\n]\x85R.'),
      /an OrderedDict with arguments/,
    ],
    ['a function as a value', pickle('ccollections\nOrderedDict\n.'), /a function is used as a value/],
    ['a function in a list', pickle('(ccollections\nOrderedDict\nt.'), /a function is used as a value/],
    ['a call of a list', pickle('])R.'), /it calls what is not a function/],
    ['protocol 0', latin1('(lp0\n.'), /instruction 0x6c is not allowed/],
    ['protocol 9', latin1('\x80\x09N.'), /expected protocol 2 to 5; got 9/],
    ['a string that is too long', pickle('X\xff\xff\xff\xffab'), /it ends in the middle of an instruction/],
    ['no end', pickle('N'), /it ends in the middle of an instruction/],
    ['nothing on the stack', pickle('.'), /a value is missing on the stack/],
    ['values left over', pickle('NN.'), /values are left on the stack/],
    ['bad UTF-8', pickle('X\x01\0\0\0\xff.'), /a string is not UTF-8/],
    ['a number beyond 2^53', pickle('\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.'), /too large to be exact/],
    ['a key that is a list', pickle('}]Ns.'), /a key of a dict is neither string nor number/],
    ['a key without a value', pickle('}(Nu.'), /a key has no value/],
    ['an unknown memo', pickle('h\x05.'), /it recalls value 5, which was not remembered/],
    ['40 nested lists', pickle(']'.repeat(40), 'a'.repeat(39), '.'), /nested deeper than 32/],
    ['200000 nested lists', pickle(']'.repeat(200_000)), /more than 100000 values on the stack/],
    ['a list within itself', pickle(']q\x01h\x01a.'), /nested deeper than 32/],
    ['a bomb of shared lists', pickle(']', bomb(), '.'), /counted as a tree/],
    ['PERSID', pickle('P0\n.'), /instruction PERSID/],
    ['a storage that is missing', pickle(storage('7', 'K\x04'), '.'), /storage "7" is missing/],
    [
      'a storage of another size',
      pickle(storage('0', 'K\x05'), '.'),
      /storage "0" has 16 bytes; expected 20/,
    ],
    [
      'a storage of a type unknown',
      pickle('(X\x07\0\0\0storageNX\x01\0\0\x000NK\x04tQ.'),
      /a storage of no known type/,
    ],
    [
      'a tensor past its storage',
      pickle(tensor('K\x04', 'K\x01', 'K\x04\x85', 'K\x01\x85')),
      /\[4\] does not fit its storage of 4/,
    ],
    [
      'a tensor that repeats one number',
      pickle(tensor('K\x04', 'K\0', 'J\xff\xff\xff\x7f\x85', 'K\0\x85')),
      /does not fit its storage/,
    ],
    [
      'a negative stride',
      pickle(tensor('K\x04', 'K\x03', 'K\x04\x85', 'J\xff\xff\xff\xff\x85')),
      /a bad shape/,
    ],
    ['strides of another rank', pickle(tensor('K\x04', 'K\0', 'K\x04\x85', ')')), /a bad shape/],
    [
      'a tensor without storage',
      pickle('ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89}tR.'),
      /a tensor has no storage/,
    ],
  ])('%s: refused by name', async (_name, bytes, problem) => {
    const file = torchFile(bytes, { 0: new Uint8Array(16) });
    await expect(open(file)).rejects.toThrow(TorchFileError);
    await expect(open(file)).rejects.toThrow(problem);
  });

  it('of random bytes are refused or read, and nothing else happens', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 60 }), async (bytes) => {
        await open(torchFile(pickle(bytes))).catch((error) => expect(error).toBeInstanceOf(TorchFileError));
      }),
      { numRuns: 500 },
    );
  });

  it('of changed bytes too', async () => {
    const good = fixture('kinds.bin');
    await fc.assert(
      fc.asyncProperty(fc.nat(good.length - 1), fc.nat(255), async (at, value) => {
        const bytes = Uint8Array.from(good);
        bytes[at] = value;
        try {
          const file = torchTensors(await open(bytes));
          for (const name of file.names) await file.read(name);
        } catch (error) {
          expect(error).toBeInstanceOf(TorchFileError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

/** Thirty levels of [x, x] by the memo: 2^30 values as a tree. */
function bomb(): string {
  return Array.from({ length: 30 }, () => 'q\x01h\x01\x86').join('');
}

describe('zips', () => {
  const data = pickle('N.');

  it.each<[string, Uint8Array, RegExp]>([
    ['nothing', new Uint8Array(0), /not a zip, or it is cut off/],
    ['a file cut off', fixture('kinds.bin').slice(0, 2000), /not a zip, or it is cut off/],
    [
      'a file without its beginning',
      fixture('kinds.bin').slice(500),
      /bad directory|points outside|runs past/,
    ],
    ['compression', zip([{ name: 'a/data.pkl', data, method: 8 }]), /entry "a\/data\.pkl" is compressed/],
    ['encryption', zip([{ name: 'a/data.pkl', data, flags: 1 }]), /entry "a\/data\.pkl" is encrypted/],
    [
      'two of one name',
      zip([
        { name: 'a/data.pkl', data },
        { name: 'a/data.pkl', data },
      ]),
      /two entries "a\/data\.pkl"/,
    ],
    ['no pickle', zip([{ name: 'a/b', data }]), /a zip, but not of torch.save/],
    [
      'two pickles',
      zip([
        { name: 'a/data.pkl', data },
        { name: 'b/data.pkl', data },
      ]),
      /expected one data.pkl/,
    ],
    [
      'big-endian numbers',
      zip([
        { name: 'a/data.pkl', data },
        { name: 'a/byteorder', data: latin1('big') },
      ]),
      /big-endian/,
    ],
  ])('with %s are refused', async (_name, bytes, problem) => {
    await expect(open(bytes)).rejects.toThrow(problem);
  });

  it('that hold no dict of tensors are no state', async () => {
    const state = async (...parts: string[]) => torchTensors(await open(torchFile(pickle(...parts))));
    await expect(state('].')).rejects.toThrow('torch file: x.bin: expected a dict of tensors');
    await expect(state('}X\x01\0\0\0aNs.')).rejects.toThrow(
      'torch file: x.bin: tensor "a": expected a tensor',
    );
    expect((await state('}.')).names).toEqual([]);
    expect(() =>
      torchTensors({ source: 's', root: new Map(), read: () => Promise.reject() }).info('b'),
    ).toThrow('torch file: s: tensor "b": there is no tensor of that name');
  });
});

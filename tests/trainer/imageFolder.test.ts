import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import {
  decodeImage,
  imageFormat,
  readImageFolder,
  readTrainingData,
  renderSubject,
  toPlanes,
  trainingScenes,
  UserError,
} from '@deftjs/trainer';
import sharp, { type Sharp } from 'sharp';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';

const scratch = fs.mkdtempSync(join(os.tmpdir(), 'deft-folder-'));
const folder = join(scratch, 'pictures');
afterAll(() => fs.rmSync(scratch, { recursive: true }));
beforeEach(() => {
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder);
});

function plain(
  width: number,
  height: number,
  channels: 3 | 4 = 3,
  background = { r: 200, g: 100, b: 0, alpha: 1 },
): Sharp {
  return sharp({ create: { width, height, channels, background } });
}

const png = await plain(32, 32).png().toBuffer();
const jpeg = await plain(32, 32).jpeg().toBuffer();
const webp = await plain(32, 32).webp().toBuffer();

function put(files: Readonly<Record<string, string | Uint8Array>>): void {
  for (const [name, data] of Object.entries(files)) fs.writeFileSync(join(folder, name), data);
}

async function reading(instancePrompt: string | null = null) {
  const captionProblem = (caption: string): string | null =>
    caption.split(' ').length > 5 ? 'the caption has more than 5 words' : null;
  try {
    return await readImageFolder(folder, { size: 32, instancePrompt, captionProblem });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return error.message.replaceAll(folder, 'FOLDER');
  }
}

describe('a folder of pictures', () => {
  it('is read in the order of names, with captions from beside, and says what it passed over', async () => {
    put({
      'b.png': png,
      'b.txt': ' a  red\ntoy \n',
      'a.JPG': jpeg,
      'a.txt': 'toy',
      'c.webp': webp,
      'notes.md': '',
      'x.txt': 'y',
      '.hidden': '',
    });
    fs.mkdirSync(join(folder, 'more'));
    const read = await reading('a toy');
    expect(read).toMatchObject({
      pictures: [
        { path: 'a.JPG', caption: 'toy' },
        { path: 'b.png', caption: 'a red toy' },
        { path: 'c.webp', caption: 'a toy' },
      ],
      passedOver: [
        { path: 'more', reason: 'not named .png, .jpg, .jpeg or .webp' },
        { path: 'notes.md', reason: 'not named .png, .jpg, .jpeg or .webp' },
        { path: 'x.txt', reason: 'the caption of no picture' },
      ],
      captionSource: '2 from text files beside the pictures, 1 from the instance prompt',
    });
  });

  it('takes captions from metadata.jsonl, also for pictures in folders below', async () => {
    fs.mkdirSync(join(folder, 'more'));
    put({ 'a.png': png, 'more/b.png': png });
    put({
      'metadata.jsonl':
        '{"file_name": "a.png", "text": "one"}\n\n{"file_name": "more/b.png", "text": "two"}\n',
    });
    expect(await reading()).toMatchObject({
      pictures: [
        { path: 'a.png', caption: 'one' },
        { path: 'more/b.png', caption: 'two' },
      ],
      captionSource: '2 from metadata.jsonl',
    });
  });

  it('of the example holds the pictures that the world draws', async () => {
    const options = { size: 32, instancePrompt: null, captionProblem: () => null };
    const { pictures } = await readImageFolder('examples/data/robot', options);
    const scenes = trainingScenes('robot');
    expect(pictures.map(({ caption }) => caption)).toEqual(scenes.map(({ caption }) => caption));
    pictures.forEach(({ pixels }, i) => {
      const drawn = toPlanes(renderSubject(scenes[i]!.scene));
      // A byte holds 2/255 of the range: rounding to it is off by at most half of that.
      expect(Math.max(...pixels.map((value, k) => Math.abs(value - drawn[k]!)))).toBeLessThan(1.001 / 255);
    });
  });
});

const row = (file: string, text = 'toy'): string => `${JSON.stringify({ file_name: file, text })}\n`;

// biome-ignore format: a table
const refused: readonly (readonly [name: string, files: Record<string, string | Uint8Array>, message: string])[] = [
  ['no pictures', { 'a.txt': 'toy' }, 'FOLDER: no pictures; expected PNG, JPEG or WebP files'],
  ['a caption missing', { 'a.png': png }, 'FOLDER/a.png: no caption; write one into a.txt or metadata.jsonl, or give data.instance_prompt for all pictures'],
  ['an empty caption', { 'a.png': png, 'a.txt': ' \n' }, 'FOLDER/a.png: no caption; write one into a.txt or metadata.jsonl, or give data.instance_prompt for all pictures'],
  ['a caption that is too long', { 'a.png': png, 'a.txt': 'a b c d e f' }, 'FOLDER/a.png: the caption has more than 5 words: "a b c d e f"'],
  ['a caption in Latin-1', { 'a.png': png, 'a.txt': Uint8Array.of(0x61, 0xe9) }, 'FOLDER/a.png: not UTF-8 text'],
  ['a caption with an escape sequence', { 'a.png': png, 'a.txt': 'a\u001b[2J' }, 'FOLDER/a.png: a control character in the caption'],
  ['a caption that turns round', { 'a.png': png, 'a.txt': 'a\u202eb' }, 'FOLDER/a.png: a control character in the caption'],
  ['a caption of 1 MiB', { 'a.png': png, 'a.txt': 'x'.repeat(2 ** 20) }, 'FOLDER/a.png: too big: 1048576 bytes; expected at most 0.0625 MiB'],
  ['two captions', { 'a.png': png, 'a.txt': 'one', 'metadata.jsonl': row('a.png', 'two') }, 'FOLDER/metadata.jsonl:1: a.png: two captions, in metadata.jsonl and in a.txt; keep one'],
  ['an empty file', { 'a.png': '', 'a.txt': 'toy' }, 'FOLDER/a.png: the file is empty'],
  ['random bytes', { 'a.png': 'random', 'a.txt': 'toy' }, 'FOLDER/a.png: not a PNG, JPEG or WebP image'],
  ['a web page', { 'a.png': '<!doctype html>', 'a.txt': 'toy' }, 'FOLDER/a.png: not a PNG, JPEG or WebP image'],
  ['an SVG that names a file', { 'a.png': '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 'a.txt': 'toy' }, 'FOLDER/a.png: not a PNG, JPEG or WebP image'],
  ['a row for no file', { 'metadata.jsonl': row('a.png') }, 'FOLDER/metadata.jsonl:1: a.png: no such file'],
  ['a row above the folder', { 'metadata.jsonl': row('../a.png') }, 'FOLDER/metadata.jsonl:1: ../a.png: the name leads out of the folder'],
  ['a row through a folder above', { 'metadata.jsonl': row('a/../../b.png') }, 'FOLDER/metadata.jsonl:1: a/../../b.png: the name leads out of the folder'],
  ['an absolute row', { 'metadata.jsonl': row('/etc/passwd') }, 'FOLDER/metadata.jsonl:1: /etc/passwd: the name leads out of the folder'],
  ['a row on a drive', { 'metadata.jsonl': row('C:\\a.png') }, 'FOLDER/metadata.jsonl:1: C:\\a.png: the name leads out of the folder'],
  ['a row on a share', { 'metadata.jsonl': row('\\\\host\\a.png') }, 'FOLDER/metadata.jsonl:1: \\\\host\\a.png: the name leads out of the folder'],
  ['a row with a NUL', { 'metadata.jsonl': row('a.png\0b') }, 'FOLDER/metadata.jsonl:1: a.png\0b: the name leads out of the folder'],
  ['a row that escapes in URL spelling', { 'metadata.jsonl': row('..%2fa.png') }, 'FOLDER/metadata.jsonl:1: ..%2fa.png: no such file'],
  ['a row that is not JSON', { 'a.png': png, 'metadata.jsonl': '{"file_name": "a.png", "text": "b"' }, 'FOLDER/metadata.jsonl:1: not a JSON object\nFOLDER/a.png: no caption; write one into a.txt or metadata.jsonl, or give data.instance_prompt for all pictures'],
  ['a row without a name', { 'metadata.jsonl': '{"text": "toy"}' }, 'FOLDER/metadata.jsonl:1: expected {"file_name": "...", "text": "..."}'],
  ['a row that is null', { 'metadata.jsonl': 'null' }, 'FOLDER/metadata.jsonl:1: expected {"file_name": "...", "text": "..."}'],
  ['a row of 5 MiB', { 'metadata.jsonl': row('a.png', 'x'.repeat(5 * 2 ** 20)) }, 'FOLDER/metadata.jsonl:1: longer than 65536 characters'],
  ['a second row for a file', { 'a.png': png, 'metadata.jsonl': row('a.png') + row('a.png') }, 'FOLDER/metadata.jsonl:2: a.png has a row already, in line 1'],
];

describe('a folder is refused for', () => {
  it.each(refused)('%s', async (_name, files, message) => {
    put(files);
    expect(await reading()).toBe(message);
  });

  it('not being one', async () => {
    fs.rmdirSync(folder);
    expect(await reading()).toBe('FOLDER: no such folder; expected one with PNG, JPEG or WebP pictures');
    fs.writeFileSync(folder, '');
    expect(await reading()).toBe('FOLDER: not a folder');
  });

  it('links that leave it, links in a circle, folders and pipes that are named like pictures', async () => {
    fs.writeFileSync(join(scratch, 'outside.png'), png);
    fs.mkdirSync(join(scratch, 'elsewhere'), { recursive: true });
    fs.writeFileSync(join(scratch, 'elsewhere', 'b.png'), png);
    fs.symlinkSync('../outside.png', join(folder, 'a.png'));
    fs.symlinkSync('../elsewhere', join(folder, 'linked'));
    fs.symlinkSync('loop.png', join(folder, 'loop.png'));
    fs.mkdirSync(join(folder, 'folder.png'));
    execFileSync('mkfifo', [join(folder, 'pipe.png')]); // reading it would wait for ever
    put({ 'metadata.jsonl': row('linked/b.png') });
    expect(String(await reading('toy')).split('\n')).toEqual([
      'FOLDER/a.png: a link that leads out of the folder',
      'FOLDER/folder.png: not a regular file',
      'FOLDER/metadata.jsonl:1: linked/b.png: a link that leads out of the folder',
      'FOLDER/loop.png: a link that leads to itself',
      'FOLDER/pipe.png: not a regular file',
    ]);
  });

  it('more than ten things, counting the rest', async () => {
    put(Object.fromEntries(Array.from({ length: 13 }, (_, i) => [`${i}.png`, png])));
    const lines = String(await reading()).split('\n');
    expect(lines).toHaveLength(11);
    expect(lines[10]).toBe('FOLDER: and 3 more problems');
  });

  it('a file that claims 10 GiB', async () => {
    put({ 'a.png': png });
    fs.truncateSync(join(folder, 'a.png'), 10 * 2 ** 30); // sparse
    expect(await reading('toy')).toBe('FOLDER/a.png: too big: 10737418240 bytes; expected at most 64 MiB');
  });
});

it('follows links that stay inside', async () => {
  put({ 'a.png': png });
  fs.symlinkSync('a.png', join(folder, 'b.png'));
  expect(await reading('toy')).toMatchObject({ pictures: [{ path: 'a.png' }, { path: 'b.png' }] });
});

/** The picture's colour at (x, y), as bytes. */
function at(planes: Float32Array, size: number, x: number, y: number): number[] {
  return [0, 1, 2].map((c) => Math.round((planes[c * size * size + y * size + x]! + 1) * 127.5));
}

describe('an image', async () => {
  // A red left half and a blue right half, 64 x 32.
  const halves = await plain(64, 32)
    .composite([
      { input: await plain(32, 32, 3, { r: 255, g: 0, b: 0, alpha: 1 }).png().toBuffer(), left: 0, top: 0 },
      { input: await plain(32, 32, 3, { r: 0, g: 0, b: 255, alpha: 1 }).png().toBuffer(), left: 32, top: 0 },
    ])
    .png()
    .toBuffer();

  it('is known by its first bytes', () => {
    expect([png, jpeg, webp, Buffer.from('GIF89a'), Buffer.alloc(0)].map(imageFormat)).toEqual([
      'png',
      'jpeg',
      'webp',
      null,
      null,
    ]);
  });

  it('keeps every pixel when it has the size already', async () => {
    const bytes = Uint8Array.from({ length: 3 * 16 * 16 }, (_, i) => (i * 37) % 256);
    const file = await sharp(bytes, { raw: { width: 16, height: 16, channels: 3 } })
      .png()
      .toBuffer();
    const planes = await decodeImage(file, 16);
    for (let i = 0; i < 256; i += 1)
      expect(at(planes, 16, i % 16, i >> 4)).toEqual([...bytes.slice(3 * i, 3 * i + 3)]);
  });

  it('is cut to its middle', async () => {
    const planes = await decodeImage(halves, 32);
    expect(at(planes, 32, 4, 16)).toEqual([255, 0, 0]);
    expect(at(planes, 32, 28, 16)).toEqual([0, 0, 255]);
  });

  it.each([
    [1, [255, 0, 0], [0, 0, 255], 'row'],
    [2, [0, 0, 255], [255, 0, 0], 'row'],
    [3, [0, 0, 255], [255, 0, 0], 'row'],
    [6, [255, 0, 0], [0, 0, 255], 'column'],
    [8, [0, 0, 255], [255, 0, 0], 'column'],
  ])('is turned as EXIF orientation %i says', async (orientation, first, last, along) => {
    const turned = await sharp(halves)
      .withMetadata({ orientation })
      .jpeg({ quality: 100, chromaSubsampling: '4:4:4' })
      .toBuffer();
    const planes = await decodeImage(turned, 32);
    const near = (x: number, y: number): number[] =>
      at(planes, 32, x, y).map((value) => (value > 127 ? 255 : 0));
    expect(along === 'row' ? near(4, 16) : near(16, 4)).toEqual(first);
    expect(along === 'row' ? near(28, 16) : near(16, 28)).toEqual(last);
  });

  it('is laid on white where it is transparent', async () => {
    const clear = await plain(32, 32, 4, { r: 255, g: 0, b: 0, alpha: 0 }).png().toBuffer();
    const half = await plain(32, 32, 4, { r: 255, g: 0, b: 0, alpha: 0.5 }).png().toBuffer();
    expect(at(await decodeImage(clear, 32), 32, 3, 3)).toEqual([255, 255, 255]);
    const [red, green, blue] = at(await decodeImage(half, 32), 32, 3, 3);
    expect(red).toBe(255);
    expect(Math.abs(green! - 127)).toBeLessThanOrEqual(1); // half of 255 is no whole number
    expect(blue).toBe(green);
  });

  it('may be grey, of 16 bits, or of a palette', async () => {
    const grey = await plain(32, 32).greyscale().png().toBuffer();
    const deep = await plain(32, 32).toColourspace('rgb16').png().toBuffer();
    const palette = await plain(32, 32).png({ palette: true }).toBuffer();
    const [first, ...rest] = at(await decodeImage(grey, 32), 32, 5, 5);
    expect(rest).toEqual([first, first]);
    expect((await sharp(deep).metadata()).depth).toBe('ushort');
    for (const file of [deep, palette])
      expect(at(await decodeImage(file, 32), 32, 5, 5)).toEqual([200, 100, 0]);
  });

  it('may be of printing inks', async () => {
    const inks = await plain(32, 32).toColourspace('cmyk').jpeg().toBuffer();
    const [red, green, blue] = at(await decodeImage(inks, 32), 32, 5, 5);
    expect(red! > green! && green! > blue!).toBe(true);
  });

  const claim = Buffer.from(png); // its header says 65,500 x 65,500
  claim.writeUInt32BE(65_500, 16);
  claim.writeUInt32BE(65_500, 20);
  const flipped = Buffer.from(halves);
  flipped[Math.floor(halves.length / 2)]! ^= 0xff;

  it.each([
    ['of the signature only', png.subarray(0, 8), /damaged/],
    ['cut off', halves.subarray(0, halves.length - 30), /damaged/],
    ['with a flipped byte', flipped, /damaged/],
    ['a JPEG cut off', jpeg.subarray(0, jpeg.length / 2), /damaged/],
    ['that claims billions of pixels', claim, /too many pixels; expected at most 50 million|damaged/],
    [
      'of 64 million pixels',
      await plain(8000, 8000).png().toBuffer(),
      /^too many pixels; expected at most 50 million$/,
    ],
    ['of one pixel', await plain(1, 1).png().toBuffer(), /^1 x 1 pixels are too few for a model of 32 x 32$/],
    [
      'that moves',
      await sharp([png, await plain(32, 32, 3, { r: 0, g: 0, b: 9, alpha: 1 }).png().toBuffer()], {
        join: { animated: true },
      })
        .webp({ loop: 0 })
        .toBuffer(),
      /^an animation of 2 frames; expected one picture$/,
    ],
  ])('%s is refused', async (_name, bytes, message) => {
    await expect(decodeImage(bytes, 32)).rejects.toThrow(message);
  });
});

describe('folders that say how often their pictures are taken', () => {
  const options = { size: 32, instancePrompt: null, captionProblem: () => null };
  const inside = (name: string, files: Readonly<Record<string, string | Uint8Array>>): void => {
    fs.mkdirSync(join(folder, name));
    put(Object.fromEntries(Object.entries(files).map(([file, data]) => [join(name, file), data])));
  };

  it('give an epoch with repeats, and captions where there are none', async () => {
    inside('3_sks toy', { 'a.png': png, 'b.png': png, 'b.txt': 'a big sks toy' });
    inside('1_toy', { 'c.png': png });
    put({ 'alone.png': png });
    const data = await readTrainingData(folder, options);
    expect(data.pictures.map(({ path, caption }) => [path, caption])).toEqual([
      ['1_toy/c.png', 'toy'],
      ['3_sks toy/a.png', 'sks toy'],
      ['3_sks toy/b.png', 'a big sks toy'],
    ]);
    const times = (path: string): number => data.epoch.filter((picture) => picture.path === path).length;
    expect(data.pictures.map(({ path }) => times(path))).toEqual([1, 3, 3]);
    expect(data.passedOver.map(({ path }) => path)).toEqual(['alone.png']);
  });

  it('tell of every problem in any of them', async () => {
    inside('3_sks toy', { 'a.png': 'no picture' });
    inside('1_toy', {});
    await expect(readTrainingData(folder, options)).rejects.toThrow(
      /1_toy: no pictures.*\n.*3_sks toy\/a.png: not a PNG/,
    );
  });

  it('are not needed: a plain folder is an epoch of its own', async () => {
    put({ 'a.png': png, 'a.txt': 'a toy' });
    const data = await readTrainingData(folder, options);
    expect(data.epoch).toEqual(data.pictures);
  });
});

describe('metadata.csv', () => {
  const rows = async (csv: string): Promise<unknown> => {
    put({ 'a.png': png, 'b.png': png, 'metadata.csv': csv });
    const found = await reading();
    return typeof found === 'string' ? found : found.pictures.map(({ path, caption }) => [path, caption]);
  };

  it.each([
    'file_name,text\na.png,a toy\nb.png,a hat\n',
    'text,file_name,more\r\n"a toy",a.png,1\r\n\r\n"a\nhat","b.png",""',
  ])('captions pictures: %j', async (csv) => {
    expect(await rows(csv)).toEqual([
      ['a.png', 'a toy'],
      ['b.png', 'a hat'],
    ]);
  });

  it('may hold commas and quotes', async () => {
    expect(await rows('file_name,text\na.png,"a ""big"", toy"\nb.png,a hat')).toEqual([
      ['a.png', 'a "big", toy'],
      ['b.png', 'a hat'],
    ]);
  });

  it.each([
    ['file,text\na.png,a', 'FOLDER/metadata.csv: expected the columns file_name and text in the first line'],
    [
      'file_name,text\na.png,"a toy\n',
      'FOLDER/metadata.csv: line 2 cannot be read as CSV: is a quote not closed?',
    ],
    ['file_name,text\na.png,a,b\n', 'FOLDER/metadata.csv:2: expected 2 columns; got 3'],
    ['file_name,text\na.png,a\na.png,b', 'FOLDER/metadata.csv:3: a.png has a row already, in line 2'],
  ])('is refused where it is malformed: %j', async (csv, message) => {
    expect(await rows(csv)).toContain(message);
  });

  it('and metadata.jsonl are one too many', async () => {
    put({ 'metadata.jsonl': '{"file_name": "a.png", "text": "a toy"}' });
    expect(await rows('file_name,text\na.png,a toy\n')).toContain(
      'FOLDER/metadata.csv: captions are in metadata.jsonl too; keep one of them',
    );
  });
});

describe('a trigger word', () => {
  it('is put before captions that lack it', async () => {
    put({ 'a.png': png, 'a.txt': 'a toy', 'b.png': png, 'b.txt': 'a sks, big' });
    const options = { size: 32, instancePrompt: null, triggerWord: 'sks', captionProblem: () => null };
    const { pictures } = await readImageFolder(folder, options);
    expect(pictures.map(({ caption }) => caption)).toEqual(['sks a toy', 'a sks, big']);
  });
});

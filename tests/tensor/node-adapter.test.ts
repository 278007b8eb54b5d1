import { type Driver, resolveAdapter, searchAdapter } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { untar } from '../../packages/tensor/src/node/tar.ts';
import { describeWebGPU } from '../support/webgpu.ts';

/** A ustar archive of regular files, as `tar --format=ustar` lays it out (checksums left empty). */
function tarOf(files: readonly { name: string; data: Uint8Array }[]): Uint8Array {
  const blocks = files.flatMap(({ name, data }) => {
    const header = Buffer.alloc(512);
    header.write(name, 0);
    header.write(`${data.length.toString(8).padStart(11, '0')}\0`, 124);
    header.write('0', 156);
    return [header, data, Buffer.alloc((512 - (data.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

test('untar gives back what was packed', () => {
  const file = fc.record({
    name: fc.stringMatching(/^[a-z][a-z0-9./_-]{0,98}$/),
    data: fc.uint8Array({ maxLength: 1500 }),
  });
  fc.assert(
    fc.property(fc.array(file, { maxLength: 4 }), (files) => {
      const unpacked = [...untar(tarOf(files))].map(({ name, data }) => ({ name, data: [...data] }));
      expect(unpacked).toEqual(files.map(({ name, data }) => ({ name, data: [...data] })));
    }),
  );
});

test('untar names the file whose size reaches past the end', () => {
  const archive = tarOf([{ name: 'driver.so', data: new Uint8Array(600) }]).subarray(0, 1024);
  expect(() => [...untar(archive)]).toThrow('tar: bad size of "driver.so" at byte 0; got "00000001130"');
});

test('the driver "none" finds nothing and tries nothing', async () => {
  expect(await searchAdapter({ driver: 'none' })).toEqual({ found: null, tried: [] });
});

test('an unknown driver is an error that lists the known ones', async () => {
  const driver = 'vulcan' as Driver;
  await expect(resolveAdapter({ driver })).rejects.toThrow(
    'expected one of auto, hardware, lavapipe, swiftshader, none; got "vulcan"',
  );
});

test('no software adapter answers when none is wanted', async () => {
  const { found, tried } = await searchAdapter({ driver: 'auto', software: false });
  expect(found?.choice.isSoftware ?? false).toBe(false);
  if (found === null) expect(tried.map(({ candidate }) => candidate)).toContain('swiftshader');
});

describeWebGPU('the adapter search', () => {
  test('gives concurrent requests the driver that each asked for, and leaves the environment alone', async () => {
    const environment = () => [process.env.VK_DRIVER_FILES, process.env.VK_ICD_FILENAMES];
    const before = environment();
    const drivers: readonly Driver[] = ['lavapipe', 'swiftshader', 'hardware', 'swiftshader', 'lavapipe'];
    const answers = await Promise.all(drivers.map((driver) => resolveAdapter({ driver })));
    answers.forEach((answer, i) => {
      if (answer !== null) expect(answer.choice.kind).toContain(drivers[i]); // lavapipe is also system-lavapipe
    });
    expect(environment()).toEqual(before);
  });

  test('gives a fresh adapter each time, from one instance', async () => {
    const [first, second] = [await resolveAdapter(), await resolveAdapter()];
    expect(first?.adapter).not.toBe(second?.adapter);
    expect(first?.gpu).toBe(second?.gpu);
  });
});

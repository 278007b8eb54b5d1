/** A device that was opened on somebody's adapter, in a process of its own: what goes wrong there ends the process. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../..', import.meta.url));

/** Dawn's null backend computes nothing, and needs no driver. */
const program = `
  import { create } from 'webgpu';
  import { openWebGPUNode } from './packages/tensor/src/node/webgpu.ts';
  async function open() {
    const gpu = create(['backend=null']);
    const adapter = await gpu.requestAdapter();
    const choice = { kind: 'hardware', why: '', description: 'null backend', isSoftware: true };
    return openWebGPUNode({ gpu, adapter, choice });
  }
  const device = await open();
  for (let i = 0; i < 20; i += 1) {
    gc();
    const storage = device.upload('f32', new Float32Array(1024));
    await device.read(storage);
    storage.dispose();
  }
  await device.close();
  console.log('ended well');
`;

test('a device keeps the instance of Dawn that its adapter came from', () => {
  const argv = [
    '--expose-gc',
    '--import',
    'tsx',
    '--conditions=@deftjs/source',
    '--input-type=module',
    '--eval',
    program,
  ];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, argv, {
    cwd: root,
    encoding: 'utf8',
  });
  expect({ status, signal, stdout, stderr }).toMatchObject({
    status: 0,
    signal: null,
    stdout: 'ended well\n',
  });
});

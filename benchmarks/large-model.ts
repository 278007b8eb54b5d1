/**
 * Memory of a model with as many parameters as Stable Diffusion 1.5's UNet (860 M), from file to result:
 * node --import tsx --conditions=@deftjs/source benchmarks/large-model.ts [webgpu|wasm]...
 *
 * Writes a safetensors file of random weights (3.4 GB, deleted afterwards), and in a process for each device and
 * type loads it and runs a forward pass. Peak is the process's largest resident set; model is its parameters' bytes.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Linear, Module } from '@deftjs/autograd/nn';
import { loadWeights } from '@deftjs/models';
import { openSafetensorsFile } from '@deftjs/models/node';
import { cast, read, silu, type Tensor, tensor } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';

const width = 4096;
const depth = 51;
const outputs = 1024;
const rows = 16;

/** 51 layers of 4096 x 4096 and one of 4096 x 1024: 860.0 M parameters. */
class Tower extends Module {
  readonly layers = Array.from({ length: depth }, () => new Linear(width, width));
  readonly last = new Linear(width, outputs);

  /** [rows, width] -> [rows, outputs]. */
  forward(x: Tensor): Tensor {
    return this.last.forward(this.layers.reduce((y, layer) => silu(layer.forward(y)), x));
  }
}

/** Weights uniform in +-sqrt(6 / width), which keeps variances through SiLU about as they are; no biases to speak of. */
function writeFile(path: string): number {
  const shapes = Object.entries({
    ...Object.fromEntries(Array.from({ length: depth }, (_, i) => [`layers.${i}`, width])),
    last: outputs,
  }).flatMap(([name, out]) => [
    { name: `${name}.weight`, shape: [out, width] },
    { name: `${name}.bias`, shape: [out] },
  ]);
  let offset = 0;
  const entries = shapes.map(({ name, shape }) => {
    const start = offset;
    offset += 4 * shape.reduce((a, b) => a * b, 1);
    return [name, { dtype: 'F32', shape, data_offsets: [start, offset] }] as const;
  });
  const text = JSON.stringify(Object.fromEntries(entries));
  const header = Buffer.from(text + ' '.repeat((8 - (text.length % 8)) % 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const file = openSync(path, 'w');
  writeSync(file, length);
  writeSync(file, header);
  let state = 1;
  for (const { shape } of shapes) {
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const scale = shape.length === 2 ? Math.sqrt(6 / width) : 0.01;
    for (let i = 0; i < values.length; i += 1) {
      state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
      values[i] = (state / 2 ** 31) * scale;
    }
    const bytes = Buffer.from(values.buffer);
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
  }
  closeSync(file);
  return offset / 4;
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;

async function run(path: string, name: 'webgpu' | 'wasm', dtype: 'f32' | 'f16'): Promise<void> {
  const { device } = await openDevice(name);
  const empty = process.memoryUsage.rss();
  const net = new Tower();
  let started = performance.now();
  await using file = await openSafetensorsFile(path);
  await loadWeights(net, file, { device, dtype });
  const loadSeconds = (performance.now() - started) / 1000;
  const held = device.bytesInUse;
  started = performance.now();
  const x = tensor(
    Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i)),
    [rows, width],
  );
  const y = (await read(net.forward(cast(x, dtype)), device)) as Float32Array;
  const seconds = (performance.now() - started) / 1000;
  if (!y.every(Number.isFinite) || y.every((v) => Math.abs(v) < 1e-6))
    throw new Error('large-model: the result is not finite, or vanished');
  const peak = 1024 * process.resourceUsage().maxRSS;
  console.log(
    `${name} ${dtype}: model ${gigabytes(held)}, peak ${gigabytes(peak)} (an empty process: ${gigabytes(empty)}), ` +
      `on the device ${gigabytes(device.bytesInUse)} after the pass; loaded in ${loadSeconds.toFixed(1)} s, ` +
      `forward ${seconds.toFixed(1)} s with compilation, y[0] = ${y[0]!.toFixed(4)}`,
  );
  await device.close();
}

const [first, ...rest] = process.argv.slice(2);
if (first === 'child') {
  await run(rest[0]!, rest[1] as 'wasm', rest[2] as 'f32');
} else {
  const folder = mkdtempSync(join(tmpdir(), 'deft-large-'));
  try {
    const path = join(folder, 'model.safetensors');
    console.log(`${(writeFile(path) / 1e6).toFixed(1)} M parameters`);
    for (const name of first ? [first, ...rest] : ['wasm', 'webgpu']) {
      for (const dtype of ['f32', 'f16']) {
        const flags = [...process.execArgv, fileURLToPath(import.meta.url)];
        execFileSync(process.execPath, [...flags, 'child', path, name, dtype], { stdio: 'inherit' });
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

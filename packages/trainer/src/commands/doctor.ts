/** `deft doctor`: what this machine offers, which backend is used and why. */
import os from 'node:os';
import type { DeviceName } from '@deftjs/tensor/node';
import { Command } from 'commander';
import { UserError } from '../userError.ts';
import { Exit } from './exit.ts';

/** What `deft doctor --json` prints. */
export interface Diagnosis {
  readonly node: string;
  readonly platform: string;
  readonly cores: number;
  readonly memoryBytes: number;
  /** The backend that `--device auto` takes. */
  readonly device: 'webgpu' | 'wasm';
  readonly why: string;
  readonly adapter: {
    readonly kind: string;
    readonly description: string;
    readonly isSoftware: boolean;
    readonly features: readonly string[];
    readonly limits: Readonly<Record<string, number>>;
  } | null;
  readonly tried: readonly { readonly candidate: string; readonly outcome: string }[];
  readonly selfTest: SelfTest;
}

/** A product of two matrices of whole numbers on the device, which every backend must get exactly right. */
interface SelfTest {
  /** The device that computed it, in its own words. */
  readonly device: string;
  readonly ok: boolean;
  /** The worst deviation of an element; null when the device failed before there was a product. */
  readonly worstError: number | null;
  readonly problem: string | null;
}

const deviceNames: readonly DeviceName[] = ['auto', 'webgpu', 'wasm', 'reference'];

/** Limits that decide which models fit and how kernels are cut. */
const telling = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
] as const;

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('say which backend is used on this machine and why, and try it')
    .option('--json', 'print everything as JSON')
    .option('--device <name>', 'the backend to try: auto, webgpu, wasm or reference', 'auto')
    .action(async ({ json, device }: { json?: boolean; device: string }) => {
      const diagnosis = await diagnose(device);
      console.log(json ? JSON.stringify(diagnosis, null, 2) : describe(diagnosis));
      if (!diagnosis.selfTest.ok) throw new Exit(1);
    });
}

/** Looks at this machine. @throws {UserError} when no device, or in $DEFT_ADAPTER no driver, has the name */
async function diagnose(device: string): Promise<Diagnosis> {
  if (!isDeviceName(device)) {
    throw new UserError(`--device: expected ${deviceNames.join(', ')}; got "${device}"`, 2);
  }
  const { searchAdapter } = await import('@deftjs/tensor/node');
  const { found, tried } = await searchAdapter().catch((error: unknown) => {
    throw error instanceof RangeError ? new UserError(error.message, 2) : error;
  });
  const isHardware = found !== null && !found.choice.isSoftware;
  return {
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    device: isHardware ? 'webgpu' : 'wasm',
    why: isHardware
      ? `a hardware adapter answers: ${found.choice.description}`
      : found
        ? `no hardware adapter answers; the software adapter ${found.choice.description} is used with --device webgpu`
        : 'no WebGPU adapter answers',
    adapter: found && {
      kind: found.choice.kind,
      description: found.choice.description,
      isSoftware: found.choice.isSoftware,
      features: [...found.adapter.features].sort(),
      limits: Object.fromEntries(telling.map((name) => [name, found.adapter.limits[name]])),
    },
    tried,
    selfTest: await selfTest(device),
  };
}

function isDeviceName(name: string): name is DeviceName {
  return (deviceNames as readonly string[]).includes(name);
}

const size = 96;

async function selfTest(name: DeviceName): Promise<SelfTest> {
  const [{ matmul, read, tensor }, { openDevice }] = await Promise.all([
    import('@deftjs/tensor'),
    import('@deftjs/tensor/node'),
  ]);
  // Sums of 96 products below 49 are far below 2^24, where f32 still counts by ones.
  const a = Float32Array.from({ length: size * size }, (_, i) => ((i * 5) % 13) - 6);
  const b = Float32Array.from({ length: size * size }, (_, i) => ((i * 7) % 11) - 5);
  let words: string = name;
  try {
    const { device } = await openDevice(name);
    words = `${device.kind}, ${device.description}`;
    const product = Float32Array.from(await read(matmul(tensor(a, [size, size]), tensor(b, [size, size]))));
    const worstError = product.reduce((worst, value, i) => {
      const [row, column] = [Math.floor(i / size), i % size];
      let exact = 0;
      for (let k = 0; k < size; k += 1) exact += a[row * size + k]! * b[k * size + column]!;
      return Math.max(worst, Math.abs(value - exact));
    }, 0);
    await device.close();
    return { device: words, ok: worstError === 0, worstError, problem: null };
  } catch (error) {
    return { device: words, ok: false, worstError: null, problem: (error as Error).message };
  }
}

function describe({
  node,
  platform,
  cores,
  memoryBytes,
  device,
  why,
  adapter,
  tried,
  selfTest,
}: Diagnosis): string {
  const lines = [
    `device    ${device} (${why})`,
    `machine   ${platform}, ${cores} cores, ${(memoryBytes / 2 ** 30).toFixed(1)} GiB, Node ${node}`,
  ];
  const { ok, worstError, problem } = selfTest;
  const wrong = problem ?? `a product of matrices is off by ${worstError}`;
  lines.push(
    `self-test ${selfTest.device}: ${ok ? `a product of ${size} x ${size} matrices is exact` : wrong}`,
  );
  if (adapter) {
    const limits = Object.entries(adapter.limits).map(([name, value]) => `${name} ${value}`);
    lines.push(
      `adapter   ${adapter.description} [${adapter.kind}]`,
      `features  ${adapter.features.join(', ') || 'none'}`,
      `limits    ${limits.join(', ')}`,
    );
  }
  return [...lines, ...tried.map(({ candidate, outcome }) => `tried     ${candidate}: ${outcome}`)].join(
    '\n',
  );
}

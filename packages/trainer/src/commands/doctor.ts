/** `deft doctor`: what this machine offers, which backend is used and why. */
import os from 'node:os';
import { Command } from 'commander';
import { UserError } from '../userError.ts';

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
}

/** Limits that decide which models fit and how kernels are cut. */
const telling = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
] as const;

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('say which backend is used on this machine and why')
    .option('--json', 'print everything as JSON')
    .action(async ({ json }: { json?: boolean }) => {
      const diagnosis = await diagnose();
      console.log(json ? JSON.stringify(diagnosis, null, 2) : describe(diagnosis));
    });
}

/** Looks at this machine. @throws {UserError} when $DEFT_ADAPTER names no driver */
async function diagnose(): Promise<Diagnosis> {
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
  };
}

function describe({ node, platform, cores, memoryBytes, device, why, adapter, tried }: Diagnosis): string {
  const lines = [
    `device    ${device} (${why})`,
    `machine   ${platform}, ${cores} cores, ${(memoryBytes / 2 ** 30).toFixed(1)} GiB, Node ${node}`,
  ];
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

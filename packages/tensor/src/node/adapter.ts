// Finding a WebGPU adapter in Node: hardware first, then software Vulkan drivers, fastest first.
//
// Dawn finds Vulkan drivers through the Vulkan loader, and the loader reads VK_DRIVER_FILES each time an instance
// is made: setting it in this process just before create() is enough. Works on the main thread only: a worker's
// process.env is a copy that native code does not see.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { cacheRoot } from './cache.ts';
import { loadLibrary } from './native-library.ts';
import {
  bundledSwiftShader,
  cachedLavapipe,
  type SoftwareDriver,
  systemLavapipe,
} from './software-driver.ts';

/** Which drivers to try; `auto` is all of them in order, `none` finds nothing. */
export type Driver = 'auto' | 'hardware' | 'lavapipe' | 'swiftshader' | 'none';

const DRIVERS: readonly Driver[] = ['auto', 'hardware', 'lavapipe', 'swiftshader', 'none'];

/** What an adapter turned out to be. */
export type AdapterKind = 'hardware' | 'system-lavapipe' | 'lavapipe' | 'swiftshader';

export interface AdapterRequest {
  /** Default: `$DEFT_ADAPTER`, else `auto`. */
  readonly driver?: Driver;
  /** Whether an adapter that computes on the CPU may answer; true by default. */
  readonly software?: boolean;
}

/** Why an adapter was chosen, in words for the user. */
export interface AdapterChoice {
  readonly kind: AdapterKind;
  readonly why: string;
  readonly description: string;
  readonly isSoftware: boolean;
}

/**
 * An adapter, ready for `requestDevice()`. To end: `device.destroy()`, await `device.lost`, then drop references;
 * a device that is collected without `destroy()` can crash the process.
 */
export interface ResolvedAdapter {
  readonly gpu: GPU;
  readonly adapter: GPUAdapter;
  readonly choice: AdapterChoice;
}

/** A candidate that was tried and what came of it. */
export interface AdapterAttempt {
  readonly candidate: string;
  readonly outcome: string;
}

export interface AdapterSearch {
  readonly found: ResolvedAdapter | null;
  readonly tried: readonly AdapterAttempt[];
}

/**
 * The best adapter for the request, or null when there is none. Each call gives a fresh adapter, because an adapter
 * serves one `requestDevice()`.
 * @throws RangeError when the driver's name is unknown
 */
export async function resolveAdapter(request: AdapterRequest = {}): Promise<ResolvedAdapter | null> {
  return (await searchAdapter(request)).found;
}

/**
 * The adapter of `resolveAdapter` and every candidate tried on the way, in order, with the reason it was passed over.
 * @throws RangeError when the driver's name is unknown
 */
export async function searchAdapter(request: AdapterRequest = {}): Promise<AdapterSearch> {
  const driver = request.driver ?? driverFromEnvironment();
  if (!DRIVERS.includes(driver)) {
    throw new RangeError(`adapter: unknown driver; expected one of ${DRIVERS.join(', ')}; got "${driver}"`);
  }
  const software = request.software ?? true;
  const tried: AdapterAttempt[] = [];
  if (driver === 'none') return { found: null, tried };
  for (const { name, open } of candidates(driver)) {
    const result = await open(software).catch((error: unknown) => passedOver(error));
    if (typeof result !== 'string') {
      const why = [
        ...tried.map(({ candidate, outcome }) => `${candidate}: ${outcome}`),
        `${name}: chosen`,
      ].join('; ');
      tried.push({ candidate: name, outcome: 'chosen' });
      return { found: { ...result, choice: { ...result.choice, why } }, tried };
    }
    tried.push({ candidate: name, outcome: result });
  }
  return { found: null, tried };
}

/** One line for the user: what was chosen and why, or why there is no adapter. */
export function describeSearch({ found, tried }: AdapterSearch): string {
  if (found)
    return `WebGPU adapter: ${found.choice.description} [${found.choice.kind}] (${found.choice.why})`;
  const reasons = tried.map(({ candidate, outcome }) => `${candidate}: ${outcome}`).join('; ');
  return `WebGPU adapter: none (${reasons || 'none wanted'})`;
}

function driverFromEnvironment(): Driver {
  return (process.env.DEFT_ADAPTER || 'auto') as Driver;
}

function passedOver(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

interface Candidate {
  readonly name: string;
  /** The adapter, or the reason why there is none. */
  open(software: boolean): Promise<ResolvedAdapter | string>;
}

function candidates(driver: Driver): readonly Candidate[] {
  const all: readonly (Candidate & { readonly drivers: readonly Driver[] })[] = [
    { name: 'VK_DRIVER_FILES', drivers: userDriverFiles() ? ['auto'] : [], open: openUserDriver },
    { name: 'hardware', drivers: ['auto', 'hardware'], open: openHardware },
    { name: 'system lavapipe', drivers: ['auto', 'lavapipe'], open: openSystemLavapipe },
    { name: 'cached lavapipe', drivers: ['auto', 'lavapipe'], open: openCachedLavapipe },
    { name: 'swiftshader', drivers: ['auto', 'swiftshader'], open: openSwiftShader },
  ];
  return all.filter(({ drivers }) => drivers.includes(driver));
}

// VK_ICD_FILENAMES is the older name; loaders before 1.3.207 know no other.
const userDriverFiles = () => process.env.VK_DRIVER_FILES || process.env.VK_ICD_FILENAMES;

async function openUserDriver(software: boolean) {
  return loaderMissing() ?? accept(await request(userDriverFiles()), software);
}

async function openHardware() {
  return loaderMissing() ?? accept(await request(undefined), false);
}

async function openSystemLavapipe(software: boolean) {
  if (!software) return SOFTWARE_NOT_WANTED;
  const icdFile = systemLavapipe();
  if (icdFile === null) return 'not installed';
  prepareMesa();
  return loaderMissing() ?? accept(await request(icdFile), software, 'system-lavapipe');
}

async function openCachedLavapipe(software: boolean) {
  if (!software) return SOFTWARE_NOT_WANTED;
  const driver = cachedLavapipe();
  if (driver === null) return 'not set up (npm run setup:lavapipe)';
  prepareMesa();
  return openPrivateDriver(driver, 'lavapipe');
}

async function openSwiftShader(software: boolean) {
  if (!software) return SOFTWARE_NOT_WANTED;
  const driver = bundledSwiftShader();
  if (driver === null) return 'npm package @sparticuz/chromium is not here (x64 Linux only)';
  return openPrivateDriver(driver, 'swiftshader');
}

async function openPrivateDriver(driver: SoftwareDriver, kind: AdapterKind) {
  for (const library of driver.libraries) {
    if (!loadLibrary(library)) return `cannot load ${library}`;
  }
  return loaderMissing(driver.loader) ?? accept(await request(driver.icdFile), true, kind);
}

const SOFTWARE_NOT_WANTED = 'software adapters are not wanted';

/** The reason why Dawn cannot look for Vulkan drivers, or null; `fallback` is a loader to use when the system has none. */
function loaderMissing(fallback?: string): string | null {
  if (process.platform !== 'linux') return null;
  if (loadLibrary('libvulkan.so.1')) return null;
  if (fallback !== undefined && loadLibrary(fallback)) return null;
  return 'the system has no Vulkan loader (libvulkan.so.1)';
}

/** Sets what Mesa wants to write to, unless the user has, so that it neither warns nor compiles again next time. */
function prepareMesa(): void {
  process.env.MESA_SHADER_CACHE_DIR ??= join(cacheRoot(), 'mesa');
  if (process.env.XDG_RUNTIME_DIR === undefined) {
    process.env.XDG_RUNTIME_DIR = join(cacheRoot(), 'run');
    mkdirSync(process.env.XDG_RUNTIME_DIR, { recursive: true, mode: 0o700 });
  }
}

// When the object from create() is collected while its device lives, the process crashes. Instances are few and
// small: they stay for the life of the process, one for each set of driver files. On globalThis, so that two
// copies of this module share them.
const HOLDER = Symbol.for('@deftjs/tensor: WebGPU instances');
const holder = globalThis as { [HOLDER]?: Map<string, GPU> };
holder[HOLDER] ??= new Map();
const instances = holder[HOLDER];

/**
 * What Dawn does not do unasked. Half floats on NVIDIA's driver (crbug.com/42251215) and subgroup matrices are optional
 * features all the same, used where an adapter has them. Clamped addresses protect browsers from pages; kernels
 * of this engine keep within their buffers by themselves, and matrices are three times as fast without.
 */
const DAWN_FEATURES = 'enable-dawn-features=vulkan_enable_f16_on_nvidia,allow_unsafe_apis,disable_robustness';

type Answer = Pick<ResolvedAdapter, 'gpu' | 'adapter'> | null;

async function request(driverFiles: string | undefined): Promise<Answer> {
  const { create } = await import('webgpu').catch(() => {
    throw new Error('npm package webgpu is not installed or does not load here');
  });
  const before = { files: process.env.VK_DRIVER_FILES, older: process.env.VK_ICD_FILENAMES };
  setOrDelete('VK_DRIVER_FILES', driverFiles);
  setOrDelete('VK_ICD_FILENAMES', driverFiles);
  const key = driverFiles ?? '';
  const gpu = instances.get(key) ?? create([DAWN_FEATURES]);
  instances.set(key, gpu);
  const adapter = gpu.requestAdapter({ powerPreference: 'high-performance' });
  // Dawn has looked for drivers by now. Restoring before the await keeps concurrent requests apart.
  setOrDelete('VK_DRIVER_FILES', before.files);
  setOrDelete('VK_ICD_FILENAMES', before.older);
  return adapter.then((found) => found && { gpu, adapter: found });
}

function setOrDelete(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}

function accept(answer: Answer, software: boolean, kind?: AdapterKind): ResolvedAdapter | string {
  if (answer === null) return 'Dawn found no adapter it accepts';
  const { info } = answer.adapter;
  const description = info.description || info.device || info.vendor || 'unnamed adapter';
  const isSoftware = info.isFallbackAdapter || /llvmpipe|swiftshader/i.test(description);
  if (isSoftware && !software) return `only a software adapter answered (${description})`;
  return {
    ...answer,
    choice: { kind: kind ?? kindOf(description, isSoftware), why: '', description, isSoftware },
  };
}

function kindOf(description: string, isSoftware: boolean): AdapterKind {
  if (!isSoftware) return 'hardware';
  return /swiftshader/i.test(description) ? 'swiftshader' : 'system-lavapipe';
}

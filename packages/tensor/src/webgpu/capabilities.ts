/** What kernels may rely on: read from an adapter, or narrowed by a test to try the code for lesser devices. */
export interface Capabilities {
  /** Whether shaders may declare f16 storage. Without it halves are packed in pairs. */
  readonly f16: boolean;
  /** Lanes of every subgroup, consecutive invocations; 0 where subgroups are missing or vary. */
  readonly subgroupSize: number;
  /** Whether subgroups multiply 16 by 16 matrices of halves, adding in f32. */
  readonly matrices: boolean;
  /** Whether the adapter computes on the CPU: there barriers and workgroup memory are slow, and threads few. */
  readonly software: boolean;
  /** Whether loops over the steps of a panel are written out: GPUs' compilers may not do it, a CPU's takes long over it. */
  readonly unrolls: boolean;
  /** Scores that an attention kernel may keep in scratch rather than compute in blocks. */
  readonly keptScores: number;
  readonly maxWorkgroupsPerDimension: number;
  readonly maxInvocationsPerWorkgroup: number;
  readonly maxWorkgroupStorageBytes: number;
  readonly maxStorageBuffers: number;
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
}

/**
 * Bytes of a page. What is larger than one binding may be lives in several buffers of a page each, all bound.
 * In whole quads of words, so that no access crosses from one page into the next.
 */
export function pageBytes({ maxBindingBytes, maxBufferBytes }: Capabilities): number {
  return Math.floor(Math.min(maxBindingBytes, maxBufferBytes) / 16) * 16;
}

/** Not yet in WebGPU: offered by Dawn when it is asked for. */
export const MATRIX_FEATURE = 'chromium-experimental-subgroup-matrix' as GPUFeatureName;

interface MatrixConfig {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly componentType: string;
  readonly resultComponentType: string;
}

function hasMatrices(info: GPUAdapterInfo): boolean {
  const { subgroupMatrixConfigs } = info as { subgroupMatrixConfigs?: Iterable<MatrixConfig> };
  return [...(subgroupMatrixConfigs ?? [])].some(
    ({ M, N, K, componentType, resultComponentType }) =>
      M === 16 && N === 16 && K === 16 && componentType === 'f16' && resultComponentType === 'f32',
  );
}

/** What a device with the given adapter info, features and limits can do. */
export function capabilitiesOf(
  info: GPUAdapterInfo,
  features: ReadonlySet<string>,
  limits: GPUSupportedLimits,
): Capabilities {
  const { subgroupMinSize, subgroupMaxSize } = info;
  const fixed = features.has('subgroups') && subgroupMinSize === subgroupMaxSize;
  const software = info.isFallbackAdapter || /llvmpipe|swiftshader/i.test(info.description);
  return {
    f16: features.has('shader-f16'),
    subgroupSize: (fixed && subgroupMinSize) || 0,
    matrices: features.has(MATRIX_FEATURE) && hasMatrices(info),
    software,
    unrolls: !software,
    keptScores: software ? 2 ** 25 : 0,
    maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    maxInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    maxWorkgroupStorageBytes: limits.maxComputeWorkgroupStorageSize,
    maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    maxBindingBytes: limits.maxStorageBufferBindingSize,
    maxBufferBytes: limits.maxBufferSize,
  };
}

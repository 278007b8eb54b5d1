/** What kernels may rely on: read from an adapter, or narrowed by a test to try the code for lesser devices. */
export interface Capabilities {
  /** Whether shaders may declare f16 storage. Without it halves are packed in pairs. */
  readonly f16: boolean;
  /** Lanes of every subgroup, or 0 where subgroups are missing or vary in size. */
  readonly subgroupSize: number;
  /** Whether the adapter computes on the CPU: there barriers and workgroup memory are slow, and threads few. */
  readonly software: boolean;
  readonly maxWorkgroupsPerDimension: number;
  readonly maxInvocationsPerWorkgroup: number;
  readonly maxWorkgroupStorageBytes: number;
  readonly maxStorageBuffers: number;
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
}

/** What a device with the given adapter info, features and limits can do. */
export function capabilitiesOf(
  info: GPUAdapterInfo,
  features: ReadonlySet<string>,
  limits: GPUSupportedLimits,
): Capabilities {
  const { subgroupMinSize, subgroupMaxSize } = info;
  const fixed = features.has('subgroups') && subgroupMinSize === subgroupMaxSize;
  return {
    f16: features.has('shader-f16'),
    subgroupSize: (fixed && subgroupMinSize) || 0,
    software: info.isFallbackAdapter || /llvmpipe|swiftshader/i.test(info.description),
    maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    maxInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    maxWorkgroupStorageBytes: limits.maxComputeWorkgroupStorageSize,
    maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    maxBindingBytes: limits.maxStorageBufferBindingSize,
    maxBufferBytes: limits.maxBufferSize,
  };
}

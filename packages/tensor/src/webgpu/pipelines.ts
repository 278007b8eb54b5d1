/** Compute pipelines, each compiled once for its text. */
import { DeviceError } from '../errors.ts';
import type { Launch } from './launch.ts';

export interface CompiledPipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

type Text = Pick<Launch, 'label' | 'wgsl' | 'bindings'>;

const COMPUTE_STAGE = 0x4;

export class PipelineCache {
  readonly #device: GPUDevice;
  readonly #pipelines = new Map<string, Promise<CompiledPipeline>>();
  /** One layout for each sequence of read and read_write bindings, so that kernels share them. */
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  #created = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Pipelines created so far. */
  get created(): number {
    return this.#created;
  }

  /**
   * The pipeline of a launch.
   * @throws DeviceError with the kernel's label and the compiler's message
   */
  get(launch: Text): Promise<CompiledPipeline> {
    const known = this.#pipelines.get(launch.wgsl);
    if (known) return known;
    const pipeline = this.#create(launch);
    this.#pipelines.set(launch.wgsl, pipeline);
    return pipeline;
  }

  async #create({ label, wgsl, bindings }: Text): Promise<CompiledPipeline> {
    this.#created += 1;
    const layout = this.#layout(bindings.map(({ written }) => written));
    // The scope keeps a mistake in the text from being reported a second time as an uncaptured error.
    this.#device.pushErrorScope('validation');
    const module = this.#device.createShaderModule({ label, code: wgsl });
    const scope = this.#device.popErrorScope();
    try {
      const pipeline = await this.#device.createComputePipelineAsync({
        label,
        layout: this.#device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: 'main' },
      });
      return { pipeline, layout };
    } catch (error) {
      const mistake = await scope;
      const why = mistake?.message ?? (error instanceof Error ? error.message : String(error));
      throw new DeviceError(`kernel "${label}": did not compile; ${why}`);
    }
  }

  #layout(written: readonly boolean[]): GPUBindGroupLayout {
    const key = written.map((flag) => (flag ? 'w' : 'r')).join('');
    const known = this.#layouts.get(key);
    if (known) return known;
    const layout = this.#device.createBindGroupLayout({
      label: key,
      entries: written.map((flag, binding) => ({
        binding,
        visibility: COMPUTE_STAGE,
        buffer: { type: flag ? 'storage' : 'read-only-storage' },
      })),
    });
    this.#layouts.set(key, layout);
    return layout;
  }
}

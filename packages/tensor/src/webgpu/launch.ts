/** One dispatch of a program, and how a module asks for it. */
import type { Capabilities } from './capabilities.ts';
import type { Module, Statements } from './module.ts';

/** What a binding number stands for: a page of what lives at a place. */
export interface BoundPage {
  readonly place: number;
  readonly page: number;
  /** Bytes before the binding, and of it. */
  readonly startBytes: number;
  readonly bytes: number;
  readonly written: boolean;
}

export interface Launch {
  /** The kernel's label. */
  readonly label: string;
  /** For people: kind and index space. */
  readonly description: string;
  readonly wgsl: string;
  /** In order of their binding numbers. */
  readonly bindings: readonly BoundPage[];
  readonly workgroups: readonly [number, number, number];
}

/**
 * WGSL for a 0 that loops start from. On software adapters compilers do not see that it is one, and so do not unroll:
 * that would take them several times as long and gain a tenth.
 */
export function loopStart({ software }: Capabilities): string {
  return software ? 'workgroup.z' : '0u';
}

export interface LaunchRequest {
  readonly label: string;
  readonly description: string;
  readonly workgroupSize: number;
  /** Workgroups, however many; their number in the code is `group`. */
  readonly workgroups: number;
  readonly body: Statements;
}

/** WGSL names that every body may use: the workgroup's number and the invocation's within it, both u32. */
export const GROUP = 'group';
export const LANE = 'lane';
/** The number of the invocation's subgroup within the workgroup, u32: where the module uses matrices. */
export const SUBGROUP = 'subgroup';

/** The module's launch; its workgroups are laid out in two dimensions where one does not hold them. */
export function launch(module: Module, request: LaunchRequest): Launch {
  const { x, y } = grid(request.workgroups, module.capabilities);
  const parameters = [
    '@builtin(workgroup_id) workgroup: vec3u',
    `@builtin(local_invocation_index) ${LANE}: u32`,
    ...(module.usesMatrices ? [`@builtin(subgroup_id) ${SUBGROUP}: u32`] : []),
  ];
  const group = y === 1 ? 'workgroup.x' : `workgroup.y * ${x}u + workgroup.x`;
  return {
    label: request.label,
    description: request.description,
    wgsl: module.render(request.workgroupSize, parameters, [
      `let ${GROUP} = ${group};`,
      ...request.body.lines,
    ]),
    bindings: module.pages.map(({ binding: { place, startBytes, written }, page, bytes }) => ({
      place,
      page,
      startBytes,
      bytes,
      written,
    })),
    workgroups: [x, y, 1],
  };
}

function grid(workgroups: number, { maxWorkgroupsPerDimension }: Capabilities): { x: number; y: number } {
  const y = Math.max(1, Math.ceil(workgroups / maxWorkgroupsPerDimension));
  return { x: Math.ceil(workgroups / y), y };
}

/** "[2, 3] -> [4]": index spaces as `explain` prints them. */
export function spaces(...shapes: readonly (readonly number[])[]): string {
  return shapes.map((shape) => (shape.length === 0 ? '1' : shape.join('x'))).join(' ');
}

/** Invocations to a workgroup, so that a small job still fills several workgroups. */
export function workgroupSizeFor(
  invocations: number,
  { software, maxInvocationsPerWorkgroup }: Capabilities,
): number {
  let size = Math.min(software ? 64 : 128, maxInvocationsPerWorkgroup);
  while (size > 8 && invocations < size * 8) size /= 2;
  return size;
}

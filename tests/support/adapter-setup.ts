// Runs once before a project's suites: finds the adapter, says which, and passes the answer to the test processes, so
// that each of them opens it directly and `describeWebGPU` knows at collection time whether there is one.
import type { TestProject } from 'vitest/node';
// Not '@deftjs/tensor/node': Vitest does not apply the project's resolve conditions to this file.
import {
  type AdapterKind,
  type Driver,
  describeSearch,
  searchAdapter,
} from '../../packages/tensor/src/node/adapter.ts';

const DRIVER_OF_KIND: Readonly<Record<AdapterKind, Driver>> = {
  hardware: 'hardware',
  'system-lavapipe': 'lavapipe',
  lavapipe: 'lavapipe',
  swiftshader: 'swiftshader',
};

export default async function setup(project: TestProject): Promise<void> {
  project.config.env ??= {};
  const env: Record<string, string | undefined> = project.config.env;
  const asked = (env.DEFT_ADAPTER ?? process.env.DEFT_ADAPTER ?? 'auto') as Driver;
  const search = await searchAdapter({ driver: asked });
  console.error(`\n[${project.name}] ${describeSearch(search)}`);
  const own = asked === 'auto' && (process.env.VK_DRIVER_FILES || process.env.VK_ICD_FILENAMES);
  if (search.found === null) env.DEFT_ADAPTER = 'none';
  // With the user's own driver files, `auto` finds the same adapter again.
  else env.DEFT_ADAPTER = own ? 'auto' : DRIVER_OF_KIND[search.found.choice.kind];
}

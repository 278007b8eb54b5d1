/** Golden cases (shared/golden/README.md) on a device: what `deft verify` and the golden tests run. */
import { basename, resolve } from 'node:path';
import { type Device, scope } from '@deftjs/tensor';
import { checkAdapter } from './adapterCase.ts';
import { type Check, failed } from './check.ts';
import { type GoldenFolder, openGoldenFolder } from './goldenFolder.ts';
import { checkLinalg } from './linalgCase.ts';
import { checkModel } from './modelCase.ts';
import { checkPipeline } from './pipelineCase.ts';
import { checkSchedulers } from './schedulerCase.ts';
import { checkTokenizer, tokenizerCases } from './tokenizerCase.ts';
import { checkTraining } from './trainingCase.ts';

export type { Check } from './check.ts';
export { goldenCasesIn } from './goldenFolder.ts';

/** The checks of a kind of case, and how a folder shows that it is of that kind. */
interface Kind {
  readonly matches: (golden: GoldenFolder) => boolean;
  readonly run: (golden: GoldenFolder, device: Device) => Promise<Check[]>;
}

/** The first that matches counts. */
const kinds: readonly Kind[] = [
  { matches: (golden) => golden.has('start/adapter_config.json'), run: checkTraining },
  { matches: (golden) => golden.has('adapter_config.json'), run: checkAdapter },
  { matches: (golden) => golden.has('config.json'), run: checkModel },
  { matches: (golden) => golden.has('model_index.json'), run: checkPipeline },
  { matches: (golden) => 'ddpm/alphas_cumprod' in golden.tensors, run: checkSchedulers },
  { matches: (golden) => 'qr/A' in golden.tensors, run: checkLinalg },
];

/** All checks of the case at the path. One that cannot run is a failed check that says why. */
export async function verifyCase(path: string, device: Device): Promise<Check[]> {
  try {
    const checks = await scope(() => checksOf(resolve(path), device));
    return checks.length > 0 ? checks : [failed('case', 'it records nothing that can be checked')];
  } catch (error) {
    return [failed('case', (error as Error).message)];
  }
}

async function checksOf(path: string, device: Device): Promise<Check[]> {
  if (basename(path) === tokenizerCases) return checkTokenizer(path);
  const golden = await openGoldenFolder(path);
  const kind = kinds.find(({ matches }) => matches(golden));
  if (kind === undefined) return [failed('case', 'not a kind of case that deft verify knows')];
  return kind.run(golden, device);
}

/** Golden cases (shared/golden/README.md) on a device: what `deft verify` and the golden tests run. */
import type { Device } from '@deftjs/tensor';
import { type Check, failed } from './check.ts';
import { type GoldenFolder, openGoldenFolder } from './goldenFolder.ts';
import { checkModel } from './modelCase.ts';
import { checkPipeline } from './pipelineCase.ts';

export type { Check } from './check.ts';
export { goldenFoldersIn } from './goldenFolder.ts';

/** The checks of a kind of case, and how a folder shows that it is of that kind. */
interface Kind {
  readonly matches: (golden: GoldenFolder) => boolean;
  readonly run: (golden: GoldenFolder, device: Device) => Promise<Check[]>;
}

const kinds: readonly Kind[] = [
  { matches: (golden) => golden.has('config.json'), run: checkModel },
  { matches: (golden) => golden.has('model_index.json'), run: checkPipeline },
];

/** All checks of the case in the folder. One that cannot run is a failed check that says why. */
export async function verifyFolder(path: string, device: Device): Promise<Check[]> {
  try {
    const golden = await openGoldenFolder(path);
    const kind = kinds.find(({ matches }) => matches(golden));
    if (kind === undefined) return [failed('case', 'not a kind of case that deft verify knows')];
    return await kind.run(golden, device);
  } catch (error) {
    return [failed('case', (error as Error).message)];
  }
}

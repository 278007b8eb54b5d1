/** What `deft inspect ADAPTER --base FOLDER` does: what an adapter in any format changes. */
import { openNamedDevice } from '../base/open.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { openBase, shapesOf } from './baseFolder.ts';
import { changeLine, changeOfLayer, changeWarnings, type LayerChange } from './changes.ts';
import { checkedBaseHash, readNamedAdapter } from './read.ts';

export interface InspectAdapterRequest {
  readonly base: string;
  readonly json?: string;
}

/** Prints the format, and for each layer the rank and how much its weight changes. @throws as `readNamedAdapter` */
export async function inspectAdapter(
  path: string,
  { base: folder, json }: InspectAdapterRequest,
): Promise<void> {
  await using base = await openBase(folder);
  const adapter = await readNamedAdapter(path, shapesOf(base));
  const device = await openNamedDevice('auto');
  await checkedBaseHash(adapter, base, device);
  const layers: LayerChange[] = [];
  for (const layer of adapter.layers) {
    const { norms } = await changeOfLayer(layer, base.parts[layer.part]!, device);
    layers.push(norms);
    console.log(changeLine(norms));
  }
  const methods = [...new Set(adapter.layers.map(({ method }) => method.name))].join(', ');
  console.log(`${path}: ${adapter.format}, method ${methods}, ${layers.length} layers`);
  for (const warning of changeWarnings(layers)) console.log(`warning: ${warning}`);
  if (json !== undefined) {
    const contents = { format: 1, path, kind: adapter.format, layers };
    writeFileAtomically(json, `${JSON.stringify(contents, null, 2)}\n`);
  }
}

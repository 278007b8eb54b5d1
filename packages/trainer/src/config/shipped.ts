import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder `models/NAME` of this installation, or null: the nearest one above this module. */
export function shippedModel(name: string): string | null {
  if (!/^[\w-]+$/.test(name)) return null;
  let folder = dirname(fileURLToPath(import.meta.url));
  while (true) {
    const model = join(folder, 'models', name);
    // `packages/models` is a package, not a collection of weights. Encoders have a config alone.
    if (['model_index.json', 'config.json'].some((file) => fs.existsSync(join(model, file)))) return model;
    const above = dirname(folder);
    if (above === folder) return null;
    folder = above;
  }
}

/** What files call the model in a folder: its name when it is a shipped one, else the path. */
export function modelName(folder: string): string {
  const name = basename(folder);
  return shippedModel(name) === folder ? name : folder;
}

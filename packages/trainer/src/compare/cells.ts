/**
 * The cells of a table: every row is trained on every subject with every seed, each a `deft train` job of its own whose
 * configuration is that of the cell, of the table and of the row, each over those before it. Of the table's keys a row has
 * those that its method knows.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { type CompareConfig, isForeignKey, readTrainConfig, type TrainConfig } from '../config/index.ts';
import { picturePng } from '../report/index.ts';
import { makeFolder, writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { heldOutPrompts, renderSubject, type Subject, trainingScenes } from '../world/index.ts';

export interface Cell {
  /** The place of its row in the table. */
  readonly row: number;
  readonly subject: Subject;
  readonly seed: number;
  readonly config: TrainConfig;
  /** The file that says so, for `deft train`. */
  readonly file: string;
  /** Where its run is kept. */
  readonly folder: string;
}

/** Keys that the table gives to each cell. */
const given = ['name', 'subject', 'seed'] as const;

type Mapping = Readonly<Record<string, unknown>>;

/** Both mappings, the second over the first, section by section. */
function over(under: Mapping, upper: Mapping): Mapping {
  const isMapping = (value: unknown): value is Mapping =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const laid = Object.entries(upper).map(([key, value]) => {
    const below = under[key];
    return [key, isMapping(value) && isMapping(below) ? over(below, value) : value] as const;
  });
  return { ...under, ...Object.fromEntries(laid) };
}

/** The training pictures of the subject, written where they are not yet. */
async function writePictures(folder: string, subject: Subject): Promise<void> {
  makeFolder(folder);
  for (const [i, { scene, caption }] of trainingScenes(subject).entries()) {
    writeFileAtomically(join(folder, `${i + 1}.png`), await picturePng(renderSubject(scene)));
    writeFileAtomically(join(folder, `${i + 1}.txt`), `${caption}\n`);
  }
}

/**
 * The cells of the table, row by row, their files written into the table's folder and every one of them checked.
 * @throws {UserError} naming the row, when a key belongs to the table or a configuration cannot be used
 */
export async function writeCells(config: CompareConfig, folder: string): Promise<Cell[]> {
  const { subjects, seeds, common, rows } = config;
  for (const { label, keys } of [{ label: 'common', keys: common }, ...rows]) {
    const taken = given.find((key) => key in keys);
    if (taken) throw new UserError(`${label}: ${taken}: the table gives it to every run`, 2);
  }
  for (const subject of subjects) await writePictures(join(folder, 'data', subject), subject);
  makeFolder(join(folder, 'cells'));
  const cells: Cell[] = [];
  for (const [row, { label, keys }] of rows.entries()) {
    for (const subject of subjects) {
      for (const seed of seeds) {
        const name = `${String(row + 1).padStart(2, '0')}-${subject}-${seed}`;
        const own = {
          name,
          subject,
          seed,
          data: { folder: join(folder, 'data', subject) },
          sampling: { prompts: heldOutPrompts(subject).map(({ prompt }) => prompt) },
        };
        const file = join(folder, 'cells', `${name}.json`);
        const shared = Object.entries(common).filter(([key]) => !isForeignKey(key, { ...common, ...keys }));
        const all = over(over(own, Object.fromEntries(shared)), keys);
        writeFileAtomically(file, `${JSON.stringify(all, null, 2)}\n`); // JSON is YAML
        cells.push({
          row,
          subject,
          seed,
          file,
          folder: join(folder, 'runs', name),
          config: read(file, label),
        });
      }
    }
  }
  return cells;
}

function read(file: string, label: string): TrainConfig {
  try {
    return readTrainConfig(file);
  } catch (error) {
    if (error instanceof UserError)
      throw new UserError(`row "${label}":\n${error.message}`, error.exitStatus);
    throw error;
  }
}

/** What a finished cell measured; null where it is not finished. */
export function measuredBy({ folder }: Pick<Cell, 'folder'>): Mapping | null {
  const path = join(folder, 'metrics.json');
  return fs.existsSync(path) ? (JSON.parse(fs.readFileSync(path, 'utf8')) as Mapping) : null;
}

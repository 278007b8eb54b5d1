/**
 * The cells of a table: every row is trained on every subject with every seed, each a `deft train` job of its own whose
 * configuration is that of the cell, of the table and of the row, each over those before it. Of the table's keys a row has
 * those that its method knows.
 */
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import { type CompareConfig, isForeignKey, readTrainConfig, type TrainConfig } from '../config/index.ts';
import type { Condition } from '../metrics/index.ts';
import { pictureExample } from '../pretrain/tasks.ts';
import { picturePng } from '../report/index.ts';
import { makeFolder, writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import {
  heldOutPrompts,
  instructionOf,
  renderSubject,
  type Subject,
  trainingScenes,
} from '../world/index.ts';

export interface Cell {
  /** The place of its row in the table. */
  readonly row: number;
  /** The subject or task. */
  readonly topic: string;
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

/** The training pictures of the subject. */
async function writePictures(folder: string, subject: Subject): Promise<void> {
  makeFolder(folder);
  for (const [i, { scene, caption }] of trainingScenes(subject).entries()) {
    writeFileAtomically(join(folder, `${i + 1}.png`), await picturePng(renderSubject(scene)));
    writeFileAtomically(join(folder, `${i + 1}.txt`), `${caption}\n`);
  }
}

/** Worlds of a task's examples: that which is trained on, and that which is drawn. */
const worlds = { training: 0x7ea1, heldOut: 0x4e1d } as const;

/** Examples of a task with their inputs. */
async function writeExamples(
  folder: string,
  task: Condition,
  world: number,
  count: number,
  size: number,
): Promise<void> {
  makeFolder(folder);
  const rows: string[] = [];
  for (let i = 0; i < count; i += 1) {
    const { input, target, caption } = pictureExample(task, world, i, size);
    const [file, given] = [`${i}.png`, `${i}-${task}.png`];
    writeFileAtomically(join(folder, file), await picturePng(target));
    writeFileAtomically(join(folder, given), await picturePng(input));
    rows.push(
      JSON.stringify({ file_name: file, input_file_name: given, text: instructionOf(task, caption) }),
    );
  }
  writeFileAtomically(join(folder, 'metadata.jsonl'), `${rows.join('\n')}\n`);
}

/** Pixels across the examples: those of the shipped unified model. */
const exampleSize = 32;

/** Something to train on: its name, and the keys that say so. */
interface Topic {
  readonly name: string;
  readonly keys: Mapping;
}

/** The subjects or tasks of a table, their pictures written into its folder. */
async function writeTopics(
  { subjects, tasks, examples, held_out: heldOut }: CompareConfig,
  folder: string,
): Promise<Topic[]> {
  const topics: Topic[] = [];
  for (const subject of subjects) {
    const data = join(folder, 'data', subject);
    await writePictures(data, subject);
    const prompts = heldOutPrompts(subject).map(({ prompt }) => prompt);
    topics.push({ name: subject, keys: { subject, data: { folder: data }, sampling: { prompts } } });
  }
  for (const task of tasks) {
    const [data, drawn] = [join(folder, 'data', task), join(folder, 'data', `${task}-held-out`)];
    await writeExamples(data, task, worlds.training, examples, exampleSize);
    await writeExamples(drawn, task, worlds.heldOut, heldOut, exampleSize);
    topics.push({ name: task, keys: { data: { folder: data }, sampling: { folder: drawn } } });
  }
  return topics;
}

/**
 * The cells of the table, row by row, their files written into the table's folder and every one of them checked.
 * @throws {UserError} naming the row, when a key belongs to the table or a configuration cannot be used
 */
export async function writeCells(config: CompareConfig, place: string): Promise<Cell[]> {
  const folder = resolve(place); // paths in a file are read from where it lies
  const { seeds, common, rows } = config;
  for (const { label, keys } of [{ label: 'common', keys: common }, ...rows]) {
    const taken = given.find((key) => key in keys);
    if (taken) throw new UserError(`${label}: ${taken}: the table gives it to every run`, 2);
  }
  const topics = await writeTopics(config, folder);
  makeFolder(join(folder, 'cells'));
  const cells: Cell[] = [];
  for (const [row, { label, keys }] of rows.entries()) {
    const shared = Object.entries(common).filter(([key]) => !isForeignKey(key, { ...common, ...keys }));
    for (const topic of topics) {
      for (const seed of seeds) {
        const name = `${String(row + 1).padStart(2, '0')}-${topic.name}-${seed}`;
        const all = over(over({ name, ...topic.keys, seed }, Object.fromEntries(shared)), keys);
        const file = join(folder, 'cells', `${name}.json`);
        writeFileAtomically(file, `${JSON.stringify(all, null, 2)}\n`); // JSON is YAML
        const place = { file, folder: join(folder, 'runs', name) };
        cells.push({ row, topic: topic.name, seed, ...place, config: read(file, label) });
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

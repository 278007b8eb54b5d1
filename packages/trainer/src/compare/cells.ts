/**
 * The cells of a table: every row is trained on every subject with every seed, each a `deft train` job of its own whose
 * configuration is that of the cell, of the table and of the row, each over those before it. Of the table's keys a row has
 * those that its method knows.
 */
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import type { MergeKind } from '@deftjs/deft';
import { type CompareConfig, isForeignKey, readTrainConfig, type TrainConfig } from '../config/index.ts';
import type { Condition, Evaluation } from '../metrics/index.ts';
import { pictureExample } from '../pretrain/tasks.ts';
import { picturePng } from '../report/index.ts';
import { makeFolder, writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import {
  heldOutPrompts,
  instructionOf,
  type Picture,
  renderScene,
  renderSubject,
  type Style,
  type Subject,
  styledScenes,
  styleWorlds,
  stylize,
  type Toy,
  toyName,
  toys,
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
const given = ['name', 'subject', 'cast', 'style', 'seed'] as const;

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

/** A file's name without its ending, and what is in it. */
interface Captioned {
  readonly file: string;
  readonly picture: Picture;
  readonly caption: string;
}

async function writeCaptioned(folder: string, all: readonly Captioned[]): Promise<void> {
  makeFolder(folder);
  for (const { file, picture, caption } of all) {
    writeFileAtomically(join(folder, `${file}.png`), await picturePng(picture));
    writeFileAtomically(join(folder, `${file}.txt`), `${caption}\n`);
  }
}

/** The training pictures of a subject, by the name that captions give it. */
function picturesOf(subject: Subject, word?: string, prefix = ''): Captioned[] {
  return trainingScenes(subject, word).map(({ scene, caption }, i) => ({
    file: `${prefix}${i + 1}`,
    picture: renderSubject(scene),
    caption,
  }));
}

/** Pictures to learn a style from, and prompts to draw in it. */
const styleCounts = { pictures: 10, prompts: 8 } as const;

function picturesIn(style: Style): Captioned[] {
  return styledScenes(styleCounts.pictures, styleWorlds.training).map(({ scene, caption }, i) => ({
    file: `${i + 1}`,
    picture: stylize(renderScene(scene), style),
    caption,
  }));
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

/** Toys to train on together, as the topic of that name. @param steps in place of the table's, where given */
async function writeToys(
  data: string,
  name: string,
  of: readonly Toy[],
  steps: number | null,
): Promise<Topic> {
  const pictures = of.flatMap((toy) => picturesOf(toy, toyName(toy), `${toy}-`));
  await writeCaptioned(data, pictures);
  const keys = {
    cast: Object.fromEntries(of.map((toy) => [toyName(toy), toy])),
    data: { folder: data },
    sampling: { prompts: conceptPrompts(of) },
    ...(steps !== null && { steps }),
  };
  return { name, keys };
}

/** Held-out prompts of several toys: eight in all, and two of each at least. */
export function conceptPrompts(of: readonly Toy[]): string[] {
  const each = Math.max(2, Math.floor(8 / of.length));
  return of.flatMap((toy) => heldOutPrompts(toy, toyName(toy), each).map(({ prompt }) => prompt));
}

/** The subjects, toys or tasks of a table, their pictures written into its folder. */
async function writeTopics(config: CompareConfig, folder: string): Promise<Topic[]> {
  const { subjects, concepts, tasks, examples, held_out: heldOut } = config;
  const topics: Topic[] = [];
  for (const subject of subjects) {
    const data = join(folder, 'data', subject);
    await writeCaptioned(data, picturesOf(subject));
    const prompts = heldOutPrompts(subject).map(({ prompt }) => prompt);
    topics.push({ name: subject, keys: { subject, data: { folder: data }, sampling: { prompts } } });
  }
  for (const style of config.styles) {
    const data = join(folder, 'data', style);
    await writeCaptioned(data, picturesIn(style));
    const prompts = styledScenes(styleCounts.prompts, styleWorlds.heldOut).map(({ caption }) => caption);
    topics.push({ name: style, keys: { style, data: { folder: data }, sampling: { prompts } } });
  }
  const least = typeof config.common.steps === 'number' ? config.common.steps : 0;
  for (const count of concepts) {
    const [data, steps] = [join(folder, 'data', `concepts-${count}`), config.steps_each * count];
    topics.push(await writeToys(data, `${count}`, toys.slice(0, count), Math.max(least, steps)));
  }
  for (const task of tasks) {
    const [data, drawn] = [join(folder, 'data', task), join(folder, 'data', `${task}-held-out`)];
    await writeExamples(data, task, worlds.training, examples, exampleSize);
    await writeExamples(drawn, task, worlds.heldOut, heldOut, exampleSize);
    topics.push({ name: task, keys: { data: { folder: data }, sampling: { folder: drawn } } });
  }
  return topics;
}

/** What a row makes of several finished cells. */
export interface MergedCell extends Pick<Cell, 'row' | 'topic' | 'seed' | 'folder'> {
  readonly kind: MergeKind;
  readonly parts: readonly Cell[];
}

/** What a table takes: cells to train, each once, and merges of some of them. */
export interface Cells {
  /** Those that are results of their rows, and after them the parts of merges. */
  readonly trained: readonly Cell[];
  readonly merged: readonly MergedCell[];
}

/**
 * The cells of the table, row by row, their files written into the table's folder and every one of them checked.
 * @throws {UserError} naming the row, when a key belongs to the table or a configuration cannot be used
 */
export async function writeCells(config: CompareConfig, place: string): Promise<Cells> {
  const folder = resolve(place); // paths in a file are read from where it lies
  const { seeds, rows, concepts } = config;
  for (const { label, keys } of [{ label: 'common', keys: config.common }, ...rows]) {
    const taken = given.find((key) => key in keys);
    if (taken) throw new UserError(`${label}: ${taken}: the table gives it to every run`, 2);
  }
  const topics = await writeTopics(config, folder);
  const alone: Topic[] = [];
  for (const toy of rows.some(({ merge }) => merge) ? toys.slice(0, Math.max(...concepts)) : []) {
    alone.push(await writeToys(join(folder, 'data', toy), toy, [toy], null));
  }
  makeFolder(join(folder, 'cells'));
  const parts = new Map<string, Cell>();
  const trained: Cell[] = [];
  const merged: MergedCell[] = [];
  for (const [row, { label, keys, merge }] of rows.entries()) {
    const shared = Object.entries(config.common).filter(
      ([key]) => !isForeignKey(key, { ...config.common, ...keys }),
    );
    const cellOf = (topic: Topic, seed: number, prefix: string): Cell => {
      const name = `${prefix}-${topic.name}-${seed}`;
      // Steps for so many toys take the place of the table's.
      const common = shared.filter(([key]) => !(key === 'steps' && 'steps' in topic.keys));
      const all = over(over({ name, ...topic.keys, seed }, Object.fromEntries(common)), keys);
      const file = join(folder, 'cells', `${name}.json`);
      writeFileAtomically(file, `${JSON.stringify(all, null, 2)}\n`); // JSON is YAML
      const run = join(folder, 'runs', name);
      return { row, topic: topic.name, seed, file, folder: run, config: read(file, label) };
    };
    const own = numbered(row);
    // Rows with the same keys that differ in the merge alone share their parts.
    const shares = `${numbered(rows.findIndex((other) => other.merge && isSame(other.keys, keys)))}-part`;
    const partOf = (topic: Topic, seed: number): Cell => {
      const key = `${shares} ${topic.name} ${seed}`;
      const part = parts.get(key) ?? cellOf(topic, seed, shares);
      parts.set(key, part);
      return part;
    };
    for (const [i, topic] of topics.entries()) {
      for (const seed of seeds) {
        if (merge === null) {
          trained.push(cellOf(topic, seed, own));
          continue;
        }
        const of = alone.slice(0, concepts[i]).map((one) => partOf(one, seed));
        const run = join(folder, 'runs', `${own}-${topic.name}-${seed}`);
        merged.push({ row, topic: topic.name, seed, folder: run, kind: merge, parts: of });
      }
    }
  }
  return { trained: [...trained, ...parts.values()], merged };
}

const numbered = (row: number): string => String(row + 1).padStart(2, '0');
const isSame = (a: Mapping, b: Mapping): boolean => JSON.stringify(a) === JSON.stringify(b);

function read(file: string, label: string): TrainConfig {
  try {
    return readTrainConfig(file);
  } catch (error) {
    if (error instanceof UserError)
      throw new UserError(`row "${label}":\n${error.message}`, error.exitStatus);
    throw error;
  }
}

/** What tables read of a run's metrics.json. */
export interface CellMetrics {
  readonly evaluation: Evaluation;
  readonly training: { readonly seconds: number };
  readonly targets: { readonly trained: number };
}

/** What a finished cell measured; null where it is not finished. */
export function measuredBy({ folder }: Pick<Cell, 'folder'>): CellMetrics | null {
  const path = join(folder, 'metrics.json');
  return fs.existsSync(path) ? (JSON.parse(fs.readFileSync(path, 'utf8')) as CellMetrics) : null;
}

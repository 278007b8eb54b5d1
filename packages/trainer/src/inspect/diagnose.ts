/** `deft diagnose`: what the adapter of a run does to each layer of its base, and where its directions lie. */
import fs from 'node:fs';
import { join } from 'node:path';
import { type ConceptAngles, conceptAngles, diagnose, layerGeometry } from '@deftjs/deft';
import type { Device } from '@deftjs/tensor';
import { openNamedDevice } from '../base/open.ts';
import type { TextToImage } from '../base/textToImage.ts';
import { openBaseOf, openTrained } from '../base/trained.ts';
import { readTrainConfig, type TrainConfig } from '../config/index.ts';
import { chartPng, diagnosisChart, type LayerDiagnosis } from '../report/index.ts';
import { makeFolder, writeFileAtomically } from '../runs/index.ts';
import { applyMethod } from '../train/method.ts';
import { UserError } from '../userError.ts';

export interface DiagnosisRequest {
  /** Another run on the same layers, whose directions are compared; null: none. */
  readonly other: string | null;
  readonly device: string;
  /** The folder that diagnosis.json, diagnosis.svg and diagnosis.png are written to. */
  readonly out: string;
}

/** The configuration of a run with adapters. @throws {UserError} */
function configOf(run: string): TrainConfig {
  const path = join(run, 'config.yaml');
  if (!fs.existsSync(path)) throw new UserError(`${run}: no run of deft train is here`, 2);
  const config = readTrainConfig(path);
  if ('rank' in config || config.method === 'svdiff') return config;
  throw new UserError(`${run}: its method is ${config.method}, which has no adapters on layers`, 2);
}

/** The model of a run before its first step: P where it was drawn. */
async function atStart(config: TrainConfig, device: Device): Promise<TextToImage> {
  const model = await openBaseOf(config);
  await applyMethod(model, config, device);
  return model;
}

const degrees = (angles: readonly number[]): number[] => angles.map((angle) => (180 / Math.PI) * angle);

function byPath(rows: readonly ConceptAngles[]): (path: string) => number[] | null {
  const angles = new Map(rows.map((row) => [row.path, degrees(row.angles)]));
  return (path) => angles.get(path) ?? null;
}

/**
 * The diagnosis of every layer that the run's adapter is on.
 * @throws {UserError} when there is no such run, it has no adapter, or the other run shares no layer with it
 */
export async function diagnoseRun(
  run: string,
  { other, device: deviceName }: Pick<DiagnosisRequest, 'other' | 'device'>,
): Promise<LayerDiagnosis[]> {
  const config = configOf(run);
  const otherConfig = other === null ? null : configOf(other);
  const device = await openNamedDevice(deviceName);
  const model = await openTrained(run, config, device, 1);
  const anglesTo = (module: TextToImage) => conceptAngles({ module: model }, { module }, device);
  const numbers = await diagnose(model, undefined, device);
  const geometry = new Map((await layerGeometry(model, undefined, device)).map((row) => [row.path, row]));
  const toStart = byPath('rank' in config ? await anglesTo(await atStart(config, device)) : []);
  const others = otherConfig && (await anglesTo(await openTrained(other!, otherConfig, device, 1)));
  if (others?.length === 0) throw new UserError(`${other}: has no layer in common with ${run}`, 2);
  const toOther = byPath(others ?? []);
  return numbers.map((layer) => {
    const { anglesToWeight, singularValueShare } = geometry.get(layer.path)!;
    return {
      ...layer,
      toWeight: degrees(anglesToWeight),
      toStart: toStart(layer.path),
      toOther: toOther(layer.path),
      singularValueShare,
    };
  });
}

/** Writes the diagnosis of a run as JSON and as a drawing, and prints its warnings. @throws as {@link diagnoseRun} */
export async function diagnoseToFiles(run: string, request: DiagnosisRequest): Promise<void> {
  const { other, out } = request;
  const layers = await diagnoseRun(run, request);
  const title = other === null ? run : `${run}, beside ${other}`;
  const drawing = await diagnosisChart(layers, title);
  makeFolder(out);
  const write = (name: string, data: Uint8Array | string): void => {
    writeFileAtomically(join(out, name), data);
    console.log(join(out, name));
  };
  write('diagnosis.json', `${JSON.stringify({ format: 1, run, other, layers }, null, 2)}\n`);
  write('diagnosis.svg', drawing);
  write('diagnosis.png', await chartPng(drawing, 1.5));
  for (const { path, warnings } of layers) {
    for (const warning of warnings) console.log(`warning: ${path}: ${warning}`);
  }
}

/** What `deft eval` does: how well a model follows prompts of the world that no one trained on. */
import { estimate, formatEstimate, scorePrompts } from '../metrics/index.ts';
import { gridPng } from '../report/index.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { fullCaption, sampleScene } from '../world/index.ts';
import { drawPrompts } from './draw.ts';
import { openModel, openNamedDevice } from './open.ts';

export interface EvaluationRequest {
  readonly prompts: number;
  readonly seed: number;
  readonly steps: number;
  readonly guidance: number;
  readonly device: string;
  readonly out?: string;
  readonly json?: string;
}

/** Pictures drawn at once: what fits the memory of a small machine. */
const atOnce = 16;

/** Captions of scenes under the seed, each naming all that can be measured. */
function fullCaptions(count: number, seed: number): string[] {
  return Array.from({ length: count }, (_, index) => fullCaption(sampleScene(seed, index)));
}

/** Draws, measures, and prints the share of named attributes that the pictures show. @throws {UserError} */
export async function evaluateModel(name: string, request: EvaluationRequest): Promise<void> {
  const device = await openNamedDevice(request.device);
  const model = await openModel(name, device);
  const prompts = fullCaptions(request.prompts, request.seed);
  const samples = [];
  for (let start = 0; start < prompts.length; start += atOnce) {
    const part = prompts.slice(start, start + atOnce);
    const options = { steps: request.steps, guidanceScale: request.guidance, device };
    samples.push(...(await drawPrompts(model, { prompts: part, seeds: [request.seed], ...options })));
  }
  const scores = scorePrompts(samples, null);
  const following = estimate(scores.map(({ promptFollowing }) => promptFollowing));
  console.log(
    `prompt following ${formatEstimate(following)} over ${prompts.length} prompts (seed ${request.seed})`,
  );
  if (request.json !== undefined) {
    const settings = {
      prompts: request.prompts,
      seed: request.seed,
      steps: request.steps,
      guidance: request.guidance,
    };
    const result = { format: 1, model: name, settings, promptFollowing: following, prompts: scores };
    writeFileAtomically(request.json, `${JSON.stringify(result, null, 2)}\n`);
  }
  if (request.out !== undefined) {
    const pictures = samples.slice(0, 24).flatMap((sample) => sample.pictures);
    writeFileAtomically(request.out, await gridPng(pictures, { columns: 6, labels: prompts.slice(0, 24) }));
  }
}

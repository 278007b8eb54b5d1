/** What `deft sample` does. */
import { gridPng } from '../report/index.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { drawPrompts } from './draw.ts';
import { openModel, openNamedDevice } from './open.ts';

export interface SampleRequest {
  readonly prompt: readonly string[];
  readonly seed: readonly number[];
  readonly steps: number;
  readonly guidance: number;
  readonly strength: number;
  readonly device: string;
  readonly out: string;
}

/** Draws one sheet: a row for each prompt, a column for each seed. @throws {UserError} */
export async function sample(name: string, request: SampleRequest): Promise<void> {
  const device = await openNamedDevice(request.device);
  const model = await openModel(name, device, request.strength);
  for (const prompt of request.prompt) {
    const problem = model.captionProblem(prompt);
    if (problem) throw new UserError(`--prompt "${prompt}": ${problem}`, 2);
  }
  const drawn = await drawPrompts(model, {
    prompts: request.prompt,
    seeds: request.seed,
    steps: request.steps,
    guidanceScale: request.guidance,
    device,
  });
  const sheet = await gridPng(
    drawn.flatMap(({ pictures }) => pictures),
    {
      columns: request.seed.length,
      rowLabels: request.prompt,
    },
  );
  writeFileAtomically(request.out, sheet);
  console.error(`deft: ${request.out}`);
}

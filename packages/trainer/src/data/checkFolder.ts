/** What `deft dataset check` does: reads a folder as training would, and says what it finds. */
import { readTrainingData } from './subsets.ts';

export interface CheckRequest {
  /** The caption of pictures that have none of their own. */
  readonly instancePrompt?: string;
  /** Pixels across the pictures that the model takes. */
  readonly size: number;
}

/** Prints what the folder gives. @throws {UserError} exit status 1, one line for each file that training would refuse */
export async function checkFolder(folder: string, { instancePrompt, size }: CheckRequest): Promise<void> {
  const { pictures, epoch, passedOver, captionSource } = await readTrainingData(folder, {
    size,
    instancePrompt: instancePrompt ?? null,
    captionProblem: () => null,
    maxProblems: Number.POSITIVE_INFINITY,
  });
  for (const { path, reason } of passedOver) console.log(`${folder}/${path}: passed over: ${reason}`);
  console.log(
    `${folder}: ${pictures.length} pictures, ${epoch.length} in an epoch; captions: ${captionSource}`,
  );
}

/** The run folder of a configured job. */
import fs from 'node:fs';
import { join } from 'node:path';
import { configChanges, type PretrainConfig, type TrainConfig, writeConfig } from '../config/index.ts';
import { checkRun, openRun, type Run, type RunRequest } from '../runs/index.ts';
import { UserError } from '../userError.ts';

const configFile = 'config.yaml';

/** Keys that may change when a run is resumed. Any other would make it two runs in one. */
const changeable = /^(steps|minutes|device|checkpoint_every|keep_checkpoints|sample_every|sampling\.\w+)$/;

/**
 * Checks that the job can be run in its folder, touching nothing; the result opens it and writes the resolved
 * configuration there.
 * @throws {UserError} as {@link openRun}, and when a resumed run began with another configuration
 */
export function planRun(request: RunRequest, config: TrainConfig | PretrainConfig): () => Run {
  checkRun(request);
  const folder = join(request.root, request.name);
  const earlier = join(folder, configFile);
  if (request.mode === 'resume' && fs.existsSync(earlier)) {
    const changes = configChanges(fs.readFileSync(earlier, 'utf8'), config);
    const changed = changes.filter((key) => !changeable.test(key));
    if (changed.length > 0) {
      throw new UserError(
        `${folder}: the run began with another configuration (${changed.join(', ')}); ` +
          'give the one it had, or --fresh, or another name',
        2,
      );
    }
  }
  return () => {
    const run = openRun(request);
    run.write(configFile, writeConfig(config));
    return run;
  };
}

// npm start / npm run deft: installs what is missing, bundles the `deft` command and runs it with our arguments.
import { bootstrap } from './bootstrap.mjs';
import { bundle } from './bundle.mjs';
import { runNode } from './run.mjs';

await bootstrap();
const command = await bundle().catch(() => process.exit(1)); // esbuild has printed what is wrong
// Paths on the command line are relative to where the user stands, which npm reports in INIT_CWD.
const cwd = process.env.npm_lifecycle_event === 'deft' ? process.env.INIT_CWD : undefined;
process.exitCode = await runNode(
  ['--enable-source-maps', command, ...process.argv.slice(2)],
  cwd ? { cwd } : {},
);

// npm run build: compiles every package to dist/ (JavaScript and declarations), lowest first, then bundles `deft`.
import { bootstrap } from './bootstrap.mjs';
import { bundle } from './bundle.mjs';
import { runNode } from './run.mjs';

await bootstrap();
for (const name of ['tensor', 'autograd', 'models', 'deft', 'trainer']) {
  const status = await runNode([
    'node_modules/typescript/bin/tsc',
    '-p',
    `packages/${name}/tsconfig.build.json`,
  ]);
  if (status !== 0) process.exit(status);
}
await bundle();

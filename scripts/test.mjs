// npm test [-- FILTER or vitest options]: installs what is missing, prepares a WebGPU adapter, runs the suites on the
// best adapter and the smoke suite on SwiftShader, a second implementation, and ends with one line that counts both.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bootstrap } from './bootstrap.mjs';
import { runNode } from './run.mjs';

const reports = mkdtempSync(join(tmpdir(), 'deft-test-'));
const total = { passed: 0, failed: 0, skipped: 0 };

/**
 * Runs one vitest project and adds its counts to the total.
 * @param {string} project
 */
async function suite(project) {
  const report = join(reports, `${project}.json`);
  const status = await runNode([
    ...['node_modules/vitest/vitest.mjs', 'run', '--project', project, '--passWithNoTests'],
    ...['--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    ...process.argv.slice(2),
  ]);
  const { passed, failed, skipped } = counts(report);
  total.passed += passed;
  total.skipped += skipped;
  // What fails outside a test (a file that does not load, an unhandled rejection, a crash) is a failure all the same.
  total.failed += status !== 0 && failed === 0 ? 1 : failed;
  if (status > 128) finish(status); // Ctrl-C
}

/**
 * The numbers of a vitest JSON report; all zero when the run died before it wrote one.
 * @param {string} report
 */
function counts(report) {
  try {
    const result = JSON.parse(readFileSync(report, 'utf8'));
    const unloaded = result.testResults.filter(
      (/** @type {{ status: string, assertionResults: { status: string }[] }} */ file) =>
        file.status === 'failed' && file.assertionResults.every((test) => test.status !== 'failed'),
    ).length;
    return {
      passed: result.numPassedTests,
      failed: result.numFailedTests + unloaded,
      skipped: result.numPendingTests + result.numTodoTests,
    };
  } catch {
    return { passed: 0, failed: 0, skipped: 0 };
  }
}

/** @param {number} status */
function finish(status) {
  rmSync(reports, { recursive: true, force: true });
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  process.exit(status);
}

await bootstrap();
// Not possible everywhere; the suites then run on what there is.
if (!process.env.DEFT_ADAPTER && process.platform === 'linux') {
  await runNode(['--import', 'tsx', 'scripts/setup-lavapipe.mjs']);
}
await suite('main');
if (process.platform === 'linux' && process.arch === 'x64') await suite('smoke');
else console.log('smoke suite: not run, SwiftShader is packaged for x64 Linux only');

const nothingRan = total.passed + total.failed === 0;
const skippedInCI = process.env.CI === 'true' && total.skipped > 0;
if (skippedInCI) console.log('CI=true: a skipped test counts as a failure');
finish(total.failed > 0 || nothingRan || skippedInCI ? 1 : 0);

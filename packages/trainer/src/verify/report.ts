/** What `deft verify` does: golden cases on a device, one line for each check. */
import fs from 'node:fs';
import { basename, resolve } from 'node:path';
import { openNamedDevice } from '../base/open.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { type Check, goldenCasesIn, verifyCase } from './index.ts';

export interface VerifyRequest {
  readonly device: string;
  /** Where the checks go as JSON. */
  readonly json?: string;
}

/**
 * Runs the cases at the paths, prints their checks, and says whether all agree.
 * @throws {UserError} when a path holds no case
 */
export async function verify(paths: readonly string[], request: VerifyRequest): Promise<boolean> {
  const cases = paths.flatMap(casesAt);
  const device = await openNamedDevice(request.device);
  const width = Math.max(...cases.map((path) => nameOf(path).length));
  const results: (Check & { readonly case: string })[] = [];
  for (const path of cases) {
    for (const check of await verifyCase(path, device)) {
      results.push({ case: nameOf(path), ...check });
      console.log(`${nameOf(path).padEnd(width)}  ${line(check)}`);
    }
  }
  const wrong = results.filter(({ ok }) => !ok).length;
  console.error(
    `deft: ${results.length - wrong} of ${results.length} checks of ${cases.length} cases agree on ${device.kind}`,
  );
  await device.close();
  if (request.json !== undefined) {
    const summary = { format: 1, device: device.kind, ok: wrong === 0, checks: results };
    writeFileAtomically(request.json, `${JSON.stringify(summary, null, 2)}\n`);
  }
  return wrong === 0;
}

function nameOf(path: string): string {
  return basename(resolve(path), '.json');
}

function casesAt(path: string): string[] {
  if (!fs.existsSync(path)) throw new UserError(`${path}: no such folder`, 2);
  const cases = fs.statSync(path).isDirectory() || path.endsWith('.json') ? goldenCasesIn(path) : [];
  if (cases.length === 0) throw new UserError(`${path}: no golden cases here`, 2);
  return cases;
}

/** Quantity, error, verdict, and what is wrong where the numbers do not say it. */
function line({ quantity, error, ok, problem }: Check): string {
  const words = [quantity.padEnd(24), error.toExponential(2).padStart(8), ok ? 'ok' : 'FAIL'];
  return [...words, ...(problem === undefined ? [] : [`(${problem.replace(/\s*\n\s*/g, ' ')})`])].join('  ');
}

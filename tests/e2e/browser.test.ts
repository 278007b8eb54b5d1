/** The packages as they are, bundled, in a headless browser: a training run with Node's numbers. */
import { openDevice } from '@deftjs/tensor/node';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { paint, type Report } from '../../examples/browser/painter.ts';
import { serveExample } from '../../scripts/browser.mjs';
import { findChromium, launchChromium } from '../support/chromium.ts';

const steps = 25;
const chromium = findChromium();
if (chromium === null) console.warn('SKIPPED, no Chromium on this machine: the page in a browser');

describe.skipIf(chromium === null)('the page in a browser', () => {
  let browser: Browser;
  let inNode: number[];
  beforeAll(async () => {
    browser = await launchChromium();
    const { device } = await openDevice('wasm');
    inNode = [];
    for await (const { loss } of paint(device, steps)) inNode.push(loss);
    await device.close();
  });
  afterAll(() => browser.close());

  /** What the page did, and everything that it complained of. */
  async function visit(device: string, isolated: boolean): Promise<{ report: Report; complaints: string[] }> {
    const server = await serveExample({ isolated });
    const page: Page = await browser.newPage({ viewport: { width: 800, height: 640 } });
    page.setDefaultTimeout(50_000);
    const complaints: string[] = [];
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    try {
      await page.goto(`${server.url}?device=${device}&steps=${steps}`);
      await page.waitForFunction('deft.outcome !== null');
      if (process.env.SCREENSHOTS)
        await page.screenshot({ path: `${process.env.SCREENSHOTS}/${device}.png` });
      return { report: (await page.evaluate('deft')) as Report, complaints };
    } finally {
      await page.close();
      server.close();
    }
  }

  test.each([
    ['wasm', true, /^wasm: WebAssembly SIMD, \d+ threads/],
    ['wasm', false, /^wasm: WebAssembly SIMD, 1 thread,/],
    ['webgpu', true, /^webgpu: /],
  ] as const)('trains on %s (isolated: %s) as Node does', async (device, isolated, why) => {
    const { report, complaints } = await visit(device, isolated);
    expect(report.outcome).toBe('');
    expect(complaints).toEqual([]);
    expect(report.why).toMatch(why);
    expect(report.losses).toHaveLength(steps);
    expect(report.losses.at(-1)).toBeLessThan(report.losses[0]! / 2);
    // f32 rounding differs between devices, and 25 updates of Adam let it grow.
    report.losses.forEach((loss, i) => {
      expect(Math.abs(loss / inNode[i]! - 1), `step ${i + 1}`).toBeLessThan(i === 0 ? 1e-6 : 1e-3);
    });
  });
});

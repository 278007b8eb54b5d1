// The page: ?device=auto|webgpu|wasm|reference and ?steps=N. What it did is in `deft` for whoever drives the page.
import type { DeviceName } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/browser';
import { paint, type Report, side, target } from './painter.ts';

const report: Report = { why: '', losses: [], outcome: null };
Object.assign(globalThis, { deft: report });

const element = <E extends Element>(selector: string): E => document.querySelector<E>(selector)!;

function draw(canvas: HTMLCanvasElement, colours: Float32Array): void {
  const pixels = new ImageData(side, side);
  for (let i = 0; i < side * side; i += 1) {
    for (let c = 0; c < 3; c += 1) pixels.data[4 * i + c] = 255 * colours[3 * i + c]!;
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext('2d')!.putImageData(pixels, 0, 0);
}

/** The losses as a line, logarithmic from 1 down to 1e-4. */
function plot(losses: readonly number[], steps: number): void {
  const points = losses.map((loss, i) => `${(300 * i) / steps},${(-80 * Math.log10(loss)) / 4}`);
  element('#line').setAttribute('points', points.join(' '));
}

async function main(): Promise<void> {
  const query = new URLSearchParams(location.search);
  const steps = Number(query.get('steps') ?? 400);
  const { device, why } = await openDevice((query.get('device') ?? 'auto') as DeviceName);
  report.why = why;
  element('#device').textContent = why;
  draw(element('#target'), target());
  const started = performance.now();
  for await (const { step, loss, picture } of paint(device, steps)) {
    report.losses.push(loss);
    draw(element('#painted'), picture);
    plot(report.losses, steps);
    const perStep = (performance.now() - started) / step;
    element('#status').textContent =
      `step ${step} of ${steps}, loss ${loss.toExponential(2)}, ${perStep.toFixed(1)} ms a step`;
    await new Promise((resolve) => setTimeout(resolve));
  }
  await device.close();
}

main().then(
  () => {
    report.outcome = '';
  },
  (error: unknown) => {
    report.outcome = String(error);
    element('#status').textContent = report.outcome;
  },
);

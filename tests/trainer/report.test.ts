import {
  blankPicture,
  chartPng,
  type Evaluation,
  estimate,
  gridPng,
  lossChart,
  type Picture,
  type ReportData,
  renderMetrics,
  renderReport,
  renderSubject,
  rgbOf,
  trainingScenes,
} from '@deftjs/trainer';
import fc from 'fast-check';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { runningMean } from '../../packages/trainer/src/report/curve.ts';
import { gridLayout } from '../../packages/trainer/src/report/grid.ts';
import { caveats, escapeMarkdown } from '../../packages/trainer/src/report/report.ts';
import { wrapText } from '../../packages/trainer/src/report/svg.ts';

interface Pixels {
  readonly width: number;
  readonly height: number;
  at(x: number, y: number): number[];
}

async function decode(png: Uint8Array): Promise<Pixels> {
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  expect(info.channels).toBe(3);
  const { width, height } = info;
  return { width, height, at: (x, y) => [...data.subarray(3 * (y * width + x), 3 * (y * width + x) + 3)] };
}

/** Pixels of a rectangle that are darker than mid grey: ink. */
function ink(pixels: Pixels, left: number, top: number, right: number, bottom: number): number {
  let count = 0;
  for (let y = top; y < bottom; y += 1)
    for (let x = left; x < right; x += 1) if (Math.max(...pixels.at(x, y)) < 128) count += 1;
  return count;
}

const pictures: Picture[] = trainingScenes('robot').map(({ scene }) => renderSubject(scene));

describe('a sheet of pictures', () => {
  it('shows every pixel of every picture as a square in its place', async () => {
    const sheet = await decode(await gridPng(pictures, { columns: 3, magnification: 3 }));
    const { corners, width, height } = gridLayout(pictures, { columns: 3, magnification: 3 });
    expect([sheet.width, sheet.height]).toEqual([width, height]);
    pictures.forEach((picture, i) => {
      const { x, y } = corners[i]!;
      for (const [column, row] of [
        [0, 0],
        [31, 31],
        [12, 17],
        [31, 0],
      ] as const) {
        const at = 3 * (row * 32 + column);
        const expected = [...picture.data.subarray(at, at + 3)].map((value) => Math.round(255 * value));
        for (const [dx, dy] of [
          [0, 0],
          [2, 2],
        ] as const)
          expect(sheet.at(x + 3 * column + dx, y + 3 * row + dy)).toEqual(expected);
      }
    });
    expect(sheet.at(0, 0)).toEqual([255, 255, 255]);
  });

  it('has its title, headings and labels in ink, outside the pictures', async () => {
    const white = pictures.map(() => blankPicture(32, [1, 1, 1]));
    const bare = await decode(await gridPng(white, { columns: 5 }));
    expect(ink(bare, 0, 0, bare.width, bare.height)).toBe(0);
    const options = {
      columns: 5,
      title: 'Before & after <b>',
      headings: [
        { text: 'base', columns: 2 },
        { text: 'adapted', columns: 3 },
      ],
      rowLabels: ['a small sks toy at the top of a white background'],
      labels: ['one', 'two', 'three', 'four', 'five'],
    };
    const sheet = await decode(await gridPng(white, options));
    const { corners } = gridLayout(white, options);
    const [first, last] = [corners[0]!, corners[4]!];
    expect(ink(sheet, 0, 0, sheet.width, 40)).toBeGreaterThan(200); // the title
    expect(ink(sheet, first.x, 40, last.x + 128, first.y)).toBeGreaterThan(100); // the headings
    expect(ink(sheet, 0, first.y, first.x - 8, first.y + 128)).toBeGreaterThan(200); // the row's label
    for (const { x, y } of corners) {
      expect(ink(sheet, x, y + 128, x + 128, sheet.height)).toBeGreaterThan(10);
      expect(ink(sheet, x, y, x + 128, y + 128)).toBe(0);
    }
  });

  it('never lays pictures over each other or outside the sheet', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 5 }),
        fc.boolean(),
        (count, columns, labelled) => {
          const some = Array.from({ length: count }, () => blankPicture(8, rgbOf.red));
          const labels = labelled ? some.map((_, i) => 'word '.repeat(i)) : undefined;
          const { corners, width, height } = gridLayout(some, { columns, ...(labels && { labels }) });
          expect(corners).toHaveLength(count);
          corners.forEach((a, i) => {
            expect(a.x >= 0 && a.y >= 0 && a.x + 32 <= width && a.y + 32 <= height).toBe(true);
            for (const b of corners.slice(i + 1))
              expect(Math.max(Math.abs(a.x - b.x), Math.abs(a.y - b.y))).toBeGreaterThanOrEqual(32);
          });
        },
      ),
    );
  });

  it.each([
    [[], { columns: 1 }, 'grid: expected at least one picture; got none'],
    [
      [blankPicture(8, [0, 0, 0]), blankPicture(9, [0, 0, 0])],
      { columns: 2 },
      'grid: pictures differ in size; expected 8 x 8; got 9 x 9',
    ],
    [pictures, { columns: 3, labels: ['a'] }, 'grid: wrong number of labels; expected 5; got 1'],
    [pictures, { columns: 3, rowLabels: ['a'] }, 'grid: wrong number of row labels; expected 2; got 1'],
    [
      pictures,
      { columns: 3, headings: [{ text: 'a', columns: 2 }] },
      'grid: wrong number of columns under headings; expected 3; got 2',
    ],
  ])('that does not add up is refused (%#)', (some, options, message) => {
    expect(() => gridLayout(some, options)).toThrow(new RangeError(message));
  });

  it('breaks its lines between words, none wider than its place', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 200 }), fc.integer({ min: 20, max: 400 }), (text, width) => {
        const lines = wrapText(text, width, 12);
        const most = Math.max(1, Math.floor(width / 7.2));
        for (const line of lines) expect(line.length).toBeLessThanOrEqual(most);
        const words = text.split(/\s+/).filter(Boolean);
        if (words.every((word) => word.length <= most)) expect(lines.join(' ')).toBe(words.join(' '));
      }),
    );
  });
});

describe('a loss curve', () => {
  const points = Array.from({ length: 400 }, (_, i) => ({
    step: i + 1,
    loss: Math.exp(-i / 80) + 0.05 + 0.02 * (i % 3),
  }));

  it('is drawn as a picture with axes, dots and a falling line', async () => {
    const svg = await lossChart(points, 'robot & friends');
    expect(svg).toContain('robot &amp; friends');
    const chart = await decode(await chartPng(svg, 1));
    expect([chart.width, chart.height]).toEqual([800, 400]);
    const blue = (left: number, right: number): number => {
      const rows: number[] = [];
      for (let x = left; x < right; x += 1)
        for (let y = 0; y < 400; y += 1) {
          const [r, g, b] = chart.at(x, y);
          if (r! < 60 && g! < 110 && b! > 100) rows.push(y);
        }
      expect(rows.length).toBeGreaterThan(10);
      return rows.reduce((a, b) => a + b, 0) / rows.length;
    };
    expect(blue(700, 780)).toBeGreaterThan(blue(60, 140) + 100); // lower on the page
    expect(ink(chart, 0, 0, 400, 30)).toBeGreaterThan(50); // the title
    expect(ink(chart, 0, 60, 60, 340)).toBeGreaterThan(20); // numbers at the axis
  });

  it('leaves out what is not a positive number, and may be empty', async () => {
    const odd = [
      { step: 1, loss: Number.NaN },
      { step: 2, loss: Number.POSITIVE_INFINITY },
      { step: 3, loss: 0 },
    ];
    for (const some of [[], odd, [...odd, { step: 4, loss: 1 }]]) {
      const chart = await decode(await chartPng(await lossChart(some, 'x'), 1));
      expect(chart.width).toBe(800);
    }
  });

  it('runs through the mean of its neighbourhood', () => {
    const flat = runningMean(
      points.map(({ step }) => ({ step, value: 3 })),
      7,
    );
    for (const { value } of flat) expect(value).toBeCloseTo(3, 12);
    const straight = runningMean(
      points.map(({ step }) => ({ step, value: step })),
      7,
    );
    expect(straight[100]!.value).toBeCloseTo(101, 9); // a line is its own mean away from the ends
    expect(straight[0]!.value).toBeCloseTo((1 + 8) / 2, 9);
  });
});

function evaluation(similarity: [number[], number[]] | null, following: [number[], number[]]): Evaluation {
  const compare = ([base, adapted]: [number[], number[]]) => ({
    base: estimate(base),
    adapted: estimate(adapted),
    difference: estimate(adapted.map((value, i) => value - base[i]!)),
  });
  const scores = (side: 0 | 1) =>
    following[side].map((promptFollowing, i) => ({
      prompt: `a sks toy | number ${i}`,
      subjectSimilarity: similarity ? similarity[side][i]! : null,
      toldApart: null,
      styleSimilarity: null,
      promptFollowing,
      condition: null,
    }));
  return {
    subjectSimilarity: similarity && compare(similarity),
    toldApart: null,
    styleSimilarity: null,
    promptFollowing: compare(following),
    condition: null,
    drift: null,
    prompts: { base: scores(0), adapted: scores(1) },
  };
}

const good = evaluation(
  [
    [0.2, 0.22, 0.18, 0.2],
    [0.9, 0.85, 0.88, 0.91],
  ],
  [
    [0.8, 0.7, 0.9, 0.8],
    [0.85, 0.75, 0.9, 0.8],
  ],
);

const data: ReportData = {
  name: 'robot',
  subjectWords: 'sks toy',
  base: 'world-base',
  method: 'DEFT',
  settings: 'rank 4, projector qr',
  targets: { layers: 24, trained: 41_472, total: 1_234_567 },
  training: {
    pictures: 5,
    captions: '5 from text files beside the pictures',
    steps: 600,
    batchSize: 5,
    learningRate: 0.001,
    pLearningRateRatio: 0.1,
    seed: 1,
    seconds: 185,
    device: 'wasm: 2 threads',
    peakMemoryBytes: 812e6,
  },
  loss: { first: 0.31, last: 0.12 },
  evaluation: good,
  sampling: { steps: 25, guidanceScale: 3, seeds: [1, 2] },
  files: {
    trainingPictures: 'training.png',
    comparison: 'before (and) after.png',
    steps: 'samples/steps.png',
    lossCurve: 'loss.png',
    adapter: 'adapter',
    adapterFormat: 'the file names and keys of PEFT',
    adapterBytes: 170_000,
    config: 'config.yaml',
    metrics: 'metrics.json',
  },
  commands: [{ does: 'Draw with it', command: 'npm run deft -- sample runs/robot --prompt "a sks toy"' }],
};

describe('a report', () => {
  const report = renderReport(data);

  it('says what was trained, what came of it, and how to use it', () => {
    for (const part of [
      '# robot',
      'In 3m05s, 5 pictures taught `world-base` what **sks toy** is: DEFT trained 41,472 numbers (3.4 % of the model)',
      'the subject is matched at 0.20 → **0.89**, and prompts are followed at 0.80 → **0.82**',
      '![The same prompts and seeds without and with the adapter](before%20%28and%29%20after.png)',
      '| subject similarity | 0.20 ± 0.01 | 0.89 ± 0.01 | +0.69 ± 0.02 |',
      '| prompt following | 0.80 ± 0.04 | 0.82 ± 0.03 | +0.02 ± 0.01 |',
      '| a sks toy \\| number 0 | 0.20 | 0.90 | 0.80 | 0.85 |',
      '| learning rate | 0.001 for R, 0.0001 for P |',
      '| method | DEFT, rank 4, projector qr |',
      '| peak memory | 812.0 MB |',
      '(170 kB, the file names and keys of PEFT)',
      'npm run deft -- sample runs/robot --prompt "a sks toy"',
    ]) {
      expect(report).toContain(part);
    }
  });

  it('has tables whose rows all have as many cells', () => {
    const tables = report.split('\n\n').filter((block) => block.startsWith('|'));
    expect(tables.length).toBe(3);
    for (const table of tables) {
      const cells = table.split('\n').map((line) => line.replaceAll('\\|', '').split('|').length);
      expect(new Set(cells).size).toBe(1);
    }
  });

  it('leaves the subject out where it cannot be measured', () => {
    const unknown = renderReport({
      ...data,
      subjectWords: null,
      evaluation: evaluation(null, [
        [0.8, 0.7],
        [0.8, 0.7],
      ]),
    });
    expect(unknown).not.toContain('| subject similarity');
    expect(unknown).toContain('taught `world-base` what the pictures show');
    expect(unknown).toContain('nothing here measures whether it was learnt: look at the pictures');
  });

  it('shows text of the user as text', () => {
    const name = '![x](http://evil) <img onerror=a> *b* | `c`\n# d';
    const written = renderReport({ ...data, name, base: 'a`b\n|c', subjectWords: name });
    expect(written).not.toMatch(/<img/);
    expect(written.split('\n')[0]).toBe(`# ${escapeMarkdown(name)}`);
    expect(written).toContain("`a'b c`");
  });

  it('comes with the same numbers as JSON', () => {
    const metrics = JSON.parse(renderMetrics(data));
    expect(metrics).toMatchObject({ format: 1, name: 'robot', loss: data.loss, training: { steps: 600 } });
    expect(metrics.evaluation.promptFollowing.difference).toEqual(good.promptFollowing.difference);
  });
});

describe('the caveats of a report', () => {
  const said = (changes: Partial<ReportData>): string => caveats({ ...data, ...changes }).join('\n');

  it('of a good run are only how little it rests on', () => {
    expect(caveats(data)).toEqual([
      'All of this rests on 5 training pictures, 4 prompts and one run (seed 1); another seed gives other pictures.',
    ]);
  });

  it('say by how much prompts are followed less, and whether that is certain', () => {
    const clear = evaluation(
      [
        [0.2, 0.2, 0.2],
        [0.9, 0.9, 0.9],
      ],
      [
        [0.8, 0.8, 0.8],
        [0.5, 0.52, 0.48],
      ],
    );
    expect(said({ evaluation: clear })).toContain(
      'Prompts are followed less well than before: by 0.30 of all named attributes (± 0.01)',
    );
    const chance = evaluation(
      [
        [0.2, 0.2, 0.2],
        [0.9, 0.9, 0.9],
      ],
      [
        [0.8, 0.6, 0.8],
        [0.6, 0.8, 0.7],
      ],
    );
    expect(said({ evaluation: chance })).toContain(
      'Prompts are followed a little less than before (−0.03 ± 0.12); with 3 prompts that can be chance.',
    );
  });

  it('say that a subject was not, or only partly, learnt', () => {
    const partly = evaluation(
      [
        [0.2, 0.2],
        [0.5, 0.5],
      ],
      [
        [0.8, 0.8],
        [0.8, 0.8],
      ],
    );
    expect(said({ evaluation: partly })).toContain('only partly learnt: a similarity of 0.50 is below 0.6');
    const not = evaluation(
      [
        [0.2, 0.3],
        [0.3, 0.2],
      ],
      [
        [0.8, 0.8],
        [0.8, 0.8],
      ],
    );
    expect(said({ evaluation: not })).toContain('is within its uncertainty');
  });

  it('say that the loss rose or is not finite', () => {
    expect(said({ loss: { first: 0.1, last: 0.2 } })).toContain(
      'The loss did not fall (0.100 at first, 0.200 at last).',
    );
    expect(said({ loss: { first: 0.1, last: Number.NaN } })).toContain('this run has diverged');
  });
});

/** Observable Plot outside of a browser. */

/** Plot's marks, and what draws them: options to an SVG document, with `over` drawn over it. */
export async function openPlot() {
  const [Plot, { parseHTML }] = await Promise.all([import('@observablehq/plot'), import('linkedom')]);
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const drawn = (options: object, over: string): string => {
    // linkedom's document has what Plot uses, but not the type.
    const all = { document, ...options } as unknown as Parameters<typeof Plot.plot>[0];
    const chart = Plot.plot(all);
    chart.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
    return chart.outerHTML.replace(/<\/svg>$/, `${over}</svg>`);
  };
  return { Plot, drawn };
}

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const packages = fileURLToPath(new URL('../packages/', import.meta.url));

/** What each package may import of the others: only what lies below it. */
const below: Readonly<Record<string, readonly string[]>> = {
  tensor: [],
  autograd: ['tensor'],
  models: ['tensor', 'autograd'],
  deft: ['tensor', 'autograd'],
  trainer: ['tensor', 'autograd', 'models', 'deft'],
};

/** Packages whose sources run in a browser, apart from those under src/node. */
const browserSafe = ['tensor', 'autograd', 'models', 'deft'];

interface Import {
  /** Path of the importing file from the packages folder. */
  readonly file: string;
  readonly specifier: string;
}

function sourcesOf(name: string): string[] {
  const root = join(packages, name, 'src');
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => join(root, path));
}

const statement = /(?:\bfrom\s*|\bimport\s*\(?\s*)['"]([^'"]+)['"]/g;

function importsOf(name: string): Import[] {
  return sourcesOf(name).flatMap((path) =>
    Array.from(readFileSync(path, 'utf8').matchAll(statement), ([, specifier]) => ({
      file: relative(packages, path),
      specifier: specifier!,
    })),
  );
}

/** Neither a file of this package nor a part of Node. */
const isOutside = (specifier: string): boolean => !/^(\.|node:)/.test(specifier);
const packageName = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
const isUnderNode = (name: string, file: string): boolean => file.startsWith(join(name, 'src', 'node'));
const listed = (imports: readonly Import[]): string[] =>
  imports.map(({ file, specifier }) => `${file} imports ${specifier}`);

describe.each(Object.keys(below))('package %s', (name) => {
  const imports = importsOf(name);

  it('has sources, and its imports are found', () => {
    expect(sourcesOf(name).length).toBeGreaterThan(5);
    expect(imports.length).toBeGreaterThan(5);
  });

  it('imports only packages below it, by name', () => {
    const wrong = imports.filter(({ specifier }) => {
      const other = /^@deftjs\/([^/]+)/.exec(specifier)?.[1];
      return other !== undefined && !below[name]!.includes(other);
    });
    expect(listed(wrong)).toEqual([]);
    const outside = imports.filter(
      ({ file, specifier }) =>
        specifier.startsWith('.') &&
        !resolve(packages, dirname(file), specifier).startsWith(join(packages, name, 'src')),
    );
    expect(listed(outside)).toEqual([]);
  });

  it('names its dependencies in its manifest', () => {
    const manifest = JSON.parse(readFileSync(join(packages, name, 'package.json'), 'utf8')) as {
      readonly dependencies?: Record<string, string>;
      readonly peerDependencies?: Record<string, string>;
      readonly exports: Record<string, { readonly '@deftjs/source'?: string }>;
    };
    const used = new Set(
      imports.flatMap(({ specifier }) => (isOutside(specifier) ? [packageName(specifier)] : [])),
    );
    const declared = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies });
    for (const dependency of used) expect(declared).toContain(dependency);
    for (const entry of Object.values(manifest.exports)) {
      const source = entry['@deftjs/source'];
      if (source !== undefined) expect(existsSync(join(packages, name, source)), source).toBe(true);
    }
  });
});

describe.each(browserSafe)('package %s, outside src/node', (name) => {
  const imports = importsOf(name).filter(({ file }) => !isUnderNode(name, file));

  it('needs nothing of Node', () => {
    const wrong = imports.filter(
      ({ file, specifier }) =>
        specifier.startsWith('node:') ||
        /^@deftjs\/[^/]+\/node$/.test(specifier) ||
        (specifier.startsWith('.') &&
          isUnderNode(name, relative(packages, resolve(packages, dirname(file), specifier)))),
    );
    expect(listed(wrong)).toEqual([]);
  });
});

describe('the runtime packages tensor and autograd', () => {
  it('depend on nothing but the optional WebGPU binding', () => {
    for (const name of ['tensor', 'autograd']) {
      const others = importsOf(name).filter(
        ({ specifier }) => !/^(\.|node:|@deftjs\/|webgpu$)/.test(specifier),
      );
      expect(listed(others)).toEqual([]);
    }
  });
});

/** docs/ops.md, written from the op list and the doc comments: `npx vitest run tests/tensor/ops/table.test.ts -u`. */
import { readdirSync, readFileSync } from 'node:fs';
import * as api from '@deftjs/tensor';
import { ops, placeholder } from '@deftjs/tensor';
import ts from 'typescript';
import { expect, it } from 'vitest';
import { composites } from '../../support/composites/index.ts';

const folder = new URL('../../../packages/tensor/src/ops/', import.meta.url);

interface Entry {
  readonly name: string;
  readonly signature: string;
  readonly what: string;
}

/** The first sentence of a doc comment; its tags are left out. */
function firstSentence(statement: ts.Node): string {
  const comment = ts.getJSDocCommentsAndTags(statement).find(ts.isJSDoc)?.comment;
  const text = (ts.getTextOfJSDocComment(comment) ?? '').replace(/\s+/g, ' ').trim();
  return /^.*?[.;:](?= |$)/.exec(text)?.[0].replace(/[.;:]$/, '') ?? text;
}

const parametersOf = (list: readonly ts.ParameterDeclaration[]): string =>
  list
    .map(({ dotDotDotToken, name, questionToken, initializer }) => {
      const word = ts.isIdentifier(name) ? name.text : 'options';
      return `${dotDotDotToken ? '...' : ''}${word}${questionToken || initializer ? '?' : ''}`;
    })
    .join(', ');

/** The functions that a file of ops exports to users, as written. */
function entriesOf(file: string): Entry[] {
  const source = ts.createSourceFile(
    file,
    readFileSync(new URL(file, folder), 'utf8'),
    ts.ScriptTarget.Latest,
    true,
  );
  return source.statements
    .flatMap((statement): Entry[] => {
      if (ts.isFunctionDeclaration(statement) && statement.name) {
        const name = statement.name.text;
        return [
          {
            name,
            signature: `${name}(${parametersOf([...statement.parameters])})`,
            what: firstSentence(statement),
          },
        ];
      }
      if (!ts.isVariableStatement(statement)) return [];
      const { name, type } = statement.declarationList.declarations[0]!;
      const arity = type?.getText(source);
      if (arity !== 'Unary' && arity !== 'Binary') return [];
      return [
        {
          name: name.getText(source),
          signature: `${name.getText(source)}(${arity === 'Unary' ? 'x' : 'a, b'})`,
          what: firstSentence(statement),
        },
      ];
    })
    .filter(({ name }) => name in api);
}

/** Whether an op's rule passes cotangents on. Rules that read attributes have something to pass. */
function passes(name: string): boolean {
  const op = ops.find((known) => known.name === name)!;
  const x = placeholder([2], 'f32');
  try {
    return op.vjp(x, { inputs: [x, x, x], output: x, attrs: {} as never }).some((dx) => dx !== null);
  } catch {
    return true;
  }
}

/** The name of the op behind a function: its own, but for `not`. */
const opOf = (name: string): string => (name === 'logicalNot' ? 'not' : name);

function derivativeOf(name: string): string {
  if (ops.some((op) => op.name === opOf(name))) return passes(opOf(name)) ? 'its own rule' : 'none';
  const cases = composites[name];
  return cases === undefined ? '' : cases.smooth ? 'from its parts' : 'none';
}

it('docs/ops.md says what the ops are', async () => {
  const families = readdirSync(folder)
    .filter((file) => file !== 'index.ts')
    .sort();
  const sections = families.flatMap((file) => {
    const entries = entriesOf(file);
    if (entries.length === 0) return [];
    const rows = entries.map(
      ({ name, signature, what }) =>
        `| \`${signature}\` | ${what.replaceAll('|', '\\|')} | ${derivativeOf(name)} |`,
    );
    return [
      `## ${file.replace('.ts', '')}\n\n| function | what | derivative |\n|---|---|---|\n${rows.join('\n')}\n`,
    ];
  });
  const count = ops.length;
  const table = `# Ops

Written by \`tests/tensor/ops/table.test.ts\` from the op list and the doc comments in \`packages/tensor/src/ops\`; the whole
comments are in [api/tensor.md](api/tensor.md). ${count} ops are primitives with derivative rules of their own (or none to
give); every other function is made of them, and so are its derivatives, of any order. Each is checked against its
definition in float64 on wasm and WebGPU, and each derivative against central differences.

${sections.join('\n')}`;
  expect(sections.length).toBeGreaterThan(15);
  await expect(table).toMatchFileSnapshot('../../../docs/ops.md');
});

// npm run docs [-- --check]: writes docs/api from the doc comments of the packages that others install, or says which
// page is not what the sources say. A page is one entry point: every export, as its declaration file has it.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import ts from 'typescript';
import { root } from './run.mjs';

const pages = [
  { page: 'tensor', module: '@deftjs/tensor', entry: 'packages/tensor/src/index.ts' },
  { page: 'tensor-node', module: '@deftjs/tensor/node', entry: 'packages/tensor/src/node/index.ts' },
  { page: 'tensor-browser', module: '@deftjs/tensor/browser', entry: 'packages/tensor/src/browser.ts' },
  { page: 'autograd', module: '@deftjs/autograd', entry: 'packages/autograd/src/index.ts' },
  { page: 'autograd-nn', module: '@deftjs/autograd/nn', entry: 'packages/autograd/src/nn/index.ts' },
  { page: 'autograd-optim', module: '@deftjs/autograd/optim', entry: 'packages/autograd/src/optim/index.ts' },
  {
    page: 'autograd-linalg',
    module: '@deftjs/autograd/linalg',
    entry: 'packages/autograd/src/linalg/index.ts',
  },
  {
    page: 'autograd-gradcheck',
    module: '@deftjs/autograd/gradcheck',
    entry: 'packages/autograd/src/gradcheck.ts',
  },
];

const { config } = ts.readConfigFile(join(root, 'tsconfig.base.json'), ts.sys.readFile);
const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root);
const program = ts.createProgram(
  pages.map(({ entry }) => join(root, entry)),
  {
    ...options,
    declaration: true,
    emitDeclarationOnly: true,
    stripInternal: true,
    incremental: false,
    outDir: '/out',
  },
);
const checker = program.getTypeChecker();

/** @type {Map<ts.SourceFile, ts.SourceFile>} */
const declarationFiles = new Map();

/**
 * The declaration file of a source, without what is marked internal.
 * @param {ts.SourceFile} source
 */
function declarationsOf(source) {
  const known = declarationFiles.get(source);
  if (known) return known;
  let text = '';
  program.emit(
    source,
    (_path, emitted) => {
      text = emitted;
    },
    undefined,
    true,
  );
  const parsed = ts.createSourceFile(source.fileName, text, ts.ScriptTarget.Latest, true);
  declarationFiles.set(source, parsed);
  return parsed;
}

/**
 * The statements of a declaration file that declare a name: several for an overloaded function.
 * @param {ts.SourceFile} file
 * @param {string} name
 */
function statementsFor(file, name) {
  return file.statements.filter((statement) =>
    ts.isVariableStatement(statement)
      ? statement.declarationList.declarations.some((declaration) => declaration.name.getText() === name)
      : 'name' in statement && /** @type {ts.DeclarationStatement} */ (statement).name?.getText() === name,
  );
}

/**
 * The words of a doc comment.
 * @param {ts.Node} statement
 */
function wordsOf(statement) {
  const comment = /** @type {{ jsDoc?: ts.JSDoc[] }} */ (/** @type {unknown} */ (statement)).jsDoc?.at(-1);
  if (!comment) return '';
  return comment
    .getText()
    .replace(/^\/\*\*|\*\/$/g, '')
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, ''))
    .join('\n')
    .trim()
    .replace(/^@(param|returns|throws) ?/gm, '- **$1** ');
}

/**
 * @param {ts.Symbol} symbol
 * @returns {string | null} the section of an export; null for one that is internal
 */
function section(symbol) {
  const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
  const source = target.declarations?.[0]?.getSourceFile();
  if (!source) return null;
  const statements = statementsFor(declarationsOf(source), target.name);
  if (statements.length === 0) return null;
  const words = statements.map(wordsOf).find((text) => text !== '') ?? '';
  const code = statements
    .map((statement) => statement.getText().replace(/^export (declare )?/, ''))
    .join('\n');
  const path = relative(root, source.fileName);
  return [`## ${symbol.name}`, words, `\`\`\`ts\n${code}\n\`\`\``, `[${path}](../../${path})`]
    .filter(Boolean)
    .join('\n\n');
}

const check = process.argv.includes('--check');
const stale = [];
mkdirSync(join(root, 'docs/api'), { recursive: true });
for (const { page, module, entry } of pages) {
  const file = program.getSourceFile(join(root, entry));
  const symbol = file && checker.getSymbolAtLocation(file);
  if (!symbol) throw new Error(`docs: ${entry} is no module`);
  const sections = checker
    .getExportsOfModule(symbol)
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((exported) => section(exported) ?? []);
  const text = `<!-- npm run docs -->\n\n# ${module}\n\n${sections.join('\n\n')}\n`;
  const path = join(root, 'docs/api', `${page}.md`);
  if (!check) writeFileSync(path, text);
  else if (readFileSync(path, 'utf8') !== text) stale.push(relative(root, path));
}
if (stale.length > 0) {
  console.error(`docs: ${stale.join(', ')} differ from the sources; run npm run docs`);
  process.exitCode = 1;
}

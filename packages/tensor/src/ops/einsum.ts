/**
 * Sums of products by Einstein's convention. A letter names an axis; letters missing from the result are summed over.
 *
 * Operands are taken two at a time, left to right, and each pair is one matrix product: letters in both that stay are
 * its batch, letters in both that go are summed in the product, the rest are its rows and columns. A letter that only
 * one operand has and nobody needs is summed before; one that repeats within an operand reads its diagonal, a view.
 */
import { formatShape, formatShapes, ShapeError } from '../errors.ts';
import { numel, type Shape, sameShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { mul } from './elementwise.ts';
import { expand, sum } from './expand.ts';
import { matmul } from './matmul.ts';
import { diagonal } from './matrix.ts';
import { permute, reshape, unsqueeze } from './movement.ts';

/** A tensor whose axes have names. */
interface Named {
  readonly x: Tensor;
  readonly letters: readonly string[];
}

/** Axes of the ellipsis are named by their place from the end: "-1", "-2", ... */
const ellipsisLetters = (count: number): string[] => Array.from({ length: count }, (_, i) => `${i - count}`);

/** The letters of a term, the ellipsis spelled out as `count` axes. */
function lettersOf(equation: string, term: string, count: number): string[] {
  const [front, back, ...more] = term.split('...');
  const letters = [...front!, ...(back === undefined ? [] : [...ellipsisLetters(count), ...back])];
  if (more.length > 0 || ![...`${front}${back ?? ''}`].every((letter) => /[a-zA-Z]/.test(letter))) {
    throw new ShapeError(`einsum: expected letters and at most one "..." in "${term}"; got "${equation}"`);
  }
  return letters;
}

/** The operand's axes in its term: as many as it has, or those left to the ellipsis. */
function nameAxes(equation: string, term: string, x: Tensor): Named {
  const plain = term.replace('...', '').length;
  const rest = x.rank - plain;
  if (rest < 0 || (rest > 0 && !term.includes('...'))) {
    throw new ShapeError(
      `einsum: "${term}" names ${plain} axes; got ${formatShape(x.shape)} in "${equation}"`,
    );
  }
  return { x, letters: lettersOf(equation, term, rest) };
}

/** Letters that repeat within an operand, read along their diagonal. */
function withoutRepeats({ x, letters }: Named, equation: string): Named {
  const second = letters.findIndex((letter, i) => letters.indexOf(letter) < i);
  if (second < 0) return { x, letters };
  const first = letters.indexOf(letters[second]!);
  if (x.shape[first] !== x.shape[second]) {
    throw new ShapeError(
      `einsum: "${letters[first]}" has two extents in "${equation}"; got ${formatShape(x.shape)}`,
    );
  }
  const others = [...letters.keys()].filter((axis) => axis !== first && axis !== second);
  const named = {
    x: diagonal(permute(x, [...others, first, second])),
    letters: [...others.map((axis) => letters[axis]!), letters[first]!],
  };
  return withoutRepeats(named, equation);
}

/** Letters that nobody else needs, summed over. */
function reduced({ x, letters }: Named, needed: ReadonlySet<string>): Named {
  const gone = [...letters.keys()].filter((axis) => !needed.has(letters[axis]!));
  if (gone.length === 0) return { x, letters };
  return { x: sum(x, gone), letters: letters.filter((letter) => needed.has(letter)) };
}

/** The axes in the order of the letters, at extent 1 where the operand has none. */
function arranged({ x, letters }: Named, order: readonly string[]): Tensor {
  const present = order.filter((letter) => letters.includes(letter));
  const moved = permute(
    x,
    present.map((letter) => letters.indexOf(letter)),
  );
  return order.reduce((y, letter, axis) => (letters.includes(letter) ? y : unsqueeze(y, axis)), moved);
}

/** The product of two operands, summed over the letters that only they have. */
function contract(a: Named, b: Named, needed: ReadonlySet<string>): Named {
  const both = new Set([...needed, ...a.letters.filter((letter) => b.letters.includes(letter))]);
  const [left, right] = [reduced(a, both), reduced(b, both)];
  const shared = left.letters.filter((letter) => right.letters.includes(letter));
  const batch = shared.filter((letter) => needed.has(letter));
  const inner = shared.filter((letter) => !needed.has(letter));
  const rows = left.letters.filter((letter) => !shared.includes(letter));
  const columns = right.letters.filter((letter) => !shared.includes(letter));
  const letters = [...batch, ...rows, ...columns];
  if (inner.length === 0) return { x: mul(arranged(left, letters), arranged(right, letters)), letters };
  const extents = (named: Named, list: readonly string[]): number[] =>
    list.map((letter) => named.x.shape[named.letters.indexOf(letter)]!);
  const [over, m, n, k] = [
    extents(left, batch),
    extents(left, rows),
    extents(right, columns),
    extents(left, inner),
  ];
  const x = matmul(
    reshape(arranged(left, [...batch, ...rows, ...inner]), [...over, numel(m), numel(k)]),
    reshape(arranged(right, [...batch, ...inner, ...columns]), [...over, numel(k), numel(n)]),
  );
  return { x: reshape(x, [...over, ...m, ...n]), letters };
}

/** The extent of each letter; only axes of the ellipsis broadcast. */
function extentsOf(operands: readonly Named[], equation: string): Map<string, number> {
  const extents = new Map<string, number>();
  for (const { x, letters } of operands) {
    letters.forEach((letter, axis) => {
      const [extent, known] = [x.shape[axis]!, extents.get(letter) ?? x.shape[axis]!];
      const stretches = letter.startsWith('-') && (extent === 1 || known === 1);
      if (extent !== known && !stretches) {
        throw new ShapeError(
          `einsum: "${letter}" has two extents in "${equation}"; got ${formatShapes(operands.map((o) => o.x.shape))}`,
        );
      }
      extents.set(letter, known === 1 ? extent : known);
    });
  }
  return extents;
}

/**
 * The sum of products that an equation such as 'bij,bjk->bik' names (numpy.einsum, torch.einsum): a term of letters for
 * each operand, '...' for further axes, which broadcast. A repeated letter reads the diagonal ('ii->i'). Without '->', the
 * result has the axes of '...', then the letters that stand once, in alphabetical order.
 * @throws ShapeError naming the equation when terms and shapes do not fit, DTypeError for a product of integers summed
 */
export function einsum(equation: string, ...tensors: readonly Tensor[]): Tensor {
  const [left, right, ...more] = equation.replaceAll(' ', '').split('->') as [string, ...string[]];
  const terms = left.split(',');
  if (more.length > 0 || terms.length !== tensors.length || tensors.length === 0) {
    throw new ShapeError(
      `einsum: expected one term for each of ${tensors.length} operands; got "${equation}"`,
    );
  }
  const named = terms.map((term, i) => withoutRepeats(nameAxes(equation, term, tensors[i]!), equation));
  const extents = extentsOf(named, equation);
  const dots = [...extents.keys()].filter((letter) => letter.startsWith('-'));
  const every = left.replaceAll(',', '').replaceAll('...', '');
  const once = [...every].filter((letter) => every.split(letter).length === 2).sort();
  const output = lettersOf(equation, right ?? `...${once.join('')}`, dots.length);
  const unknown = output.find((letter, i) => !extents.has(letter) || output.indexOf(letter) < i);
  if (unknown !== undefined) {
    throw new ShapeError(
      `einsum: the result names "${unknown}", which must stand once in it and in a term; got "${equation}"`,
    );
  }
  const stretched = named.map(({ x, letters }): Named => {
    const shape = letters.map((letter) => extents.get(letter)!);
    return { x: expand(x, shape), letters };
  });
  const [first, ...rest] = stretched as [Named, ...Named[]];
  const result = rest.reduce((product, operand, i) => {
    const later = rest.slice(i + 1).flatMap(({ letters }) => letters);
    return contract(product, operand, new Set([...output, ...later]));
  }, first);
  return arranged(reduced(result, new Set(output)), output);
}

function expectVectors(op: string, shapes: readonly Shape[], same: boolean): void {
  if (shapes.some((shape) => shape.length !== 1) || (same && !sameShape(shapes[0]!, shapes[1]!))) {
    throw new ShapeError(
      `${op}: expected two vectors${same ? ' of one length' : ''}; got ${formatShapes(shapes)}`,
    );
  }
}

/** a_i b_j: two vectors [M] and [N] to [M, N]. @throws ShapeError, DTypeError */
export function outer(a: Tensor, b: Tensor): Tensor {
  expectVectors('outer', [a.shape, b.shape], false);
  return mul(unsqueeze(a, 1), b);
}

/** The sum of a_i b_i over two vectors of one length. @throws ShapeError, DTypeError */
export function dot(a: Tensor, b: Tensor): Tensor {
  expectVectors('dot', [a.shape, b.shape], true);
  return sum(mul(a, b));
}

/**
 * Regular expressions over module paths, matched whole, as Python's re.fullmatch does with PEFT's target_modules.
 *
 * Patterns come from files that nobody vouches for, and backtracking matchers can take exponential time on some. Here
 * a pattern becomes a nondeterministic automaton that is run on all its states at once (Thompson 1968): time is at most
 * (states) x (characters). What has no such automaton (lookaround, backreferences) is refused.
 *
 *     literals  .  [a-z] [^0-9]  \d \w \s \D \W \S  \. (any escaped punctuation)  ( ) (?: )  |  * + ? {m} {m,} {m,n}
 *     and ^ and $ at the ends
 */

/** Moves on from a character that passes the test, or without one when there is no test. */
interface State {
  readonly test: ((character: string) => boolean) | null;
  readonly next: State[];
}

/** A part of a pattern: its first state, given the state after it. */
type Piece = (next: State) => State;

const maxStates = 10_000;
const maxRepeats = 1000;

const classes: Readonly<Record<string, RegExp>> = {
  d: /^\d$/u,
  D: /^\D$/u,
  w: /^\w$/u,
  W: /^\W$/u,
  s: /^\s$/u,
  S: /^\S$/u,
};

/**
 * The test whether a whole path matches the pattern.
 * @throws SyntaxError for a pattern that is malformed, unsupported or too large
 */
export function pathPattern(pattern: string): (path: string) => boolean {
  const characters = [...pattern];
  let at = 0;
  let states = 0;

  function fail(problem: string): never {
    throw new SyntaxError(`pattern ${JSON.stringify(pattern)}: ${problem} at character ${at + 1}`);
  }

  function state(test: State['test'], next: State[]): State {
    states += 1;
    if (states > maxStates) fail(`more than ${maxStates} states`);
    return { test, next };
  }

  function take(character: string): boolean {
    if (characters[at] !== character) return false;
    at += 1;
    return true;
  }

  const one =
    (test: (character: string) => boolean): Piece =>
    (next) =>
      state(test, [next]);

  function escaped(): (character: string) => boolean {
    const character = characters[at];
    const known = character === undefined ? undefined : classes[character];
    if (known === undefined && (character === undefined || /[A-Za-z0-9]/.test(character)))
      return fail('unsupported escape');
    at += 1;
    return known ? (c) => known.test(c) : (c) => c === character;
  }

  function set(): (character: string) => boolean {
    const negated = take('^');
    const tests: ((character: string) => boolean)[] = [];
    for (let first = true; first || characters[at] !== ']'; first = false) {
      const low = characters[at] ?? fail('unterminated set');
      at += 1;
      if (low === '\\') tests.push(escaped());
      else if (characters[at] === '-' && (characters[at + 1] ?? ']') !== ']') {
        const high = characters[at + 1]!;
        if (high === '\\' || high < low) fail('bad range in a set');
        at += 2;
        tests.push((c) => c >= low && c <= high);
      } else tests.push((c) => c === low);
    }
    at += 1;
    return (c) => tests.some((test) => test(c)) !== negated;
  }

  function atom(): Piece {
    const character = characters[at]!;
    at += 1;
    switch (character) {
      case '.':
        return one((c) => c !== '\n');
      case '\\':
        return one(escaped());
      case '[':
        return one(set());
      case '(': {
        if (take('?') && !take(':')) fail('unsupported group');
        const inner = alternatives(false);
        if (!take(')')) fail('unclosed group');
        return inner;
      }
      case '*':
      case '+':
      case '?':
        at -= 1;
        return fail('nothing to repeat');
      case '^':
      case '$':
        at -= 1;
        return fail('unsupported anchor inside a pattern');
      default:
        return one((c) => c === character);
    }
  }

  function star(piece: Piece): Piece {
    return (next) => {
      const loop = state(null, [next]);
      loop.next.unshift(piece(loop));
      return loop;
    };
  }

  const optional =
    (piece: Piece): Piece =>
    (next) =>
      state(null, [piece(next), next]);

  function repeated(piece: Piece, least: number, most: number): Piece {
    if (most < least || Math.max(least, Number.isFinite(most) ? most : 0) > maxRepeats)
      fail('bad repetition');
    const rest =
      most === Number.POSITIVE_INFINITY
        ? [star(piece)]
        : Array.from({ length: most - least }, () => optional(piece));
    return sequence([...Array.from({ length: least }, () => piece), ...rest]);
  }

  function quantified(): Piece {
    const piece = atom();
    const bounds = /^\{(\d+)(,?)(\d*)\}/.exec(characters.slice(at, at + 20).join(''));
    let result = piece;
    if (take('*')) result = star(piece);
    else if (take('+')) result = repeated(piece, 1, Number.POSITIVE_INFINITY);
    else if (take('?')) result = optional(piece);
    else if (bounds) {
      at += bounds[0].length;
      const least = Number(bounds[1]);
      const most = bounds[3] ? Number(bounds[3]) : bounds[2] ? Number.POSITIVE_INFINITY : least;
      result = repeated(piece, least, most);
    } else return piece;
    take('?'); // lazy: the same language
    if ('*+?'.includes(characters[at] ?? ' ')) fail('unsupported repetition of a repetition');
    return result;
  }

  function alternatives(whole: boolean): Piece {
    const options: Piece[] = [];
    do {
      const pieces: Piece[] = [];
      if (whole) take('^');
      while (at < characters.length && characters[at] !== '|' && characters[at] !== ')') {
        const ends = at + 1 === characters.length || characters[at + 1] === '|';
        if (whole && ends && take('$')) break;
        pieces.push(quantified());
      }
      options.push(sequence(pieces));
    } while (take('|'));
    if (options.length === 1) return options[0]!;
    return (next) =>
      state(
        null,
        options.map((option) => option(next)),
      );
  }

  const piece = alternatives(true);
  if (at < characters.length) fail('unmatched ")"');
  const accepted = state(null, []);
  const start = piece(accepted);

  return (path) => {
    let reached = closure([start]);
    for (const character of path) {
      const moved = [...reached].filter(({ test }) => test?.(character)).flatMap(({ next }) => next);
      reached = closure(moved);
    }
    return reached.has(accepted);
  };
}

function sequence(pieces: readonly Piece[]): Piece {
  return (next) => pieces.reduceRight((after, piece) => piece(after), next);
}

/** The states and all that follow without a character. */
function closure(states: readonly State[]): Set<State> {
  const reached = new Set(states);
  // A set in iteration visits what is added.
  for (const { test, next } of reached) if (test === null) for (const state of next) reached.add(state);
  return reached;
}

/**
 * Compiled functions: a function of trees of tensors, traced once for each signature and replayed from then on.
 *
 * The signature is the structure of the arguments, the shapes and types of their tensors and the values of everything
 * else in them. Tracing calls the function with placeholders; what it reaches besides them (weights that it closes
 * over) is captured: computed once, bound by identity, and read at every run. A replay calls no JavaScript of the
 * function and builds no graph. So whatever changes from call to call has to be a tensor among the arguments.
 */
import { type Device, getDevice, type KernelTime, type Program, type Storage } from './device.ts';
import { DeviceError, DisposedError, formatShapes, ShapeError } from './errors.ts';
import { evaluate, storageOn } from './evaluate.ts';
import { Remembered } from './lru.ts';
import { currentScope, disown, own } from './scope.ts';
import { sameShape } from './shape.ts';
import { placeholder, requireAlive, serialNow, Tensor } from './tensor.ts';
import { isRecord, type Tree, treeBuilder, treeLeaves, treeWith, visitLeaves } from './tree.ts';

export interface CompileOptions {
  /** Default: the device set when the function is first called. */
  readonly device?: Device;
  /**
   * For each donated argument, the path in the result of the tree that takes its place ('' is the whole result):
   * `{ 0: 'state' }` says that `result.state` takes over the storages of argument 0. Both trees must have the same
   * paths, shapes and types. Tensors that were donated are gone after the call.
   */
  readonly donate?: { readonly [argument: number]: string };
}

export interface CompiledFunction<A extends readonly Tree[], R extends Tree> {
  /**
   * The function's result, whose tensors hold their values. Resolves when the work is queued.
   * @throws what the function throws when traced; ShapeError when a donated argument does not fit the result;
   *   DisposedError, DeviceError, DTypeError
   */
  (...args: A): Promise<R>;
  /** The function that was compiled: what derivatives are taken of. */
  readonly fn: (...args: A) => R;
  /** Those of its options that hold for functions derived from it, too. */
  readonly options: Pick<CompileOptions, 'device'>;
  /** Programs held now, one for each signature. */
  readonly signatures: number;
  /** Compiles the program for these arguments, so that their first call need not. Runs nothing. */
  prepare(...args: A): Promise<void>;
  /** The kernels of the program for these arguments, as `Program.explain` prints them. Runs nothing. */
  explain(...args: A): Promise<string>;
  /**
   * How long each kernel of that program takes on its own (see `Program.profile`). Reads and writes none of the
   * arguments.
   * @throws DeviceError when the device does not launch kernels one by one
   */
  profile(...args: A): Promise<readonly KernelTime[]>;
  /** Frees the programs. Calling the function afterwards throws. */
  dispose(): void;
}

/** Programs that a compiled function keeps. */
const programCapacity = 16;

/** Host arguments up to this size are written into one storage at every call; larger ones are uploaded once each. */
const stagedBytes = 64 * 1024;

interface Traced<R> {
  readonly program: Program;
  /** Leaves that the function reached besides its arguments: inputs after those. */
  readonly captured: readonly Tensor[];
  /** The result of the given tensors, and what those are. */
  readonly result: (outputs: readonly Tensor[]) => R;
  readonly outputs: readonly Pick<Tensor, 'shape' | 'dtype'>[];
  readonly donations: ReadonlyMap<number, number>;
  /** Storages that small host arguments are written to, and whose values they hold. */
  readonly staged: Map<number, { readonly storage: Storage; holds: Tensor }>;
}

/**
 * `fn`, compiled: it runs once for each signature, later calls replay its kernels. `fn` must be synchronous and depend
 * on nothing but its arguments and tensors that never change.
 */
export function compile<A extends readonly Tree[], R extends Tree>(
  fn: (...args: A) => R,
  options: CompileOptions = {},
): CompiledFunction<A, R> {
  let device = options.device;
  let disposed = false;
  const known = new Remembered<Traced<R>>(programCapacity, release);

  const prepare = async (args: A, key = signatureOf(args, [])): Promise<Traced<R>> => {
    if (disposed) throw new DisposedError('compile: the compiled function was disposed');
    const computing = device ?? getDevice();
    device = computing;
    return known.of(key, () => trace(fn, args, computing, options.donate ?? {}));
  };

  const call = async (...args: A): Promise<R> => {
    const scope = currentScope();
    const leaves: Tensor[] = [];
    const key = signatureOf(args, leaves);
    for (const leaf of leaves) requireAlive('compile', leaf);
    const traced = await prepare(args, key);
    await evaluate(leaves, device);
    return run(traced, leaves, device!, scope);
  };

  return Object.defineProperty(
    Object.assign(call, {
      fn,
      options: options.device ? { device: options.device } : {},
      prepare: async (...args: A) => {
        await prepare(args);
      },
      explain: async (...args: A) => (await prepare(args)).program.explain(),
      profile: async (...args: A) => {
        const { program } = await prepare(args);
        if (program.profile) return program.profile();
        throw new DeviceError(`profile: device ${device!.kind} does not launch kernels one by one`);
      },
      dispose: () => {
        disposed = true;
        known.clear();
      },
    }),
    'signatures',
    { get: () => known.size },
  ) as CompiledFunction<A, R>;
}

function release({ program, staged }: Traced<unknown>): void {
  program.dispose();
  for (const { storage } of staged.values()) storage.dispose();
}

/**
 * Text that is equal for arguments that one program serves; their tensors, in the order of `treeLeaves`, are added to
 * `leaves`.
 * @throws TypeError naming the path of an unsupported value
 */
function signatureOf(args: readonly Tree[], leaves: Tensor[]): string {
  const describe = (tree: Tree): string => {
    if (tree instanceof Tensor) {
      leaves.push(tree);
      return `${tree.dtype}(${tree.shape.join(',')})`;
    }
    if (Array.isArray(tree)) return `[${tree.map(describe).join(',')}]`;
    if (typeof tree === 'number') return Object.is(tree, -0) ? '-0' : String(tree);
    if (typeof tree !== 'object' || tree === null) return JSON.stringify(tree) ?? 'undefined';
    if (!isRecord(tree)) visitLeaves(args, () => {}); // throws, with the path
    const record = tree as { readonly [key: string]: Tree };
    const fields = Object.keys(record).sort();
    return `{${fields.map((field) => `${JSON.stringify(field)}:${describe(record[field])}`).join(',')}}`;
  };
  return describe(args);
}

async function trace<A extends readonly Tree[], R extends Tree>(
  fn: (...args: A) => R,
  args: A,
  device: Device,
  donate: { readonly [argument: number]: string },
): Promise<Traced<R>> {
  const began = serialNow();
  const placeholders = treeLeaves(args).map(({ shape, dtype }) => placeholder(shape, dtype));
  const traced = fn(...(treeWith(args as Tree, placeholders) as A));
  if (traced instanceof Promise)
    throw new TypeError('compile: the function must be synchronous; it returned a promise');
  const outputs = treeLeaves(traced);
  const donations = matchDonations(args, traced, donate);

  const captured = capturedBy(outputs, placeholders, began);
  await evaluate(captured, device);
  const inputs = [...placeholders, ...captured];
  for (const leaf of captured) storageOn('compile', device, leaf);
  const program = await device.prepare({ inputs, outputs, donations });
  const stored = outputs.map(({ shape, dtype }) => ({ shape, dtype }));
  return { program, captured, result: treeBuilder(traced), outputs: stored, donations, staged: new Map() };
}

/** The tensors from before the trace that the outputs are computed from, and leaves made within it. */
function capturedBy(outputs: readonly Tensor[], placeholders: readonly Tensor[], began: number): Tensor[] {
  // Tensors made since then are numbered one after the other; of those from before, few are met.
  const met = new Uint8Array(serialNow() - began);
  for (const { serial } of placeholders) met[serial - began] = 1;
  const before = new Set<Tensor>();
  const captured: Tensor[] = [];
  const waiting = [...outputs];
  for (let tensor = waiting.pop(); tensor !== undefined; tensor = waiting.pop()) {
    const number = tensor.serial - began;
    if (number < 0 ? before.has(tensor) : met[number] === 1) continue;
    if (number < 0) before.add(tensor);
    else met[number] = 1;
    requireAlive('compile', tensor);
    if (tensor.source.kind === 'applied' && number >= 0) waiting.push(...tensor.source.inputs);
    else captured.push(tensor);
  }
  return captured;
}

/** Which output takes the storage of which input, from the arguments and the parts of the result that replace them. */
function matchDonations(
  args: readonly Tree[],
  result: Tree,
  donate: { readonly [argument: number]: string },
): Map<number, number> {
  const outputs = positionsOf(result);
  const inputs = positionsOf(args);
  const donations = new Map<number, number>();
  for (const [argument, target] of Object.entries(donate)) {
    const part = (path: string, root: string): boolean =>
      root === '' || path === root || path.startsWith(`${root}.`);
    const given = [...inputs].filter(([path]) => part(path, argument));
    const replacing = [...outputs].filter(([path]) => part(path, target));
    const problem = `compile: argument ${argument} cannot be donated to "${target}" of the result`;
    if (given.length !== replacing.length) {
      throw new ShapeError(`${problem}: it holds ${given.length} tensors; got ${replacing.length}`);
    }
    for (const [path, from] of given) {
      const rest = path.slice(argument.length + 1);
      const goal = [target, rest].filter((piece) => piece !== '').join('.');
      const to = outputs.get(goal);
      if (!to) throw new ShapeError(`${problem}: the result has no tensor at "${goal}"`);
      if (to.tensor.dtype !== from.tensor.dtype || !sameShape(to.tensor.shape, from.tensor.shape)) {
        const shapes = formatShapes([from.tensor.shape, to.tensor.shape]);
        throw new ShapeError(
          `${problem}: tensors at "${goal}" differ; got ${from.tensor.dtype} ${shapes} ${to.tensor.dtype}`,
        );
      }
      donations.set(to.position, from.position);
    }
  }
  return donations;
}

/** The tensors of a tree by path, numbered in order. */
function positionsOf(tree: Tree): Map<string, { readonly tensor: Tensor; readonly position: number }> {
  const positions = new Map<string, { tensor: Tensor; position: number }>();
  visitLeaves(tree, (leaf, path) => {
    if (leaf instanceof Tensor) positions.set(path, { tensor: leaf, position: positions.size });
  });
  return positions;
}

function run<R extends Tree>(
  traced: Traced<R>,
  leaves: readonly Tensor[],
  device: Device,
  scope: Set<Tensor> | undefined,
): R {
  const { program, captured, result, outputs, donations, staged } = traced;
  const donated = new Set(donations.values());
  for (const leaf of [...leaves, ...captured]) requireAlive('compile', leaf);
  const inputs = [
    ...leaves.map((leaf, i) =>
      donated.has(i) ? storageOn('compile', device, leaf) : bind(leaf, i, device, staged),
    ),
    ...captured.map((leaf) => storageOn('compile', device, leaf)),
  ];
  const uses = new Map<Storage, number>();
  for (const storage of inputs) uses.set(storage, (uses.get(storage) ?? 0) + 1);
  for (const i of donated) {
    if (uses.get(inputs[i]!)! > 1) {
      throw new Error(
        `compile: a donated tensor of shape [${leaves[i]!.shape}] is also passed or captured elsewhere`,
      );
    }
  }
  const storages = program.run(inputs);
  for (const i of donated) {
    disown(inputs[i]!);
    leaves[i]!.source = donatedSource;
  }
  const tensors = storages.map((storage, i) => {
    const { shape, dtype } = outputs[i]!;
    const tensor = new Tensor(shape, dtype, { kind: 'stored', storage });
    own(tensor, storage, scope);
    return tensor;
  });
  return result(tensors);
}

const donatedSource = { kind: 'gone', why: 'it was donated to a compiled function' } as const;

/** The storage of an argument; a small one on the host is written into a storage that is used again. */
function bind(leaf: Tensor, position: number, device: Device, staged: Traced<unknown>['staged']): Storage {
  const { source } = leaf;
  if (source.kind !== 'host' || leaf.sizeBytes > stagedBytes) return storageOn('compile', device, leaf);
  const place = staged.get(position);
  if (!place) {
    const storage = device.upload(leaf.dtype, source.values);
    staged.set(position, { storage, holds: leaf });
    return storage;
  }
  if (place.holds !== leaf) device.write(place.storage, source.values);
  place.holds = leaf;
  return place.storage;
}

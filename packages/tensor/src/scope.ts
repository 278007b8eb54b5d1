/**
 * Scopes: who frees what was computed.
 *
 * A tensor that `evaluate` or a compiled function computes belongs to the innermost scope that was open when the call
 * began. A scope frees at its end what belongs to it, except what its result needs: that goes to the scope around it.
 * What belongs to no scope is freed by `dispose`, or late, when the garbage collector finds it forgotten.
 */
import type { Storage } from './device.ts';
import { Tensor } from './tensor.ts';
import { type Tree, treeLeaves } from './tree.ts';

/** Tensors that a scope will free. */
type Scope = Set<Tensor>;

const open: Scope[] = [];
const kept = new WeakSet<Tensor>();

let leaks = 0;
const forgotten = new FinalizationRegistry<Storage>((storage) => {
  if (storage.disposed) return;
  leaks += 1;
  storage.dispose();
});
const forgottenUploads = new FinalizationRegistry<Storage>((storage) => storage.dispose());

/** Storages that were freed only because the garbage collector found their tensors forgotten. */
export function leakedStorages(): number {
  return leaks;
}

/** @internal The scope that owns what is computed from now on; undefined outside scopes. */
export function currentScope(): Set<Tensor> | undefined {
  return open.at(-1);
}

/** @internal Gives a tensor, computed into a storage of its own, to a scope. */
export function own(computed: Tensor, storage: Storage, scope: Set<Tensor> | undefined): void {
  scope?.add(computed);
  forgotten.register(computed, storage, storage);
}

/** @internal A donated storage changes its owner: the old one's end is no longer the storage's. */
export function disown(donated: Storage): void {
  forgotten.unregister(donated);
  forgottenUploads.unregister(donated);
}

/** @internal Ties the upload of a host tensor's values to the tensor's life. */
export function tieUpload(host: Tensor, storage: Storage): void {
  forgottenUploads.register(host, storage, storage);
}

/** `x`, whose tensors no scope will free: from now on its user disposes them. */
export function keep<T extends Tree>(x: T): T {
  for (const leaf of treeLeaves(x)) kept.add(leaf);
  return x;
}

/**
 * The result of `fn`; everything computed meanwhile is freed, except what the result's tensors hold or are computed
 * from, and what was given to `keep`. Scopes nest. An asynchronous scope is open until its promise settles; scopes
 * that overlap without nesting are an error.
 * @throws whatever `fn` throws, after freeing; Error when an inner scope is still open
 */
export function scope<R>(fn: () => R): R {
  const own: Scope = new Set();
  open.push(own);
  let result: R;
  try {
    result = fn();
  } catch (error) {
    close(own, []);
    throw error;
  }
  if (!(result instanceof Promise)) {
    close(own, neededBy(result));
    return result;
  }
  return result.then(
    (value) => {
      close(own, neededBy(value));
      return value;
    },
    (error) => {
      close(own, []);
      throw error;
    },
  ) as R;
}

function close(own: Scope, needed: Iterable<Tensor>): void {
  if (open.at(-1) !== own) {
    open.splice(open.indexOf(own), 1);
    throw new Error('scope: it ended before a scope that began inside it; await the inner one first');
  }
  open.pop();
  const outer = open.at(-1);
  for (const tensor of needed) {
    if (own.delete(tensor)) outer?.add(tensor);
  }
  for (const tensor of own) if (!kept.has(tensor)) tensor.dispose();
}

/** The tensors in a result, and those that its tensors are computed from. */
function neededBy(result: unknown): Set<Tensor> {
  const needed = tensorsIn(result);
  // A set in iteration visits what is added.
  for (const { source } of needed) {
    if (source.kind === 'applied') for (const input of source.inputs) needed.add(input);
  }
  return needed;
}

/** The tensors reachable through arrays, records and objects. */
function tensorsIn(result: unknown): Set<Tensor> {
  const tensors = new Set<Tensor>();
  const seen = new Set<unknown>([result]);
  for (const value of seen) {
    if (value instanceof Tensor) tensors.add(value);
    else if (typeof value === 'object' && value !== null && !ArrayBuffer.isView(value)) {
      for (const child of value instanceof Map ? value.values() : Object.values(value)) seen.add(child);
    }
  }
  return tensors;
}

/** What happens when a number is not finite: nothing to the state, and the layer is named. */
import { type Module, namedModules } from '@deftjs/autograd/nn';
import {
  add,
  type Device,
  evaluate,
  isfinite,
  mul,
  read,
  Tensor,
  type Tree,
  treeLeaves,
  treeWith,
  where,
} from '@deftjs/tensor';

/** The next state where loss and gradient norm are finite, else the state as it was. */
export function guarded<S extends Tree>(loss: Tensor, norm: Tensor, next: S, before: S): S {
  const finite = isfinite(add(mul(loss, 0), mul(norm, 0))); // 0 where both are, else NaN
  const old = treeLeaves(before);
  return treeWith(
    next,
    treeLeaves(next).map((x, i) => where(finite, x, old[i]!)),
  );
}

/** A layer and what it gave. */
interface Given {
  readonly path: string;
  readonly output: Tensor;
}

/** What the layers of a module give while `run` runs, inner layers before the ones that they are part of. */
function outputsOf(module: Module, run: () => unknown): Given[] {
  const given: Given[] = [];
  const layers = [...namedModules(module)].filter(([, layer]) => 'forward' in layer) as [
    string,
    Module & { forward(...x: unknown[]): unknown },
  ][];
  const restore = layers.map(([path, layer]) => {
    const own = Object.hasOwn(layer, 'forward') ? layer.forward : null;
    const forward = layer.forward.bind(layer);
    layer.forward = (...x) => {
      const output = forward(...x);
      if (output instanceof Tensor) given.push({ path, output });
      return output;
    };
    return () => {
      if (own) layer.forward = own;
      else Reflect.deleteProperty(layer, 'forward');
    };
  });
  try {
    run();
  } finally {
    for (const undo of restore) undo();
  }
  return given;
}

/**
 * The path of the first layer whose output is not finite although those before it are; null when all are. Every output is
 * computed and read: for finding a fault.
 */
export async function firstFaultyLayer(
  module: Module,
  run: () => unknown,
  device: Device,
): Promise<string | null> {
  const given = outputsOf(module, run);
  await evaluate(
    given.map(({ output }) => output),
    device,
  );
  for (const { path, output } of given) {
    if (!(await read(output, device)).every(Number.isFinite)) return path;
  }
  return null;
}

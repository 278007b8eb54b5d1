/** The process of one contender: `child.js CONTENDER BACKEND`. */
import { type Backend, type Contender, serve } from './contender.ts';

type Open = { open(backend: Backend): Promise<Contender> };

const modules: { readonly [name: string]: () => Promise<Open> } = {
  deft: () => import('./deft.ts'),
  'jax-js': () => import('./jax.ts'),
  'TF.js': () => import('./tfjs.ts'),
};

const [name, backend] = process.argv.slice(2);
const contender = modules[name!]!().then(({ open }) => open(backend as Backend));
serve(contender).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});

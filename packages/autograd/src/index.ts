/** Derivatives of functions of tensors, of any order. */
export { customVjp, type VjpRule, withVjp } from './custom.ts';
export { backpropagate, type Pullback, type Pushforward, pushForward, type Step } from './engine.ts';
export { grad, hvp, jvp, type Loss, valueAndGrad, vjp } from './transforms.ts';

/** Derivatives of functions of tensors, of any order. */
export { AnomalyError, detectAnomaly } from './anomaly.ts';
export { checkpoint } from './checkpoint.ts';
export { customJvp, customVjp, type JvpRule, type VjpRule, withJvp, withVjp } from './custom.ts';
export { backpropagate, type Pullback, type Pushforward, pushForward, type Step } from './engine.ts';
export { type Jacobian, jacobian } from './jacobian.ts';
export { grad, hvp, jvp, type Loss, valueAndGrad, vjp } from './transforms.ts';
export { vmap } from './vmap.ts';

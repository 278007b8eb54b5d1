/** Learning rates and the decay of averages, step by step. */
import { constant, cosine, linear, polynomial, type Schedule, warmup } from '@deftjs/autograd/optim';
import type { TrainConfig } from '../config/index.ts';

/** The learning rate of each step, counted from 0: warmed up, then as scheduled to 0 at the last. */
export function learningRates(config: TrainConfig): Schedule {
  const { learning_rate: peak, steps, warmup_steps, learning_rate_schedule, learning_rate_power } = config;
  const schedules: Readonly<Record<TrainConfig['learning_rate_schedule'], Schedule>> = {
    constant: constant(peak),
    linear: linear(peak, steps),
    cosine: cosine(peak, steps),
    polynomial: polynomial(peak, steps, learning_rate_power),
  };
  return warmup(schedules[learning_rate_schedule], warmup_steps);
}

/** The decay of a moving average at a step: it forgets the first weights quickly, then settles at its own pace. */
export function averageDecay(decay: number, step: number): number {
  return Math.min(decay, (1 + step) / (10 + step));
}

/** Learning rates over the steps of a run. */
import { InvalidInputError } from "../errors.js";

/** How the rate goes on after the warm-up. */
export type Decay = "constant" | "linear" | "cosine";

export interface Schedule {
  /** The rate at the end of the warm-up. */
  readonly learningRate: number;
  readonly decay: Decay;
  /** Steps in which the rate grows from 0; the very first has rate 0 where there are any (SPEC §9.1). */
  readonly warmupSteps: number;
  /** Steps of the whole run, after which the rate is 0. Not read where the rate stays constant. */
  readonly totalSteps: number | undefined;
}

/** The rate that step `step` (from 0) uses. */
export function learningRateAt({ learningRate, decay, warmupSteps, totalSteps }: Schedule, step: number): number {
  if (step < warmupSteps) return (learningRate * step) / warmupSteps;
  if (decay === "constant") return learningRate;
  if (totalSteps === undefined) {
    throw new InvalidInputError(
      `training: a ${decay} decay needs the number of steps of the run; pass { totalSteps }.`,
    );
  }
  const left = Math.max(0, totalSteps - step) / Math.max(1, totalSteps - warmupSteps);
  return decay === "linear" ? learningRate * left : learningRate * 0.5 * (1 + Math.cos(Math.PI * (1 - left)));
}

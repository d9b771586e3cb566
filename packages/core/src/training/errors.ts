/** The errors that only training raises. */
import { CdeError } from "../errors.js";
import type { LargestGradient } from "./optimizer.js";

/** Loss or gradients are no longer numbers. The weights are those of the step before. */
export class TrainingDivergedError extends CdeError {
  /** The step that was not made, from 1. */
  readonly step: number;
  readonly loss: number;
  /** Ids of the pairs of its batches. */
  readonly pairs: readonly string[];
  /** Of this step where it got so far, else of the step before. */
  readonly largestGradient: LargestGradient | undefined;

  constructor(details: {
    step: number;
    loss: number;
    pairs: readonly string[];
    largestGradient: LargestGradient | undefined;
  }) {
    const { step, loss, pairs, largestGradient: largest } = details;
    const what = Number.isFinite(loss) ? "the gradients aren't finite" : `the loss is ${loss}`;
    const gradient = largest ? ` The largest gradient was ${largest.value}, of ${largest.parameter}.` : "";
    super(
      "TRAINING_DIVERGED",
      `training: at step ${step} ${what}; its batch holds the pairs ${listed(pairs)}.${gradient} The weights are still those of the step before: save them, lower learningRate, or look at these pairs.`,
    );
    this.step = step;
    this.loss = loss;
    this.pairs = pairs;
    this.largestGradient = largest;
  }
}

/** A checkpoint was asked to go on under settings, a model or batches that aren't those it was made with. */
export class CheckpointMismatchError extends CdeError {
  /** What differs, such as "learningRate". */
  readonly what: string;

  constructor(what: string, message: string) {
    super("CHECKPOINT_MISMATCH", message);
    this.what = what;
  }
}

function listed(ids: readonly string[]): string {
  return ids.length <= 8 ? ids.join(", ") : `${ids.slice(0, 8).join(", ")} and ${ids.length - 8} more`;
}

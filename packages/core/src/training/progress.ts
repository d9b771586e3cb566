/** Where a run stands: plain data, all that a checkpoint keeps beside tensors. */
import { sha256Hex } from "../model/digest.js";
import type { RandomState } from "../random.js";
import type { TrainingBatch } from "./batch.js";

export interface BestModel {
  readonly value: number;
  readonly step: number;
}

export interface Progress {
  /** Steps of the optimiser that were made. */
  step: number;
  /** Passes over the data that are behind. */
  epoch: number;
  /** Batches of this epoch that were used. */
  batches: number;
  /** Of what gives the batches, where it has a digest. */
  source: string | null;
  /** Of the last batch that was used: `batchDigest`. */
  lastBatch: string | null;
  random: RandomState;
  best: BestModel | null;
  /** Evaluations since the best. */
  evaluationsSinceBest: number;
  /** The last figures of the evaluators. */
  metrics: Readonly<Record<string, number>> | null;
  /** Pairs that were used, by data set. */
  pairs: Readonly<Record<string, number>>;
}

/** Names the batch that a run stands behind: data set and pairs, in order. */
export function batchDigest({ dataset, pairs }: TrainingBatch): string {
  return sha256Hex(JSON.stringify([dataset, ...pairs.map(({ id }) => id)]));
}

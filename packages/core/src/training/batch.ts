/** One batch of training: what the packing gives and the trainer takes. Types only. */

/** One query with its positive and its hard negatives. */
export interface TrainingPair {
  /** Names the pair in its data set: errors, logs and resume speak of it. */
  readonly id: string;
  readonly query: string;
  readonly positive: string;
  /** Hard negatives: extra columns of the loss. */
  readonly negatives: readonly string[];
}

/** Pairs of one data set that are contrasted with each other. No document comes twice. */
export interface TrainingBatch {
  /** The data set: prompts are chosen by it. */
  readonly dataset: string;
  readonly pairs: readonly TrainingPair[];
  /**
   * [pairs, documents], row by row, where documents are the positives in the order of the pairs, then all hard negatives
   * in that order: 1 where a document may not count against a query (a false negative), 0 elsewhere. None where absent.
   */
  readonly falseNegatives?: Uint8Array;
}

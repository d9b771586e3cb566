/** What makes batches of a pair set, and what it says about them. Types only. */
import type { TrainingBatch } from "../batch.js";
import type { PairClusters } from "./cluster-pairs.js";

/** A batch with its place and what was measured while it was packed. */
export interface PackedBatch extends TrainingBatch {
  readonly epoch: number;
  /** Place in the epoch, from 0: with `epoch` all that a resumed run needs. */
  readonly number: number;
  readonly report: BatchReport;
}

/** What the packing saw in one batch. */
export interface BatchReport {
  /** Clusters that its pairs are of; 1 in random batches. */
  readonly clusters: number;
  /** Entries of the mask that are 1. */
  readonly falseNegatives: number;
  /** Of those, documents that the data itself names as another positive of the query. */
  readonly knownPositives: number;
  /** Pairs of a query and a document that isn't its own: what could be masked. */
  readonly candidates: number;
  /**
   * Mean surrogate score (cosine) of queries and the documents of other pairs, masked ones left out: higher is
   * harder. Undefined without a surrogate.
   */
  readonly difficulty: number | undefined;
  /** Hard negatives left out because they are a positive or an earlier hard negative of the batch. */
  readonly repeatedNegatives: number;
}

/** How an epoch was packed. */
export interface EpochPlan {
  readonly epoch: number;
  readonly batches: number;
  /** Pairs that are in no batch of this epoch: the rest below a batch, and what would have repeated a text in it. */
  readonly leftOut: number;
  readonly datasets: readonly { readonly name: string; readonly batches: number; readonly leftOut: number }[];
}

export interface EpochOptions {
  /** Number of the first batch: a resumed run goes on where it stood. @default 0 */
  readonly from?: number;
  /** Batches that are read and scored while the caller works on one. @default 1 */
  readonly ahead?: number;
  readonly signal?: AbortSignal;
}

/** Batches of a pair set, epoch by epoch. Equal seeds, pairs and surrogates give equal batches; each epoch its own. */
export interface Batches extends AsyncDisposable {
  /** Pairs of every batch. */
  readonly batchSize: number;
  /** sha256 of all that determines the batches: a checkpoint keeps it and refuses another. */
  readonly digest: string;
  /** Of each data set, where batches are contextual; none where they are random. */
  readonly clusters: readonly PairClusters[];
  /** Cuts an epoch (from 0) into batches, without reading a text. */
  plan(epoch: number, options?: { readonly signal?: AbortSignal }): Promise<EpochPlan>;
  /** The batches of an epoch, from `from` on. */
  epoch(epoch: number, options?: EpochOptions): AsyncIterable<PackedBatch>;
  close(): Promise<void>;
}

/** Where batches come from, and how a run that is resumed finds its place in them. */
import type { TrainingBatch } from "./batch.js";
import { CheckpointMismatchError } from "./errors.js";
import { batchDigest, type Progress } from "./progress.js";

/** Batches of one epoch, in one order: a run that is resumed passes over those that were used. */
export type EpochBatches = Iterable<TrainingBatch> | AsyncIterable<TrainingBatch>;

/** Batches that can be begun anywhere in an epoch, such as those of `createBatches`. */
export interface BatchSource {
  /** Of all that determines the batches; a checkpoint keeps it and refuses another. */
  readonly digest?: string;
  /** Batches of an epoch (from 0) from number `from` on. */
  epoch(epoch: number, options: { readonly from: number }): EpochBatches;
}

/** Something that gives the batches of every epoch; undefined for the batches of one. */
export function sourceOf(
  batches: EpochBatches | BatchSource | ((epoch: number) => EpochBatches),
): (BatchSource & { readonly begins: boolean }) | undefined {
  if (typeof batches === "function") return { epoch: batches, begins: false };
  if (!("epoch" in batches)) return undefined;
  const { digest } = batches;
  return {
    ...(digest !== undefined && { digest }),
    epoch: (epoch, options) => batches.epoch(epoch, options),
    begins: true,
  };
}

/** Skips the batches that the run is past, given from number `from` on, and makes sure that they are the same. */
export async function passOver(
  iterator: Iterator<TrainingBatch> | AsyncIterator<TrainingBatch>,
  from: number,
  { batches, lastBatch, epoch }: Progress,
): Promise<void> {
  let last: TrainingBatch | undefined;
  for (let i = from; i < batches; i++) {
    const next = await iterator.next();
    if (next.done) {
      throw new CheckpointMismatchError(
        "batches",
        `steps: the run has used ${batches} batches of epoch ${epoch}, and only ${i} are given now. Give the batches that it began with.`,
      );
    }
    last = next.value;
  }
  if (last && batchDigest(last) !== lastBatch) {
    throw new CheckpointMismatchError(
      "batches",
      `steps: batch ${batches} of epoch ${epoch} ("${last.dataset}", beginning with the pair "${last.pairs[0]?.id}") isn't the one that the run used. Give the batches that it began with, in their order.`,
    );
  }
}

/** Refuses another source than the run began with, and remembers this one. */
export function requireSource(progress: Progress, digest: string | undefined): void {
  const { source } = progress;
  if (source !== null && source !== (digest ?? null)) {
    throw new CheckpointMismatchError(
      "batches",
      `steps: the run has used batches of the source ${source.slice(0, 12)}, those given now are of ${digest?.slice(0, 12) ?? "none with a digest"}. Make them as they were made: same pairs, surrogate, options and seed.`,
    );
  }
  progress.source = digest ?? null;
}

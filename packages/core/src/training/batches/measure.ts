/** An epoch's batches in a few figures: how hard they are, and what was masked. */
import type { Batches } from "./batches.js";

export interface BatchSummary {
  /** Batches that were read. */
  readonly batches: number;
  /** Mean difficulty; undefined without a surrogate. */
  readonly difficulty: number | undefined;
  /** Sums over all batches; see `BatchReport`. */
  readonly falseNegatives: number;
  readonly knownPositives: number;
  readonly candidates: number;
  readonly repeatedNegatives: number;
  /** Mean number of clusters of a batch. */
  readonly clusters: number;
}

/** Reads the batches of an epoch, the first `limit` of them where it is given, and sums their reports up. */
export async function measureBatches(
  batches: Batches,
  epoch: number,
  options: { readonly limit?: number; readonly signal?: AbortSignal } = {},
): Promise<BatchSummary> {
  const { limit = Number.POSITIVE_INFINITY, signal } = options;
  let [count, difficulty, measured, clusters] = [0, 0, 0, 0];
  const sums = { falseNegatives: 0, knownPositives: 0, candidates: 0, repeatedNegatives: 0 };
  for await (const { report } of batches.epoch(epoch, signal ? { signal } : {})) {
    count++;
    clusters += report.clusters;
    if (report.difficulty !== undefined) {
      difficulty += report.difficulty;
      measured++;
    }
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += report[name];
    if (count >= limit) break;
  }
  const mean = (sum: number, of: number): number | undefined => (of === 0 ? undefined : sum / of);
  return { batches: count, difficulty: mean(difficulty, measured), ...sums, clusters: mean(clusters, count) ?? 0 };
}

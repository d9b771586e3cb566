/** Clusters of one data set's pairs: spherical k-means over query and positive together. */
import { InvalidInputError } from "../../errors.js";
import { kMeans } from "../../k-means/k-means.js";
import type { MatrixRuntime } from "../../k-means/matrix-runtime.js";
import { createRandom } from "../../random.js";
import type { PairSet } from "../data/pair-set.js";
import { pairSeed } from "./seeds.js";
import type { VectorSource } from "./vector-cache.js";

export interface ClusterOptions {
  /** Pairs a cluster holds on average: k = ceil(pairs / clusterSize). Paper, section 4.1. @default the batch size */
  readonly clusterSize?: number;
  /** Runs of k-means, of which the best one is kept. Paper: best of 3. @default 3 */
  readonly starts?: number;
  /** Averages of one run at most; it ends earlier where nothing changes. Paper: 100. @default 100 */
  readonly iterations?: number;
  /**
   * Bytes of training rows at most. A larger data set is clustered on a random part of its pairs, which the result
   * says, and all of them are assigned. @default 1 GiB
   */
  readonly maxTrainingBytes?: number;
  /** @default 0 */
  readonly seed?: number;
}

export interface ClusterProgress {
  readonly dataset: string;
  readonly phase: "embedding" | "k-means" | "assigning";
  /** Pairs. */
  readonly done: number;
  readonly total: number;
}

/** Where each pair of a data set belongs. */
export interface PairClusters {
  readonly dataset: string;
  /** Positions in the pair set, ascending. */
  readonly positions: Uint32Array;
  /** Cluster of each of them. */
  readonly clusters: Uint32Array;
  /** Number of clusters; some may be empty. */
  readonly count: number;
  /** Mean of each cluster's positives [count, dimensions], not normalised; zeros for an empty one. */
  readonly centroids: Float32Array;
  readonly dimensions: number;
  /** Mean cosine of the pairs that were clustered, with their swapped copies, to their clusters' centroids. */
  readonly objective: number;
  /** Pairs that k-means saw: fewer than all where memory would not do. */
  readonly trainedOn: number;
}

/** Pairs whose vectors are read at once. */
const SLICE = 2048;
/** Pairs that are embedded between two reports. */
const EMBEDDED = 1024;

/** Number of clusters of `pairs` pairs. SPEC.md, section 3, step 4. */
export function clusterCount(pairs: number, clusterSize: number): number {
  return Math.ceil(pairs / clusterSize);
}

/**
 * Clusters the pairs of one data set as the paper does (section 4.1, eq. 3): pair i gives two rows, [q; d] and [d; q],
 * so that a query may come near to another pair's document; k-means over all rows; a pair belongs where its [q; d] does.
 */
export async function clusterPairs(
  pairs: PairSet,
  dataset: string,
  vectors: VectorSource,
  runtime: MatrixRuntime,
  options: ClusterOptions & {
    readonly clusterSize: number;
    /** Whether hard negatives are embedded too: scores are wanted of them. @default false */
    readonly hardNegatives?: boolean;
    readonly signal?: AbortSignal | undefined;
    readonly onProgress?: ((progress: ClusterProgress) => void) | undefined;
  },
): Promise<PairClusters> {
  const { clusterSize, starts = 3, iterations = 100, maxTrainingBytes = 2 ** 30, seed = 0 } = options;
  const { hardNegatives = false, signal, onProgress } = options;
  for (const [name, value] of Object.entries({ clusterSize, starts, iterations, maxTrainingBytes })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new InvalidInputError(`clusterPairs: ${name} must be an integer of at least 1, got ${value}.`);
  }
  const positions = pairs.positionsOf(dataset);
  const total = positions.length;
  const report = (phase: ClusterProgress["phase"], done: number) => onProgress?.({ dataset, phase, done, total });
  const read = async (which: Uint32Array) => {
    signal?.throwIfAborted();
    const texts = await pairs.read(which);
    const queries = await vectors.read(
      texts.map(({ query }) => query),
      "query",
      signal,
    );
    const documents = await vectors.read(
      texts.map(({ positive }) => positive),
      "document",
      signal,
    );
    return { queries, documents };
  };

  report("embedding", 0);
  for (let from = 0; from < total; from += EMBEDDED) {
    signal?.throwIfAborted();
    const texts = await pairs.read(positions.subarray(from, from + EMBEDDED));
    const documents = texts.map(({ positive }) => positive);
    if (hardNegatives) documents.push(...texts.flatMap(({ negatives }) => negatives));
    await vectors.ensure(
      texts.map(({ query }) => query),
      "query",
      signal,
    );
    await vectors.ensure(documents, "document", signal);
    report("embedding", Math.min(total, from + EMBEDDED));
  }
  await read(positions.subarray(0, 1)); // a file's dimension is known after its first vector
  const { dimensions } = vectors;
  const width = 2 * dimensions;
  const count = clusterCount(total, clusterSize);
  const most = Math.max(count, Math.floor(maxTrainingBytes / (2 * width * 4)));
  const random = createRandom(pairSeed("k-means", seed, dataset));
  // Ascending, so that they are read in the order of the file.
  const chosen = total <= most ? positions : Uint32Array.from(random.sample(total, most), (i) => positions[i]!).sort();
  const trainedOn = chosen.length;
  const rows = new Float32Array(2 * trainedOn * width);
  for (let from = 0; from < trainedOn; from += SLICE) {
    const to = Math.min(trainedOn, from + SLICE);
    const part = await read(chosen.subarray(from, to));
    for (let i = 0; i < to - from; i++) {
      pairRow(rows, (from + i) * width, part.queries, part.documents, i, dimensions);
      pairRow(rows, (trainedOn + from + i) * width, part.documents, part.queries, i, dimensions);
    }
  }
  report("k-means", 0);
  const found = await kMeans(rows, width, count, {
    seed: random.integer(2 ** 32),
    starts,
    iterations,
    runtime,
    ...(signal && { signal }),
  });
  report("k-means", trainedOn);

  const clusters = new Uint32Array(total);
  const centroids = new Float64Array(count * dimensions);
  const sizes = new Uint32Array(count);
  for (let from = 0; from < total; from += SLICE) {
    const to = Math.min(total, from + SLICE);
    const { queries, documents } = await read(positions.subarray(from, to));
    if (trainedOn === total) clusters.set(found.clusters.subarray(from, to), from);
    else {
      const block = new Float32Array((to - from) * width);
      for (let i = 0; i < to - from; i++) pairRow(block, i * width, queries, documents, i, dimensions);
      clusters.set(await nearest(block, width, found.centroids), from);
    }
    for (let i = 0; i < to - from; i++) {
      const cluster = clusters[from + i]!;
      sizes[cluster]! += 1;
      for (let d = 0; d < dimensions; d++) centroids[cluster * dimensions + d]! += documents[i * dimensions + d]!;
    }
    report("assigning", to);
  }
  return {
    dataset,
    positions,
    clusters,
    count,
    centroids: Float32Array.from(centroids, (sum, i) => sum / Math.max(1, sizes[Math.floor(i / dimensions)]!)),
    dimensions,
    objective: found.objective,
    trainedOn,
  };

  async function nearest(block: Float32Array, dims: number, others: Float32Array): Promise<Uint32Array> {
    const loaded = await runtime.load(block, dims);
    const result = new Uint32Array(block.length / dims);
    try {
      for await (const { first, nearest: part } of loaded.nearest(others, signal)) result.set(part, first);
    } finally {
      await loaded.drop();
    }
    return result;
  }
}

/** [a; b] / √2: of unit halves, a row of unit length. */
function pairRow(
  rows: Float32Array,
  at: number,
  a: Float32Array,
  b: Float32Array,
  i: number,
  dimensions: number,
): void {
  for (let d = 0; d < dimensions; d++) {
    rows[at + d] = a[i * dimensions + d]! * Math.SQRT1_2;
    rows[at + dimensions + d] = b[i * dimensions + d]! * Math.SQRT1_2;
  }
}

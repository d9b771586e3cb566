/** Contextual batches of a pair set: clustered by a surrogate, packed along a tour, false negatives masked. */
import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { InvalidInputError } from "../../errors.js";
import { MatrixRuntime } from "../../k-means/matrix-runtime.js";
import { canonicalJson, sha256Hex } from "../../model/digest.js";
import { createRandom } from "../../random.js";
import type { RuntimeOptions } from "../../runtime/runtime.js";
import type { PairSet } from "../data/pair-set.js";
import type { Assembly } from "./assemble.js";
import type { Batches } from "./batches.js";
import { clusterPath, loadClusters, saveClusters } from "./cluster-file.js";
import { type ClusterOptions, type ClusterProgress, clusterPairs, type PairClusters } from "./cluster-pairs.js";
import { checkRule, type FalseNegativeRule } from "./false-negatives.js";
import { KnownPositives } from "./known-positives.js";
import { PackedBatches, type PackedDataset } from "./packed-batches.js";
import { type AnySurrogate, toSurrogate } from "./surrogate.js";
import { openVectors, type VectorSource } from "./vector-cache.js";

export interface BatchesOptions {
  /** Pairs of every batch. @default 256 */
  readonly batchSize?: number;
  /**
   * `contextual`: batches of neighbouring clusters (paper, section 4.1), which needs a surrogate; `random`: of any
   * pairs of one data set. @default "contextual" with a surrogate, "random" without
   */
  readonly strategy?: "contextual" | "random";
  /** In which order clusters are packed: the paper's greedy tour, or at random. @default "tour" */
  readonly clusterOrder?: "tour" | "random";
  /** Clusters, finds false negatives and measures difficulty. @default none */
  readonly surrogate?: AnySurrogate;
  /** Folder for vectors and clusters. @default `surrogates` in the pair set's folder */
  readonly cache?: string;
  readonly clusters?: ClusterOptions;
  /**
   * What is masked as a false negative (paper, section 4.1, eq. 4).
   * @default { rule: "positive" } with a surrogate, false without
   */
  readonly falseNegatives?: FalseNegativeRule | false;
  /** Masks documents that the pair set names as another positive of the query. Needs no surrogate. @default true */
  readonly knownPositives?: boolean;
  /** Hard negatives of a pair at most, others each epoch where it has more. @default all */
  readonly hardNegatives?: number;
  /** Whether other pairs' documents count against a query; without, everything but its own is masked. @default true */
  readonly inBatchNegatives?: boolean;
  /** What happens with a data set that can't fill one batch. @default "error" */
  readonly smallDatasets?: "error" | "skip";
  /** Equal seeds give equal batches. @default 0 */
  readonly seed?: number;
  /** Where products are computed. */
  readonly runtime?: RuntimeOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: ClusterProgress) => void;
}

/**
 * Prepares batches: embeds the pairs with the surrogate (once; vectors are cached), clusters each data set (once) and
 * packs epochs as they are asked for.
 *
 * @example
 * await using batches = await createBatches(pairs, { batchSize: 256, surrogate: encoder.withoutContext() });
 * for (let epoch = 0; epoch < 3; epoch++) {
 *   for await (const batch of batches.epoch(epoch)) await train(batch);
 * }
 *
 * @throws InvalidInputError for options that don't fit, and for a data set smaller than a batch (or with fewer
 * different queries or documents); ModelChangedError for a surrogate that changed since its vectors were cached
 */
export async function createBatches(pairs: PairSet, options: BatchesOptions = {}): Promise<Batches> {
  const chosen = checkOptions(options);
  const { batchSize, strategy, clusterOrder, seed, surrogate } = chosen;
  const names = usableDatasets(pairs, batchSize, options.smallDatasets ?? "error");
  const folder = options.cache ?? join(pairs.folder, "surrogates");
  const { signal } = options;
  const opened: AsyncDisposable[] = [];
  try {
    let vectors: VectorSource | undefined;
    let runtime: MatrixRuntime | undefined;
    if (surrogate) {
      vectors = await openVectors(folder, surrogate, { signal });
      opened.push(vectors);
      runtime = await MatrixRuntime.start(options.runtime);
      opened.push(runtime);
    }
    const datasets: PackedDataset[] = [];
    for (const name of names) {
      const positions = pairs.positionsOf(name);
      if (strategy === "random") datasets.push({ name, positions });
      else datasets.push({ name, positions, clusters: await clustersOf(name, positions, vectors!, runtime!) });
    }
    const { rule, known, hardNegatives, inBatchNegatives } = chosen;
    const assembly: Assembly = {
      pairs,
      hardNegatives,
      inBatchNegatives,
      rule,
      known: known ? new KnownPositives(pairs) : undefined,
      vectors,
      runtime,
      seed,
    };
    const digest = sha256Hex(
      canonicalJson({
        version: 1,
        pairs: pairs.digest,
        surrogate: surrogate?.digest ?? null,
        datasets: datasets.map(({ name, clusters }) => [name, clusters ? clustersDigest(clusters) : null]),
        settings: [batchSize, strategy, clusterOrder, seed, rule ?? null, known, inBatchNegatives],
        hardNegatives: Number.isFinite(hardNegatives) ? hardNegatives : null,
      }),
    );
    return new PackedBatches({ assembly, datasets, batchSize, clusterOrder, seed, digest, opened });
  } catch (error) {
    for (const resource of opened.reverse()) await resource[Symbol.asyncDispose]();
    throw error;
  }

  /** Those on disk, or new ones. Float results differ between processors, so a resumed run needs these and no others. */
  async function clustersOf(
    name: string,
    positions: Uint32Array,
    source: VectorSource,
    runtime: MatrixRuntime,
  ): Promise<PairClusters> {
    const settings = {
      clusterSize: batchSize,
      starts: 3,
      iterations: 100,
      maxTrainingBytes: 2 ** 30,
      seed,
      ...options.clusters,
    };
    const digest = sha256Hex(
      canonicalJson({ version: 1, pairs: pairs.digest, surrogate: source.surrogate.digest, dataset: name, settings }),
    );
    const place = clusterPath(folder, digest);
    const found = await loadClusters(place, digest, name, positions);
    if (found) return found;
    const made = await clusterPairs(pairs, name, source, runtime, {
      ...settings,
      hardNegatives: chosen.hardNegatives > 0,
      signal,
      onProgress: options.onProgress,
    });
    await mkdir(folder, { recursive: true });
    await saveClusters(place, digest, made);
    return made;
  }
}

function checkOptions(options: BatchesOptions) {
  const fail = (what: string): never => {
    throw new InvalidInputError(`createBatches: ${what}`);
  };
  const surrogate = options.surrogate && toSurrogate(options.surrogate);
  const { batchSize = 256, strategy = surrogate ? "contextual" : "random", clusterOrder = "tour", seed = 0 } = options;
  const { hardNegatives = Number.POSITIVE_INFINITY, knownPositives: known = true, inBatchNegatives = true } = options;
  const { falseNegatives = surrogate ? { rule: "positive" as const } : false } = options;
  if (!Number.isSafeInteger(batchSize) || batchSize < 2) {
    fail(`batchSize must be an integer of at least 2, got ${batchSize}: a pair alone has nothing to differ from.`);
  }
  if (!["contextual", "random"].includes(strategy)) fail(`strategy must be contextual or random, got ${strategy}.`);
  if (!["tour", "random"].includes(clusterOrder)) fail(`clusterOrder must be tour or random, got ${clusterOrder}.`);
  if (hardNegatives !== Number.POSITIVE_INFINITY && !(Number.isSafeInteger(hardNegatives) && hardNegatives >= 0)) {
    fail(`hardNegatives must be an integer of at least 0, got ${hardNegatives}.`);
  }
  if (!surrogate && strategy === "contextual") fail('strategy "contextual" needs { surrogate }: it clusters by it.');
  if (!surrogate && falseNegatives !== false) fail("falseNegatives needs { surrogate }: they are found by its scores.");
  if (falseNegatives !== false) checkRule("createBatches", falseNegatives);
  createRandom(seed); // refuses what is no seed
  const rule = falseNegatives === false ? undefined : falseNegatives;
  return { batchSize, strategy, clusterOrder, seed, surrogate, hardNegatives, known, inBatchNegatives, rule };
}

/** The data sets that can fill a batch: it takes as many different queries and as many different positives. */
function usableDatasets(pairs: PairSet, batchSize: number, small: "error" | "skip"): string[] {
  const { datasets } = pairs.statistics();
  const tooSmall = datasets.filter((set) => Math.min(set.pairs, set.queries, set.documents) < batchSize);
  const described = tooSmall.map(
    ({ name, pairs, queries, documents }) =>
      `${JSON.stringify(name)} (${pairs} pairs, ${queries} different queries, ${documents} different positives)`,
  );
  if (tooSmall.length > 0 && (small === "error" || tooSmall.length === datasets.length)) {
    throw new InvalidInputError(
      `createBatches: a batch of ${batchSize} is more than there is of ${described.join(", ")}. Take a smaller batchSize${tooSmall.length < datasets.length ? ', or leave such data sets out with { smallDatasets: "skip" }' : ""}.`,
    );
  }
  return datasets.filter((set) => !tooSmall.includes(set)).map(({ name }) => name);
}

function clustersDigest({ clusters, centroids }: PairClusters): string {
  const hash = createHash("sha256");
  for (const { buffer, byteOffset, byteLength } of [clusters, centroids]) {
    hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  }
  return hash.digest("hex");
}

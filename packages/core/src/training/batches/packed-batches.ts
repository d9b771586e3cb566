/** The epochs of prepared batches: each packed from its own seed, and read batch by batch. */
import { InvalidInputError } from "../../errors.js";
import type { Random } from "../../random.js";
import { type Assembly, assemble } from "./assemble.js";
import type { Batches, EpochOptions, EpochPlan, PackedBatch } from "./batches.js";
import type { PairClusters } from "./cluster-pairs.js";
import { packInOrder } from "./pack.js";
import { pairRandom } from "./seeds.js";
import { greedyTour } from "./tour.js";

export interface PackedDataset {
  readonly name: string;
  readonly positions: Uint32Array;
  /** Where absent, batches are random. */
  readonly clusters?: PairClusters;
}

export interface PackedBatchesParts {
  readonly assembly: Assembly;
  readonly datasets: readonly PackedDataset[];
  readonly batchSize: number;
  readonly clusterOrder: "tour" | "random";
  readonly seed: number;
  readonly digest: string;
  /** Closed with the batches, the last one first. */
  readonly opened: readonly AsyncDisposable[];
}

interface Planned {
  readonly plan: EpochPlan;
  readonly batches: readonly { readonly dataset: string; readonly positions: Uint32Array }[];
}

/** Batches of a pair set; see `createBatches`. */
export class PackedBatches implements Batches {
  readonly batchSize: number;
  readonly digest: string;
  readonly clusters: readonly PairClusters[];
  readonly #parts: PackedBatchesParts;
  /** Cluster of each pair, by position; empty where batches are random. */
  readonly #clusterOf: Uint32Array;
  /** The last epoch that was packed: resuming and planning ask for the same one. */
  #last: Planned | undefined;

  constructor(parts: PackedBatchesParts) {
    this.#parts = parts;
    this.batchSize = parts.batchSize;
    this.digest = parts.digest;
    this.clusters = parts.datasets.flatMap(({ clusters }) => clusters ?? []);
    const clustered = parts.datasets.some(({ clusters }) => clusters);
    this.#clusterOf = new Uint32Array(clustered ? parts.assembly.pairs.size : 0);
    for (const { positions, clusters } of parts.datasets) {
      if (clusters) for (const [i, position] of positions.entries()) this.#clusterOf[position] = clusters.clusters[i]!;
    }
  }

  async plan(epoch: number, options: { readonly signal?: AbortSignal } = {}): Promise<EpochPlan> {
    return (await this.#pack(epoch, options.signal)).plan;
  }

  async *epoch(epoch: number, options: EpochOptions = {}): AsyncGenerator<PackedBatch, void, undefined> {
    const { from = 0, ahead = 1, signal } = options;
    const { batches } = await this.#pack(epoch, signal);
    if (!Number.isInteger(from) || from < 0 || from > batches.length) {
      throw new InvalidInputError(`Batches.epoch: there is no batch ${from}; epoch ${epoch} has ${batches.length}.`);
    }
    if (!Number.isInteger(ahead) || ahead < 0) {
      throw new InvalidInputError(`Batches.epoch: ahead must be an integer of at least 0, got ${ahead}.`);
    }
    const coming: Promise<PackedBatch>[] = [];
    const start = (number: number) => {
      const made = this.#make(batches[number]!, epoch, number, signal);
      made.catch(() => {}); // raised when its turn comes
      coming.push(made);
    };
    for (let number = from; number < batches.length; number++) {
      signal?.throwIfAborted();
      while (coming.length <= ahead && number + coming.length < batches.length) start(number + coming.length);
      yield await coming.shift()!;
    }
  }

  async close(): Promise<void> {
    for (const resource of [...this.#parts.opened].reverse()) await resource[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #make(
    { dataset, positions }: Planned["batches"][number],
    epoch: number,
    number: number,
    signal: AbortSignal | undefined,
  ): Promise<PackedBatch> {
    const { pairs, falseNegatives, report } = await assemble(this.#parts.assembly, positions, epoch, signal);
    const of = this.#clusterOf;
    const clusters = of.length === 0 ? 1 : new Set(Array.from(positions, (position) => of[position])).size;
    return {
      dataset,
      pairs,
      ...(falseNegatives && { falseNegatives }),
      epoch,
      number,
      report: { clusters, ...report },
    };
  }

  async #pack(epoch: number, signal: AbortSignal | undefined): Promise<Planned> {
    if (!Number.isSafeInteger(epoch) || epoch < 0) {
      throw new InvalidInputError(`Batches: epochs are counted from 0, got ${epoch}.`);
    }
    if (this.#last?.plan.epoch === epoch) return this.#last;
    const { assembly, datasets, batchSize, seed } = this.#parts;
    const batches: { dataset: string; positions: Uint32Array }[] = [];
    const counts: { name: string; batches: number; leftOut: number }[] = [];
    for (const dataset of datasets) {
      // A stream of its own for each data set and epoch: no other data set changes what this one gives.
      const random = pairRandom("epoch", seed, epoch, dataset.name);
      const order = await this.#order(dataset, random, signal);
      const packed = packInOrder(order, batchSize, assembly.pairs);
      counts.push({ name: dataset.name, batches: packed.batches.length, leftOut: packed.leftOut.length });
      for (const positions of packed.batches) {
        batches.push({ dataset: dataset.name, positions: Uint32Array.from(random.shuffle(positions)) });
      }
    }
    if (batches.length === 0) {
      throw new InvalidInputError(
        `Batches: no batch of ${batchSize} pairs without a repeated query or document can be made. Take a smaller batchSize.`,
      );
    }
    const leftOut = counts.reduce((sum, count) => sum + count.leftOut, 0);
    this.#last = {
      plan: { epoch, batches: batches.length, leftOut, datasets: counts },
      batches: pairRandom("batches", seed, epoch).shuffle(batches),
    };
    return this.#last;
  }

  /** A data set's pairs in the order in which they are cut into batches. */
  async #order({ positions, clusters }: PackedDataset, random: Random, signal: AbortSignal | undefined) {
    if (!clusters) return random.shuffle(positions);
    const members = Array.from({ length: clusters.count }, (): number[] => []);
    for (const [i, position] of positions.entries()) members[clusters.clusters[i]!]!.push(position);
    const there = [...members.keys()].filter((cluster) => members[cluster]!.length > 0);
    let order: number[];
    if (this.#parts.clusterOrder === "random") order = random.shuffle(there);
    else {
      const { centroids, dimensions } = clusters;
      const points = new Float32Array(there.length * dimensions);
      for (const [at, cluster] of there.entries()) {
        points.set(centroids.subarray(cluster * dimensions, (cluster + 1) * dimensions), at * dimensions);
      }
      const tour = await greedyTour(points, dimensions, random.integer(there.length), signal);
      order = tour.map((at) => there[at]!);
    }
    return order.flatMap((cluster) => random.shuffle(members[cluster]!));
  }
}

/** Approximate search by a graph (HNSW, from hnswlib-node), built and searched in a worker thread. */
import { InvalidInputError, internal } from "@cde-js/core";
import type { BaseVectors } from "./exact-index.js";
import type { Answers, GraphReport, Request, WorkerSetup } from "./hnsw/protocol.js";
import {
  checkK,
  checkRows,
  type Neighbour,
  type NeighbourSearchOptions,
  type VectorIndex,
  vectorFault,
} from "./vector-index.js";
import { abortable, WorkerClient } from "./worker-client.js";

export interface HnswOptions {
  /** Links of a point in the graph, 2 to 100: more find more, and take memory (about 8 · m bytes a row). @default 16 */
  readonly m?: number;
  /** Candidates looked at for the links of a new point, m to 10,000. More make a better graph, more slowly. @default 200 */
  readonly efConstruction?: number;
  /** Candidates of a search, 1 to 10,000, or more where `k` asks for it. More find more, more slowly. @default 100 */
  readonly ef?: number;
  /** Of the levels that points are drawn for. @default 100 */
  readonly seed?: number;
  /**
   * Where a search would look at more candidates than this share of the rows (few rows, a large `k`, a narrow filter), all
   * rows are compared instead, which is as quick and exact. @default 1/64
   */
  readonly scanShare?: number;
  /**
   * A file that the graph is kept in (and `<file>.json` beside it), so that it need not be built at every start. It is used
   * only where it was built from the same rows in the same order with the same options; otherwise the graph is built and
   * the file written anew, and `GraphReport.reason` says why. @default none
   */
  readonly cacheFile?: string;
  /** Called whenever the graph has come to hold all rows. */
  readonly onReady?: (report: GraphReport) => void;
}

/**
 * Cosine search over a graph, with the rows beside it: the graph finds candidates, the float32 rows score them, so scores
 * are those of `ExactIndex`. Which rows are found is approximate. Rows can be searched at once; until the graph holds all
 * of them (`ready`), and wherever the graph would find fewer than `k` that a filter allows, all rows are compared.
 *
 * Takes about 3.5 kB a row of 384 dimensions, more than twice what `ExactIndex` takes. Removed rows stay in the graph as marked
 * points until they outnumber the others; then it is built anew.
 */
export class HnswIndex implements VectorIndex, BaseVectors {
  readonly dimensions: number;
  readonly #worker: WorkerClient<Request, Answers, GraphReport>;
  #count = 0;

  private constructor(setup: WorkerSetup, onReady: HnswOptions["onReady"]) {
    this.dimensions = setup.dimensions;
    this.#worker = new WorkerClient("hnsw index", new URL("./hnsw/worker.js", import.meta.url), setup, onReady);
  }

  /**
   * @throws MissingPeerError where hnswlib-node is not installed, CdeError (PEER_NOT_BUILT) where npm did not compile it,
   * InvalidInputError for options out of range
   */
  static async create(dimensions: number, options: HnswOptions = {}): Promise<HnswIndex> {
    const { m = 16, efConstruction = 200, ef = 100, seed = 100, scanShare = 1 / 64, cacheFile, onReady } = options;
    requireInteger("dimensions", dimensions, 1, 16_384);
    requireInteger("m", m, 2, 100);
    requireInteger("efConstruction", efConstruction, m, 10_000);
    requireInteger("ef", ef, 1, 10_000);
    requireInteger("seed", seed, 0, 2 ** 32 - 1);
    if (typeof scanShare !== "number" || !(scanShare >= 0)) {
      throw new InvalidInputError(`hnsw: scanShare must be a number of at least 0, got ${String(scanShare)}.`);
    }
    if (cacheFile !== undefined && (typeof cacheFile !== "string" || cacheFile === "")) {
      throw new InvalidInputError(`hnsw: cacheFile must be a path, got ${JSON.stringify(cacheFile)}.`);
    }
    const setup = { dimensions, m, efConstruction, ef, seed, scanShare, cacheFile };
    const index = new HnswIndex(setup, onReady);
    try {
      await index.#worker.ask({ name: "start" });
    } catch (error) {
      await index.close();
      throw error;
    }
    return index;
  }

  get count(): number {
    return this.#count;
  }

  async upsert(labels: Uint32Array, vectors: Float32Array): Promise<void> {
    checkRows(labels, vectors, this.dimensions);
    const own = { labels: labels.slice(), vectors: vectors.slice() };
    this.#count = await this.#worker.ask({ name: "upsert", ...own }, [own.vectors.buffer]);
  }

  async delete(labels: Uint32Array): Promise<number> {
    const { removed, count } = await this.#worker.ask({ name: "delete", labels: labels.slice() });
    this.#count = count;
    return removed;
  }

  async search(query: Float32Array, k: number, options: NeighbourSearchOptions = {}): Promise<Neighbour[]> {
    checkK(k, "search");
    const fault = vectorFault(query, this.dimensions);
    if (fault) throw new InvalidInputError(`search: the query vector ${fault}.`);
    const { allowed, signal } = options;
    signal?.throwIfAborted();
    const own = { query: query.slice(), allowed: allowed?.slice() };
    return await abortable(this.#worker.ask({ name: "search", ...own, k }), signal);
  }

  /** Resolves when the graph holds all rows that were added before. Searches need not wait for it. */
  ready(options: { readonly signal?: AbortSignal } = {}): Promise<GraphReport> {
    options.signal?.throwIfAborted();
    return abortable(this.#worker.ask({ name: "ready" }), options.signal);
  }

  /** The rows of these labels, bit for bit as they were given. */
  async read(labels: Uint32Array): Promise<Float32Array> {
    const vectors = await this.#worker.ask({ name: "read", labels: labels.slice() });
    if (!vectors) throw internal("hnsw index: read of a label that is not there");
    return vectors;
  }

  close(): Promise<void> {
    return this.#worker.closeBetweenRequests();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * For `vectorIndex` of `CorpusIndex.build` and `open`.
 *
 * @example
 * const index = await CorpusIndex.open(directory, embedder, { vectorIndex: hnsw({ cacheFile: `${directory}.hnsw` }) });
 */
export function hnsw(options: HnswOptions = {}): (dimensions: number) => Promise<HnswIndex> {
  return (dimensions) => HnswIndex.create(dimensions, options);
}

function requireInteger(name: string, value: number, least: number, most: number): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  throw new InvalidInputError(`hnsw: ${name} must be an integer from ${least} to ${most}, got ${String(value)}.`);
}

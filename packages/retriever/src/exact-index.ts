/** Exact search: every row is compared, in a worker thread, so that the caller's event loop stays free. */
import { InvalidInputError, internal } from "@cde-js/core";
import type { Answers, Request, WorkerSetup } from "./exact/protocol.js";
import type { RowType } from "./exact/row-table.js";
import { rescore } from "./rescore.js";
import {
  checkK,
  checkRows,
  type Neighbour,
  type NeighbourSearchOptions,
  type VectorIndex,
  vectorFault,
} from "./vector-index.js";
import { abortable, WorkerClient } from "./worker-client.js";

/** Where full-precision vectors can be read: a file, memory, or float32 rows. */
export interface BaseVectors {
  /** The vectors of these labels, one row after another. */
  read(labels: Uint32Array): Promise<Float32Array>;
}

export interface ExactIndexOptions {
  /**
   * How rows are kept in memory: "float32" scores exactly; "int8" takes a quarter of the memory and of the time.
   * @default "float32"
   */
  readonly rows?: RowType;
  /** With int8 rows: the float32 vectors by which the best candidates are scored again. */
  readonly base?: BaseVectors;
}

// int8 errors are about 0.004 of a cosine: the true k nearest are well within these candidates.
const candidatesFor = (k: number): number => 4 * k + 32;

/** Exact cosine search over float32 or int8 rows, at most 4 GiB of them and 16,384 dimensions. */
export class ExactIndex implements VectorIndex, BaseVectors {
  readonly dimensions: number;
  readonly rows: RowType;
  readonly #base: BaseVectors | undefined;
  readonly #worker: WorkerClient<Request, Answers>;
  #count = 0;

  constructor(dimensions: number, options: ExactIndexOptions = {}) {
    if (!Number.isSafeInteger(dimensions) || dimensions < 1 || dimensions > 16_384) {
      throw new InvalidInputError(`exact index: dimensions must be an integer from 1 to 16384, got ${dimensions}.`);
    }
    this.dimensions = dimensions;
    this.rows = options.rows ?? "float32";
    this.#base = this.rows === "int8" ? options.base : undefined;
    const workerData: WorkerSetup = { dimensions, type: this.rows };
    this.#worker = new WorkerClient("exact index", new URL("./exact/worker.js", import.meta.url), workerData);
  }

  get count(): number {
    return this.#count;
  }

  async upsert(labels: Uint32Array, vectors: Float32Array): Promise<void> {
    checkRows(labels, vectors, this.dimensions);
    // Copies, here and below: a view would be sent to the worker with all of the buffer behind it.
    await this.adopt(labels.slice(), vectors.slice());
  }

  /** `upsert` of rows that were checked before, without a copy: their whole buffer moves away from the caller. */
  async adopt(labels: Uint32Array, vectors: Float32Array<ArrayBuffer>): Promise<void> {
    this.#count = await this.#worker.ask({ name: "upsert", labels, vectors }, [vectors.buffer]);
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
    const wanted = this.#base ? candidatesFor(k) : k;
    const own = { query: query.slice(), allowed: allowed?.slice() };
    const { labels, scores } = await abortable(this.#worker.ask({ name: "search", ...own, k: wanted }), signal);
    if (this.#base) return rescore(query, labels, await abortable(this.#base.read(labels), signal), k);
    return Array.from(labels, (label, i) => ({ label, score: scores[i] as number }));
  }

  /** The float32 rows of these labels, bit for bit. Only with float32 rows. */
  async read(labels: Uint32Array): Promise<Float32Array> {
    const vectors = await this.#worker.ask({ name: "read", labels: labels.slice() });
    if (!vectors) throw internal(`exact index: read of a label that is not there, or of ${this.rows} rows`);
    return vectors;
  }

  close(): Promise<void> {
    return this.#worker.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

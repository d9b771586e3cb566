/** Exact search: every row is compared, in a worker thread, so that the caller's event loop stays free. */
import { Worker } from "node:worker_threads";
import { CdeError, InvalidInputError, internal, RuntimeFailureError } from "@cde-js/core";
import { IndexClosedError } from "./errors.js";
import type { Answers, NumberedAnswer, NumberedRequest, Request, WorkerSetup } from "./exact/protocol.js";
import type { RowType } from "./exact/row-table.js";
import {
  checkK,
  checkRows,
  type Neighbour,
  type NeighbourSearchOptions,
  type VectorIndex,
  vectorFault,
} from "./vector-index.js";

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

interface Pending {
  readonly resolve: (answer: never) => void;
  readonly reject: (reason: unknown) => void;
}

/** Exact cosine search over float32 or int8 rows, at most 4 GiB of them and 16,384 dimensions. */
export class ExactIndex implements VectorIndex, BaseVectors {
  readonly dimensions: number;
  readonly rows: RowType;
  readonly #base: BaseVectors | undefined;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  #count = 0;
  #ended: Error | undefined;

  constructor(dimensions: number, options: ExactIndexOptions = {}) {
    if (!Number.isSafeInteger(dimensions) || dimensions < 1 || dimensions > 16_384) {
      throw new InvalidInputError(`exact index: dimensions must be an integer from 1 to 16384, got ${dimensions}.`);
    }
    this.dimensions = dimensions;
    this.rows = options.rows ?? "float32";
    this.#base = this.rows === "int8" ? options.base : undefined;
    const workerData: WorkerSetup = { dimensions, type: this.rows };
    this.#worker = new Worker(new URL("./exact/worker.js", import.meta.url), { workerData });
    // An idle index doesn't keep the process alive; a running request does.
    this.#worker.unref();
    // Until it runs, Node holds a listened-to worker again.
    this.#worker.on("online", () => {
      if (this.#pending.size === 0) this.#worker.unref();
    });
    this.#worker.on("message", (message: NumberedAnswer) => this.#settle(message));
    this.#worker.on("error", (cause) =>
      this.#end(new RuntimeFailureError("exact index: its worker failed.", { cause })),
    );
    this.#worker.on("exit", (code) =>
      this.#end(new RuntimeFailureError(`exact index: its worker ended with ${code}.`)),
    );
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
    this.#count = await this.#ask({ name: "upsert", labels, vectors }, [vectors.buffer]);
  }

  async delete(labels: Uint32Array): Promise<number> {
    const { removed, count } = await this.#ask({ name: "delete", labels: labels.slice() });
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
    const { labels, scores } = await abortable(this.#ask({ name: "search", ...own, k: wanted }), signal);
    if (this.#base) return await abortable(rescore(query, labels, this.#base, k), signal);
    return Array.from(labels, (label, i) => ({ label, score: scores[i] as number }));
  }

  /** The float32 rows of these labels, bit for bit. Only with float32 rows. */
  async read(labels: Uint32Array): Promise<Float32Array> {
    const vectors = await this.#ask({ name: "read", labels: labels.slice() });
    if (!vectors) throw internal(`exact index: read of a label that is not there, or of ${this.rows} rows`);
    return vectors;
  }

  async close(): Promise<void> {
    this.#end(new IndexClosedError("exact index"));
    await this.#worker.terminate();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #ask<R extends Request>(request: R, transfer: ArrayBuffer[] = []): Promise<Answers[R["name"]]> {
    if (this.#ended) return Promise.reject(this.#ended);
    const number = this.#next++;
    this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#pending.set(number, { resolve, reject });
      this.#worker.postMessage({ number, request } satisfies NumberedRequest, transfer);
    });
  }

  #settle(message: NumberedAnswer): void {
    const pending = this.#pending.get(message.number);
    this.#pending.delete(message.number);
    if (this.#pending.size === 0) this.#worker.unref();
    if (!pending) return;
    if ("answer" in message) pending.resolve(message.answer as never);
    else {
      const { code, message: text } = message.failure;
      pending.reject(code ? new CdeError(code, text) : new RuntimeFailureError(`exact index: ${text}`));
    }
  }

  #end(reason: Error): void {
    this.#ended ??= reason;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
  }
}

/** Cosine of the candidates in full precision, best first; equal scores in the order of labels. */
async function rescore(query: Float32Array, labels: Uint32Array, base: BaseVectors, k: number): Promise<Neighbour[]> {
  const vectors = await base.read(labels);
  const dimensions = query.length;
  const scored = Array.from(labels, (label, n) => {
    let dot = 0;
    let queryLength = 0;
    let rowLength = 0;
    for (let i = 0; i < dimensions; i++) {
      const x = query[i] as number;
      const y = vectors[n * dimensions + i] as number;
      dot += x * y;
      queryLength += x * x;
      rowLength += y * y;
    }
    return { label, score: Math.max(-1, Math.min(1, dot / Math.sqrt(queryLength * rowLength))) };
  });
  return scored.sort((a, b) => b.score - a.score || a.label - b.label).slice(0, k);
}

/** The promise, or the signal's reason if that comes first. The work behind it goes on and is dropped. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await promise;
  let stop: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop as () => void);
  }
}

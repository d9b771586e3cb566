/** Nearest neighbours on a server for an index whose documents and words stay here: `vectorIndex` of `CorpusIndex`. */

import { setMaxListeners } from "node:events";
import { InvalidInputError } from "@cde-js/core";
import {
  IndexClosedError,
  type JsonObject,
  type Neighbour,
  type NeighbourSearchOptions,
  type VectorIndex,
} from "@cde-js/retriever";
import { checkK, checkRows, vectorFault } from "@cde-js/retriever/backend";
import { checkCollectionName } from "./address.js";
import { isRecord, readScored, readTrue, readUpdate } from "./answers.js";
import type { RequestName } from "./client.js";
import { QdrantConnection, type QdrantConnectionOptions } from "./connection.js";
import { QdrantError } from "./errors.js";
import { batches, jsonNumbers, RESERVED } from "./points.js";
import type { QdrantSearchParameters } from "./search.js";

export interface QdrantVectorsOptions extends QdrantConnectionOptions {
  /** Made, or emptied where it is one of these: whoever opens it fills it anew. One program at a time. */
  readonly collection: string;
  /** Of the collection, in Qdrant's own words. */
  readonly parameters?: JsonObject;
  /** Of its vector, in Qdrant's own words: on_disk, hnsw_config, quantization_config. */
  readonly vectors?: JsonObject;
  /** Parameters of every search in Qdrant's own words. */
  readonly search?: QdrantSearchParameters;
}

const FORMAT = "cde-qdrant-vectors/1";
const VECTOR = "rows";

/**
 * Rows as points, labels as their ids. Documents, words and filters stay in the program: to search a collection that holds
 * them too, use `QdrantIndex`.
 */
export class QdrantVectorIndex implements VectorIndex {
  readonly dimensions: number;
  readonly #options: QdrantVectorsOptions;
  readonly #labels = new Set<number>();
  readonly #closing = new AbortController();
  /** Writes one after another, so that a search after a write finds all of it. */
  #writes: Promise<unknown> = Promise.resolve();
  #opening: Promise<QdrantConnection> | undefined;

  constructor(dimensions: number, options: QdrantVectorsOptions) {
    if (!Number.isSafeInteger(dimensions) || dimensions < 1 || dimensions > 65_536) {
      throw new InvalidInputError(`QdrantVectorIndex: dimensions must be 1 to 65536, got ${dimensions}.`);
    }
    checkCollectionName(options.collection);
    this.dimensions = dimensions;
    this.#options = options;
    setMaxListeners(0, this.#closing.signal);
  }

  get count(): number {
    return this.#labels.size;
  }

  async upsert(labels: Uint32Array, vectors: Float32Array): Promise<void> {
    this.#requireOpen("upsert");
    checkRows(labels, vectors, this.dimensions);
    // Copies, since the caller may change its own while this waits for its turn.
    const points = Array.from(labels, (label, i) => {
      const row = vectors.subarray(i * this.dimensions, (i + 1) * this.dimensions);
      return { id: String(label), label, vector: { [VECTOR]: jsonNumbers(unit(row)) } };
    });
    await this.#exclusive(async () => {
      const writes = batches(points).map((batch) => {
        const body = { wait: true, points: batch.map(({ label, vector }) => ({ id: label, vector })) };
        return this.#request("upsert", "upsertPoints", body, readUpdate);
      });
      const failed = (await Promise.allSettled(writes)).find((result) => result.status === "rejected");
      if (failed) throw failed.reason;
      for (const label of labels) this.#labels.add(label);
    });
  }

  async delete(labels: Uint32Array): Promise<number> {
    this.#requireOpen("delete");
    const wanted = new Set(labels);
    return await this.#exclusive(async () => {
      const there = [...wanted].filter((label) => this.#labels.has(label));
      for (let at = 0; at < there.length; at += 10_000) {
        const body = { wait: true, points: there.slice(at, at + 10_000) };
        await this.#request("delete", "deletePoints", body, readUpdate);
      }
      for (const label of there) this.#labels.delete(label);
      return there.length;
    });
  }

  async search(query: Float32Array, k: number, options: NeighbourSearchOptions = {}): Promise<Neighbour[]> {
    this.#requireOpen("search");
    const { allowed, signal } = options;
    checkK(k, "search");
    const fault = vectorFault(query, this.dimensions);
    if (fault) throw new InvalidInputError(`search: the query ${fault}.`);
    // What was written before is found.
    await this.#writes;
    this.#requireOpen("search");
    signal?.throwIfAborted();
    const filter = allowed && this.#filter(allowed);
    const limit = Math.min(k, this.#labels.size);
    if (limit === 0 || filter === "nothing") return [];
    const { search = {} } = this.#options;
    const body = {
      query: jsonNumbers(unit(query)),
      using: VECTOR,
      limit,
      with_payload: false,
      ...(filter ? { filter } : {}),
      ...(Object.keys(search).length > 0 ? { params: search } : {}),
    };
    const found = await this.#request("search", "queryPoints", body, readScored(limit), signal);
    return found
      .map(({ id, score }) => ({ label: id as number, score: Math.max(-1, Math.min(1, score)) }))
      .sort((a, b) => b.score - a.score || a.label - b.label);
  }

  async close(): Promise<void> {
    this.#closing.abort(new IndexClosedError("close"));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** By the labels that are allowed, or by those that aren't, whichever are fewer. */
  #filter(allowed: Uint8Array): object | "nothing" | undefined {
    const isAllowed = (label: number): boolean => ((allowed[label >>> 3] ?? 0) & (1 << (label & 7))) !== 0;
    const [inside, outside]: [number[], number[]] = [[], []];
    for (const label of this.#labels) (isAllowed(label) ? inside : outside).push(label);
    if (inside.length === 0) return "nothing";
    if (outside.length === 0) return undefined;
    return inside.length <= outside.length ? { must: [{ has_id: inside }] } : { must_not: [{ has_id: outside }] };
  }

  async #request<T>(
    operation: string,
    request: RequestName,
    body: object,
    read: (result: unknown) => T,
    signal?: AbortSignal,
  ): Promise<T> {
    this.#opening ??= this.#open();
    const connection = await this.#opening;
    const closing = this.#closing.signal;
    const args = { collection_name: this.#options.collection, ...body };
    return await connection.call({ operation, request, args, read, signal, closing });
  }

  async #open(): Promise<QdrantConnection> {
    const { collection, parameters = {}, vectors = {} } = this.#options;
    const connection = await QdrantConnection.open(this.#options, this.#closing.signal);
    const operation = "open";
    const call = <T>(request: RequestName, args: object, read: (result: unknown) => T): Promise<T> => {
      const all = { collection_name: collection, ...args };
      return connection.call({ operation, request, args: all, read, closing: this.#closing.signal });
    };
    const metadata = { [RESERVED]: { format: FORMAT, dimensions: this.dimensions } };
    const body = {
      ...parameters,
      vectors: { [VECTOR]: { size: this.dimensions, distance: "Cosine", ...vectors } },
      metadata,
    };
    try {
      await call("createCollection", body, readTrue);
      return connection;
    } catch (error) {
      if (!(error instanceof QdrantError && error.status === 409)) throw error;
    }
    const record = await call("getCollection", {}, (result) => {
      const config = isRecord(result) ? result.config : undefined;
      return isRecord(config) && isRecord(config.metadata) ? config.metadata[RESERVED] : undefined;
    });
    if (!isRecord(record) || record.format !== FORMAT || record.dimensions !== this.dimensions) {
      throw new QdrantError(
        "QDRANT_COLLECTION",
        `open: the collection "${collection}" is there and not one of ${this.dimensions} dimensions for rows of vectors ` +
          `(its metadata say ${JSON.stringify(record ?? null).slice(0, 200)}). Take another name.`,
      );
    }
    await call("deletePoints", { wait: true, filter: {} }, readUpdate);
    return connection;
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#writes.then(work);
    this.#writes = result.catch(() => {});
    return result;
  }

  #requireOpen(operation: string): void {
    if (this.#closing.signal.aborted) throw new IndexClosedError(operation);
  }
}

/** At unit length, computed in double precision: a server squares float32 numbers. */
function unit(row: Float32Array): Float32Array {
  let squares = 0;
  for (const x of row) squares += x * x;
  const length = Math.sqrt(squares);
  return row.map((x) => x / length);
}

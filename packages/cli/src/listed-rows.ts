/** The rows of an opened index: searched as always, and read by label, with the passage that each label stands for. */

import type { Embedder } from "@cde-js/core";
import {
  CorpusIndex,
  ExactIndex,
  type Hit,
  type Neighbour,
  type NeighbourSearchOptions,
  type OpenOptions,
  type VectorIndex,
} from "@cde-js/retriever";

/**
 * An exact index of which some labels can be asked for by themselves: a corpus index then makes hits of exactly these, in
 * this order. The search that asks is known by its signal.
 */
class ListedRows implements VectorIndex {
  readonly rows: ExactIndex;
  /** Those that are there: an index that was changed has gaps. */
  readonly labels = new Set<number>();
  #listing: { readonly signal: AbortSignal; readonly labels: Uint32Array } | undefined;

  constructor(dimensions: number) {
    this.rows = new ExactIndex(dimensions);
  }

  get dimensions(): number {
    return this.rows.dimensions;
  }

  get count(): number {
    return this.rows.count;
  }

  async upsert(labels: Uint32Array, vectors: Float32Array): Promise<void> {
    await this.rows.upsert(labels, vectors);
    for (const label of labels) this.labels.add(label);
  }

  async delete(labels: Uint32Array): Promise<number> {
    for (const label of labels) this.labels.delete(label);
    return await this.rows.delete(labels);
  }

  async search(query: Float32Array, k: number, options: NeighbourSearchOptions = {}): Promise<Neighbour[]> {
    if (options.signal === undefined || options.signal !== this.#listing?.signal) {
      return await this.rows.search(query, k, options);
    }
    return Array.from(this.#listing.labels, (label) => ({ label, score: 0 }));
  }

  async list<T>(labels: Uint32Array, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal } = new AbortController();
    this.#listing = { signal, labels };
    try {
      return await work(signal);
    } finally {
      this.#listing = undefined;
    }
  }

  close(): Promise<void> {
    return this.rows.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export interface ListedIndex extends AsyncDisposable {
  readonly index: CorpusIndex;
  /** Of all passages, ascending, which is the order of the corpus. */
  readonly labels: Uint32Array;
  /** The passages of these labels, in their order. */
  passages(labels: Uint32Array): Promise<Hit[]>;
  /** Their vectors as the search compares them, one row after another. */
  vectors(labels: Uint32Array): Promise<Float32Array>;
}

export async function openListed(
  directory: string,
  embedder: Embedder,
  options: Pick<OpenOptions, "signal">,
): Promise<ListedIndex> {
  let listed: ListedRows | undefined;
  const vectorIndex = (dimensions: number): VectorIndex => {
    listed = new ListedRows(dimensions);
    return listed;
  };
  const index = await CorpusIndex.open(directory, embedder, { ...options, vectorIndex });
  const rows = listed as ListedRows | undefined as ListedRows;
  return {
    index,
    labels: Uint32Array.from(rows.labels).sort(),
    passages: (labels) =>
      rows.list(labels, (signal) => index.search("passages", { k: labels.length, mode: "dense", signal })),
    vectors: (labels) => rows.rows.read(labels),
    [Symbol.asyncDispose]: () => index.close(),
  };
}

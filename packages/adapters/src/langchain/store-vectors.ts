/** The vectors of a store by label: found by any index, and read back as they were given. */
import { InvalidInputError } from "@cde-js/core";
import {
  type BaseVectors,
  ExactIndex,
  IndexClosedError,
  type Neighbour,
  type VectorIndex,
  type VectorIndexFactory,
} from "@cde-js/retriever";

/** What the store asks of it. */
export interface StoreVectors extends BaseVectors {
  upsert(labels: Uint32Array, rows: Float32Array): Promise<void>;
  delete(labels: Uint32Array): Promise<void>;
  search(query: Float32Array, k: number, options: { readonly allowed?: Uint8Array }): Promise<Neighbour[]>;
  close(): Promise<void>;
}

/** Exact search, which holds the rows itself, or the index that `factory` makes, with the rows beside it. */
export function storeVectors(dimensions: number, factory: VectorIndexFactory | undefined): StoreVectors {
  return factory ? new RowsBesideIndex(dimensions, factory) : new ExactRows(dimensions);
}

class ExactRows implements StoreVectors {
  readonly #dimensions: number;
  #made: ExactIndex | undefined;
  #closed = false;

  constructor(dimensions: number) {
    this.#dimensions = dimensions;
  }

  async upsert(labels: Uint32Array, rows: Float32Array): Promise<void> {
    await this.#index().upsert(labels, rows);
  }

  async delete(labels: Uint32Array): Promise<void> {
    await this.#index().delete(labels);
  }

  async search(query: Float32Array, k: number, options: { readonly allowed?: Uint8Array }): Promise<Neighbour[]> {
    return this.#index().search(query, k, options);
  }

  async read(labels: Uint32Array): Promise<Float32Array> {
    return this.#index().read(labels);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#made?.close();
  }

  /** Made when it is first needed: a store that isn't used, or is refused, has no worker thread. */
  #index(): ExactIndex {
    if (this.#closed) throw new IndexClosedError("vector store");
    this.#made ??= new ExactIndex(this.#dimensions);
    return this.#made;
  }
}

class RowsBesideIndex implements StoreVectors {
  readonly #dimensions: number;
  readonly #factory: VectorIndexFactory;
  readonly #rows = new Map<number, Float32Array>();
  #index: Promise<VectorIndex> | undefined;
  #closed = false;

  constructor(dimensions: number, factory: VectorIndexFactory) {
    this.#dimensions = dimensions;
    this.#factory = factory;
  }

  async upsert(labels: Uint32Array, rows: Float32Array): Promise<void> {
    const index = await this.#open();
    const before = Array.from(labels, (label) => [label, this.#rows.get(label)] as const);
    // An index that scores candidates anew reads the rows as soon as it knows their labels, so they are there first.
    labels.forEach((label, i) => {
      this.#rows.set(label, rows.slice(i * this.#dimensions, (i + 1) * this.#dimensions));
    });
    try {
      await index.upsert(labels, rows);
    } catch (error) {
      for (const [label, row] of before) row ? this.#rows.set(label, row) : this.#rows.delete(label);
      throw error;
    }
  }

  async delete(labels: Uint32Array): Promise<void> {
    await (await this.#open()).delete(labels);
    for (const label of labels) this.#rows.delete(label);
  }

  async search(query: Float32Array, k: number, options: { readonly allowed?: Uint8Array }): Promise<Neighbour[]> {
    return (await this.#open()).search(query, k, options);
  }

  async read(labels: Uint32Array): Promise<Float32Array> {
    if (this.#closed) throw new IndexClosedError("vector store");
    const rows = new Float32Array(labels.length * this.#dimensions);
    labels.forEach((label, i) => {
      rows.set(this.#rows.get(label) as Float32Array, i * this.#dimensions);
    });
    return rows;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await (await this.#index?.catch(() => undefined))?.close();
  }

  /** Made when it is first needed: the constructor of a LangChain store can't wait. */
  async #open(): Promise<VectorIndex> {
    if (this.#closed) throw new IndexClosedError("vector store");
    this.#index ??= this.#make();
    return this.#index;
  }

  async #make(): Promise<VectorIndex> {
    const base: BaseVectors = { read: (labels) => this.read(labels) };
    const index = await this.#factory(this.#dimensions, base);
    if (index.dimensions === this.#dimensions) return index;
    await index.close();
    throw new InvalidInputError(
      `CorpusVectorStore: vectorIndex made an index of ${index.dimensions} dimensions, the embeddings have ` +
        `${this.#dimensions}. Use the dimensions that it is given.`,
    );
  }
}

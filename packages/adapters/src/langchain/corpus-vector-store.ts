/** A LangChain vector store that is bound to one context: search, upsert, delete, filters, MMR, saved as one file. */
import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { FingerprintMismatchError, InvalidInputError } from "@cde-js/core";
import {
  compileFilter,
  type Filter,
  labelSet,
  maximalMarginalRelevance,
  type VectorIndexFactory,
} from "@cde-js/retriever";
import { Document, type DocumentInterface } from "@langchain/core/documents";
import type { EmbeddingsInterface } from "@langchain/core/embeddings";
import { type MaxMarginalRelevanceSearchOptions, SaveableVectorStore } from "@langchain/core/vectorstores";
import { readStore, type StoreBlock, type StoredEntry, writeStore } from "./store-file.js";
import { type StoreVectors, storeVectors } from "./store-vectors.js";

/** Embeddings that say which context their vectors belong to: `ContextualEmbeddings`, or yours with these three fields. */
export interface ContextBoundEmbeddings extends EmbeddingsInterface {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly dimensions: number;
}

export interface CorpusVectorStoreOptions {
  /**
   * Another index of vectors, made when it is first needed; the store closes it. The rows are kept beside it, for MMR and
   * for saving; a file doesn't say how it was searched. A search that runs beside a write may score a document that is
   * being replaced by either vector. @default exact search
   */
  readonly vectorIndex?: VectorIndexFactory;
}

/** Rows a block of the saved file. */
const BLOCK = 1024;

/**
 * Keeps documents as they are given, one vector each, in memory; nothing is on disk before `save`. Scores are cosine
 * similarity, higher is better. Filters are Qdrant's, over the metadata (`{ must: [{ key: "source", match: … }] }`).
 * Writers wait for each other; a search sees all of a write or nothing of it. Close it to end its worker thread.
 */
export class CorpusVectorStore extends SaveableVectorStore implements AsyncDisposable {
  declare FilterType: Filter;
  declare readonly embeddings: ContextBoundEmbeddings;
  readonly #vectors: StoreVectors;
  readonly #entries = new Map<number, StoredEntry>();
  readonly #labels = new Map<string, number>();
  #nextLabel = 0;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(embeddings: ContextBoundEmbeddings, options: CorpusVectorStoreOptions = {}) {
    requireBound(embeddings);
    super(embeddings, {});
    // Other embeddings, put here later, would search with vectors of another context.
    Object.defineProperty(this, "embeddings", { value: embeddings, writable: false });
    this.#vectors = storeVectors(embeddings.dimensions, options.vectorIndex);
  }

  static override lc_name(): string {
    return "CorpusVectorStore";
  }

  /** Read in the base's constructor, before there are fields. */
  override _vectorstoreType(): string {
    return "cde";
  }

  static override async fromTexts(
    texts: string[],
    metadatas: object[] | object,
    embeddings: ContextBoundEmbeddings,
    options: CorpusVectorStoreOptions = {},
  ): Promise<CorpusVectorStore> {
    if (Array.isArray(metadatas) && metadatas.length !== texts.length) {
      throw new InvalidInputError(
        `fromTexts: ${texts.length} texts and ${metadatas.length} metadata. Pass one for each, or one object for all.`,
      );
    }
    const documents = texts.map((pageContent, i) => {
      return new Document({ pageContent, metadata: Array.isArray(metadatas) ? metadatas[i] : metadatas });
    });
    return CorpusVectorStore.fromDocuments(documents, embeddings, options);
  }

  static override async fromDocuments(
    documents: DocumentInterface[],
    embeddings: ContextBoundEmbeddings,
    options: CorpusVectorStoreOptions = {},
  ): Promise<CorpusVectorStore> {
    const store = new CorpusVectorStore(embeddings, options);
    try {
      await store.addDocuments(documents);
    } catch (error) {
      await store.close();
      throw error;
    }
    return store;
  }

  /** `load` by the name that other stores have for it. */
  static fromExistingIndex(
    embeddings: ContextBoundEmbeddings,
    { directory, ...options }: CorpusVectorStoreOptions & { readonly directory: string },
  ): Promise<CorpusVectorStore> {
    return CorpusVectorStore.load(directory, embeddings, options);
  }

  /**
   * Reads what `save` wrote.
   *
   * @throws MissingFileError, CorruptFileError, FingerprintMismatchError for a store of another model or context
   */
  static override async load(
    directory: string,
    embeddings: ContextBoundEmbeddings,
    options: CorpusVectorStoreOptions = {},
  ): Promise<CorpusVectorStore> {
    const store = new CorpusVectorStore(embeddings, options);
    try {
      await readStore(
        directory,
        ({ modelId, fingerprint, dimensions }) => {
          if (fingerprint === embeddings.fingerprint && dimensions === embeddings.dimensions) return;
          throw new FingerprintMismatchError(
            fingerprint,
            embeddings.fingerprint,
            `load: the store in ${directory} was made with ${modelId}, fingerprint ${fingerprint}, ${dimensions} ` +
              `dimensions; the embeddings are ${embeddings.modelId}, fingerprint ${embeddings.fingerprint}, ` +
              `${embeddings.dimensions} dimensions. Load it with its own model and context, or make it again.`,
          );
        },
        ({ entries, vectors }) => store.#write(entries, vectors),
      );
    } catch (error) {
      await store.close();
      throw error;
    }
    return store;
  }

  /** Of the model and context of all vectors here. */
  get fingerprint(): string {
    return this.embeddings.fingerprint;
  }

  /** Documents. */
  get count(): number {
    return this.#entries.size;
  }

  /**
   * Embeds documents and adds them; one whose id is there replaces it. An id is that of `ids`, else the document's,
   * else a new UUID; all are returned, in order. All documents are added or none. Of two calls that aren't awaited, the
   * one whose texts are embedded last writes last.
   *
   * @throws InvalidInputError for an id twice in one call, or metadata that JSON would change
   */
  override async addDocuments(documents: DocumentInterface[], options?: { ids?: string[] }): Promise<string[]> {
    const entries = entriesOf("addDocuments", documents, options?.ids); // refused before the work
    const vectors = await this.embeddings.embedDocuments(documents.map(({ pageContent }) => pageContent));
    return this.#add("addDocuments", entries, vectors);
  }

  /** Like `addDocuments`, for vectors that embeddings of this very fingerprint gave: nothing here can check that. */
  override async addVectors(
    vectors: number[][],
    documents: DocumentInterface[],
    options?: { ids?: string[] },
  ): Promise<string[]> {
    return this.#add("addVectors", entriesOf("addVectors", documents, options?.ids), vectors);
  }

  /** Removes documents by `{ ids }` or `{ filter }`. Ids that aren't there are no error. */
  override async delete(params: { ids?: string[]; filter?: Filter } = {}): Promise<void> {
    const { ids, filter } = params;
    if ((ids === undefined) === (filter === undefined)) {
      throw new InvalidInputError(
        `delete: needs either ids or filter, got ${ids === undefined ? "neither" : "both"}. To delete everything, make a new store.`,
      );
    }
    await this.#exclusive(async () => {
      const found = ids?.flatMap((id) => this.#labels.get(id) ?? []) ?? this.#matching(filter as Filter);
      await this.#vectors.delete(Uint32Array.from(found));
      for (const label of found) {
        this.#labels.delete(this.#entries.get(label)?.id ?? "");
        this.#entries.delete(label);
      }
    });
  }

  /** Documents of these ids, in the order asked for; those that aren't there are left out. */
  async getByIds(ids: string[]): Promise<Document[]> {
    return ids.flatMap((id) => {
      const label = this.#labels.get(id);
      return label === undefined ? [] : [toDocument(this.#entries.get(label) as StoredEntry)];
    });
  }

  override async similaritySearchVectorWithScore(
    query: number[],
    k: number,
    filter?: Filter,
  ): Promise<[Document, number][]> {
    return (await this.#nearest(Float32Array.from(query), k, filter)).map(({ entry, score }) => [
      toDocument(entry),
      score,
    ]);
  }

  /**
   * @param options `lambda` 0 is pure diversity, 1 pure relevance, 0.5 where absent; `fetchK` candidates are looked at,
   * 20 where absent and never fewer than `k`
   */
  override async maxMarginalRelevanceSearch(
    query: string,
    options: MaxMarginalRelevanceSearchOptions<Filter>,
  ): Promise<Document[]> {
    const { k, fetchK = 20, lambda = 0.5, filter } = options;
    const vector = Float32Array.from(await this.embeddings.embedQuery(query));
    // Between search and read no writer may remove a candidate.
    return this.#exclusive(async () => {
      const nearest = await this.#nearest(vector, Math.max(k, fetchK), filter);
      const rows = await this.#vectors.read(Uint32Array.from(nearest, ({ label }) => label));
      const { dimensions } = this.embeddings;
      const candidates = nearest.map(({ score }, i) => {
        return { id: i, score, vector: rows.subarray(i * dimensions, (i + 1) * dimensions) };
      });
      const picked = maximalMarginalRelevance(candidates, { lambda, k });
      return picked.map(({ id }) => toDocument((nearest[id] as Neighbour).entry));
    });
  }

  /**
   * Writes one file, `store.cde`, in place of one that is there, wholly or not at all. A process that is killed while
   * it saves leaves a file that ends in `.tmp` beside it.
   *
   * @throws StorageError
   */
  override save(directory: string): Promise<void> {
    return this.#exclusive(() => {
      const { modelId, fingerprint, dimensions } = this.embeddings;
      const header = { format: "cde-langchain-store/1", modelId, fingerprint, dimensions, count: this.count } as const;
      return writeStore(directory, header, this.#blocks());
    });
  }

  close(): Promise<void> {
    return this.#vectors.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #add(operation: string, entries: readonly StoredEntry[], vectors: readonly number[][]): Promise<string[]> {
    const { dimensions } = this.embeddings;
    if (vectors.length !== entries.length) {
      throw new InvalidInputError(`${operation}: ${entries.length} documents and ${vectors.length} vectors.`);
    }
    const rows = new Float32Array(entries.length * dimensions);
    vectors.forEach((vector, position) => {
      if (vector.length !== dimensions) {
        throw new InvalidInputError(
          `${operation}: the vector at position ${position} has ${vector.length} dimensions, this store ${dimensions}.`,
          { position },
        );
      }
      rows.set(vector, position * dimensions);
    });
    await this.#exclusive(() => this.#write(entries, rows));
    return entries.map(({ id }) => id);
  }

  /** The index takes all rows or refuses all; only then do the maps change, before anything else can run. */
  async #write(entries: readonly StoredEntry[], rows: Float32Array): Promise<void> {
    let next = this.#nextLabel;
    const labels = Uint32Array.from(entries, ({ id }) => this.#labels.get(id) ?? next++);
    await this.#vectors.upsert(labels, rows);
    this.#nextLabel = next;
    entries.forEach((entry, i) => {
      this.#labels.set(entry.id, labels[i] as number);
      this.#entries.set(labels[i] as number, entry);
    });
  }

  async #nearest(query: Float32Array, k: number, filter: Filter | undefined): Promise<Neighbour[]> {
    const allowed = filter === undefined ? {} : { allowed: labelSet(this.#matching(filter)) };
    const found = await this.#vectors.search(query, k, allowed);
    // A document that was removed while this waited for its turn is no longer a result.
    return found.flatMap(({ label, score }) => {
      const entry = this.#entries.get(label);
      return entry ? [{ label, score, entry }] : [];
    });
  }

  #matching(filter: Filter): number[] {
    const test = compileFilter(filter);
    return [...this.#entries].flatMap(([label, { id, metadata }]) => (test({ id, payload: metadata }) ? [label] : []));
  }

  async *#blocks(): AsyncGenerator<StoreBlock> {
    const all = [...this.#entries];
    for (let start = 0; start < all.length; start += BLOCK) {
      const slice = all.slice(start, start + BLOCK);
      const vectors = await this.#vectors.read(Uint32Array.from(slice, ([label]) => label));
      yield { entries: slice.map(([, entry]) => entry), vectors };
    }
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {});
    return result;
  }
}

interface Neighbour {
  readonly label: number;
  readonly score: number;
  readonly entry: StoredEntry;
}

function requireBound(embeddings: ContextBoundEmbeddings): void {
  if (typeof embeddings?.fingerprint === "string" && Number.isSafeInteger(embeddings.dimensions)) return;
  throw new InvalidInputError(
    "CorpusVectorStore: these embeddings don't say which context their vectors belong to. Pass ContextualEmbeddings; " +
      "where another class wraps them (a cache), give it their modelId, fingerprint and dimensions.",
  );
}

/** The documents as they are kept: copies, so that neither side changes the other's. */
function entriesOf(operation: string, documents: readonly DocumentInterface[], ids?: readonly string[]): StoredEntry[] {
  if (ids !== undefined && ids.length !== documents.length) {
    throw new InvalidInputError(`${operation}: ${documents.length} documents and ${ids.length} ids.`);
  }
  const positions = new Map<string, number>();
  return documents.map(({ pageContent, metadata, id: own }, position) => {
    const id = ids?.[position] ?? own ?? randomUUID();
    const fail = (what: string, cause?: unknown): never => {
      throw new InvalidInputError(`${operation}: the document at position ${position} ${what}`, { position, cause });
    };
    if (typeof id !== "string" || id === "")
      fail(`has the id ${JSON.stringify(id)}, expected a string with a content.`);
    if (positions.has(id)) fail(`has the id ${JSON.stringify(id)} of the one at ${positions.get(id)}.`);
    positions.set(id, position);
    return { id, pageContent, metadata: copyOf(metadata ?? {}, fail) };
  });
}

function copyOf(metadata: object, fail: (what: string, cause?: unknown) => never): Record<string, unknown> {
  let copy: unknown;
  try {
    copy = JSON.parse(JSON.stringify(metadata));
  } catch (cause) {
    return fail("has metadata that JSON can't hold.", cause);
  }
  if (isDeepStrictEqual(copy, metadata)) return copy as Record<string, unknown>;
  return fail("has metadata that JSON would change (undefined, NaN, a Date, a class of yours): convert it first.");
}

function toDocument({ id, pageContent, metadata }: StoredEntry): Document {
  return new Document({ id, pageContent, metadata: structuredClone(metadata) });
}

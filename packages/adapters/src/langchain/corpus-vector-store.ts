/** A LangChain vector store over a `CorpusIndex`: bound to one context, in memory, or living in a folder. */
import { InvalidInputError, MissingFileError } from "@cde-js/core";
import {
  type AnalyzerOptions,
  type CorpusDocument,
  CorpusIndex,
  type Filter,
  type Hit,
  IndexClosedError,
  type RequestOptions,
  type SearchOptions,
  type VectorIndexFactory,
} from "@cde-js/retriever";
import type { Document, DocumentInterface } from "@langchain/core/documents";
import { type MaxMarginalRelevanceSearchOptions, SaveableVectorStore } from "@langchain/core/vectorstores";
import { type ContextBoundEmbeddings, embedderOf, requireBound, toVector } from "./bound-embeddings.js";
import { documentsOf, entriesOf, selectionOf, toDocument } from "./store-documents.js";

export interface OpenVectorStoreOptions {
  /**
   * Another index of vectors, such as `hnsw()`, made when it is first needed and again where much was deleted; the store
   * closes it. What is saved doesn't say how it was searched. @default exact search
   */
  readonly vectorIndex?: VectorIndexFactory;
}

export interface CorpusVectorStoreOptions extends OpenVectorStoreOptions {
  /** How words are found, or `false` for a store that is searched by meaning only. @default English */
  readonly lexical?: AnalyzerOptions | false;
}

export interface NewVectorStoreOptions extends CorpusVectorStoreOptions {
  /** A new folder that the store lives in: every write is on disk when it is acknowledged. For `CorpusVectorStore.open`. */
  readonly directory?: string;
}

/**
 * Keeps documents as they are given, one vector each, and counts their words. Scores are cosine similarity, higher is
 * better. Filters are Qdrant's, over the metadata (`{ must: [{ key: "source", match: … }] }`). Writers wait for each
 * other; a search sees all of a write or nothing of it. Without a folder, nothing is on disk before `save`. Close it to
 * end its worker thread.
 */
export class CorpusVectorStore extends SaveableVectorStore implements AsyncDisposable {
  declare FilterType: Filter;
  declare readonly embeddings: ContextBoundEmbeddings;
  /** Makes or opens the index when it is first needed: the constructor of a LangChain store can't wait. */
  #make: () => Promise<CorpusIndex>;
  #opening: Promise<CorpusIndex> | undefined;
  #index: CorpusIndex | undefined;
  #closed = false;

  constructor(embeddings: ContextBoundEmbeddings, options: CorpusVectorStoreOptions = {}) {
    requireBound("CorpusVectorStore", embeddings);
    super(embeddings, {});
    // Other embeddings, put here later, would search with vectors of another context.
    Object.defineProperty(this, "embeddings", { value: embeddings, writable: false });
    if ("directory" in options) {
      throw new InvalidInputError(
        "CorpusVectorStore: a constructor can't wait for a folder. Use CorpusVectorStore.open, or fromDocuments for a new one.",
      );
    }
    this.#make = () => emptyIndex(embeddings, options);
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
    options: NewVectorStoreOptions = {},
  ): Promise<CorpusVectorStore> {
    return CorpusVectorStore.fromDocuments(documentsOf(texts, metadatas), embeddings, options);
  }

  /** @throws InvalidInputError where there is a store in `directory` already, StorageError, IndexLockedError */
  static override async fromDocuments(
    documents: DocumentInterface[],
    embeddings: ContextBoundEmbeddings,
    options: NewVectorStoreOptions = {},
  ): Promise<CorpusVectorStore> {
    const { directory, ...others } = options;
    const store = new CorpusVectorStore(embeddings, others);
    if (directory !== undefined) {
      await requireNew(directory);
      store.#make = () => emptyIndex(embeddings, options);
    }
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
    { directory, ...options }: OpenVectorStoreOptions & { readonly directory: string },
  ): Promise<CorpusVectorStore> {
    return CorpusVectorStore.load(directory, embeddings, options);
  }

  /**
   * Reads a folder into memory; what is added from then on is there after `save`. To live in the folder: `open`.
   *
   * @throws MissingFileError, CorruptFileError; FingerprintMismatchError for a store of another model or context;
   * InvalidInputError for an index of split documents, which is `CorpusRetriever`'s
   */
  static override load(
    directory: string,
    embeddings: ContextBoundEmbeddings,
    options: OpenVectorStoreOptions = {},
  ): Promise<CorpusVectorStore> {
    return CorpusVectorStore.#opened("load", directory, embeddings, { ...options, detached: true });
  }

  /**
   * Opens a folder that the store lives in from then on: every write is on disk when it is acknowledged, one process
   * writes, any number read.
   *
   * @throws as `load`; writes throw IndexLockedError where another process writes there
   */
  static open(
    directory: string,
    embeddings: ContextBoundEmbeddings,
    options: OpenVectorStoreOptions = {},
  ): Promise<CorpusVectorStore> {
    return CorpusVectorStore.#opened("open", directory, embeddings, { ...options, detached: false });
  }

  static async #opened(
    operation: string,
    directory: string,
    embeddings: ContextBoundEmbeddings,
    options: OpenVectorStoreOptions & { readonly detached: boolean },
  ): Promise<CorpusVectorStore> {
    const store = new CorpusVectorStore(embeddings);
    if ((options as CorpusVectorStoreOptions).lexical !== undefined) {
      throw new InvalidInputError(`${operation}: a saved store finds words as it always did. Leave lexical out.`);
    }
    const { vectorIndex, detached } = options;
    store.#make = async () => {
      const index = await CorpusIndex.open(directory, embedderOf(embeddings), {
        detached,
        ...(vectorIndex ? { vectorIndex } : {}),
      });
      if (index.passageCount <= index.count) return index;
      await index.close();
      throw new InvalidInputError(
        `${operation}: the index in ${directory} has ${index.passageCount} passages of ${index.count} documents, a store ` +
          "one of each. Use CorpusIndex.open with CorpusRetriever.",
      );
    };
    await store.#open();
    return store;
  }

  /** Of the model and context of all vectors here. */
  get fingerprint(): string {
    return this.embeddings.fingerprint;
  }

  /** Documents. */
  get count(): number {
    return this.#index?.count ?? 0;
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
    return await this.#add(entries, vectors);
  }

  /** Like `addDocuments`, for vectors that embeddings of this very fingerprint gave: nothing here can check that. */
  override async addVectors(
    vectors: number[][],
    documents: DocumentInterface[],
    options?: { ids?: string[] },
  ): Promise<string[]> {
    return await this.#add(entriesOf("addVectors", documents, options?.ids), vectors);
  }

  /** Removes documents by `{ ids }` or `{ filter }`. Ids that aren't there are no error. */
  override async delete(params: { ids?: string[]; filter?: Filter } = {}): Promise<void> {
    const which = selectionOf(params);
    await (await this.#open()).delete(which);
  }

  /** Documents of these ids, in the order asked for; those that aren't there are left out. */
  async getByIds(ids: string[]): Promise<Document[]> {
    return (await (await this.#open()).getMany(ids)).map(toDocument);
  }

  override async similaritySearchVectorWithScore(
    query: number[],
    k: number,
    filter?: Filter,
  ): Promise<[Document, number][]> {
    const index = await this.#open();
    const hits = await index.searchVector(toVector(query), { k, ...(filter ? { filter } : {}) });
    return hits.map((hit) => [toDocument(hit), hit.score]);
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
    const vector = toVector(await this.embeddings.embedQuery(query));
    const mmr = { lambda, candidates: Math.max(k, fetchK) };
    const index = await this.#open();
    return (await index.searchVector(vector, { k, mmr, ...(filter ? { filter } : {}) })).map(toDocument);
  }

  /**
   * The search of `CorpusIndex` over the same documents: by words and meaning together where `mode` says nothing else,
   * reranked, with thresholds and pages. With it a store is an index for `CorpusRetriever`:
   * `new CorpusRetriever({ index: store, mode: "hybrid" })`.
   */
  async search(query: string, options: SearchOptions = {}): Promise<Hit[]> {
    return await (await this.#open()).search(query, options);
  }

  /** A document as the index keeps it, by its id; undefined where there is none. */
  async get(id: string, options: RequestOptions = {}): Promise<CorpusDocument | undefined> {
    return await (await this.#open()).get(id, options);
  }

  /**
   * Writes the store to a folder, in place of one that is there, wholly or not at all; `load`, `open` and
   * `CorpusIndex.open` read it.
   *
   * @throws StorageError, IndexLockedError
   */
  override async save(directory: string): Promise<void> {
    await (await this.#open()).save(directory);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await (await this.#opening?.catch(() => undefined))?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #add(entries: readonly CorpusDocument[], vectors: readonly number[][]): Promise<string[]> {
    const index = await this.#open();
    await index.upsertVectors(entries, vectors.map(toVector));
    return entries.map(({ id }) => id);
  }

  async #open(): Promise<CorpusIndex> {
    if (this.#closed) throw new IndexClosedError("vector store");
    this.#opening ??= this.#make();
    try {
      this.#index = await this.#opening;
      return this.#index;
    } catch (error) {
      // What hindered it (a locked folder) may be over the next time.
      this.#opening = undefined;
      throw error;
    }
  }
}

async function emptyIndex(
  embeddings: ContextBoundEmbeddings,
  { directory, vectorIndex, lexical }: NewVectorStoreOptions,
): Promise<CorpusIndex> {
  return await CorpusIndex.build(embedderOf(embeddings), [], {
    split: false,
    ...(directory === undefined ? {} : { directory }),
    ...(vectorIndex ? { vectorIndex } : {}),
    ...(lexical === undefined ? {} : { lexical }),
  });
}

/** @throws InvalidInputError where there is an index, which would be lost */
async function requireNew(directory: string): Promise<void> {
  const there = await CorpusIndex.describe(directory).catch((error: unknown) => {
    if (error instanceof MissingFileError) return undefined;
    throw error;
  });
  if (!there) return;
  throw new InvalidInputError(
    `fromDocuments: ${directory} holds a store already. Add to it with CorpusVectorStore.open, or take another folder.`,
  );
}

/** A LangChain vector store on a Qdrant server, bound to one context: ids, filters and MMR as in `CorpusVectorStore`. */
import { FingerprintMismatchError } from "@cde-js/core";
import type { Filter } from "@cde-js/retriever";
import type { Document, DocumentInterface } from "@langchain/core/documents";
import { type MaxMarginalRelevanceSearchOptions, VectorStore } from "@langchain/core/vectorstores";
import { type QdrantCreateOptions, QdrantIndex, type QdrantOpenOptions } from "../qdrant/index.js";
import { type ContextBoundEmbeddings, embedderOf, requireBound, toVector } from "./bound-embeddings.js";
import { documentsOf, entriesOf, selectionOf, toDocument } from "./store-documents.js";

/** As for `QdrantIndex`; documents are embedded whole, as LangChain's stores do. */
export type QdrantCorpusStoreOptions = Omit<QdrantCreateOptions, "split" | "base">;

/** Documents embedded and written together; one call of `addDocuments` may hold a whole corpus. */
const SLICE = 1024;
/** One vector a document, of its context: no base vectors, which `addVectors` couldn't give. */
const WHOLE = { split: false, base: false } as const;

/**
 * Keeps documents as they are given, one vector each, in a Qdrant collection that carries the fingerprint of its context.
 * Scores are cosine similarity, higher is better. Filters are Qdrant's, over the metadata. Words are counted too:
 * `index.search` offers hybrid searches over the same documents.
 */
export class QdrantCorpusStore extends VectorStore implements AsyncDisposable {
  declare FilterType: Filter;
  declare readonly embeddings: ContextBoundEmbeddings;
  /** The same documents without LangChain. */
  readonly index: QdrantIndex;

  /** @throws FingerprintMismatchError for an index of another context */
  constructor(embeddings: ContextBoundEmbeddings, index: QdrantIndex) {
    requireBound("QdrantCorpusStore", embeddings);
    if (embeddings.fingerprint !== index.fingerprint) {
      throw new FingerprintMismatchError(
        index.fingerprint,
        embeddings.fingerprint,
        `QdrantCorpusStore: the collection "${index.collection}" has the fingerprint ${index.fingerprint}, the embeddings ` +
          `${embeddings.fingerprint}. Open it with the embeddings that it was filled with.`,
      );
    }
    // Nothing that a serialised chain would show.
    super(embeddings, {});
    Object.defineProperty(this, "embeddings", { value: embeddings, writable: false });
    this.index = index;
  }

  static override lc_name(): string {
    return "QdrantCorpusStore";
  }

  /** Read in the base's constructor, before there are fields. */
  override _vectorstoreType(): string {
    return "cde-qdrant";
  }

  /** Makes the collection, or opens one that was made alike. */
  static async create(
    embeddings: ContextBoundEmbeddings,
    options: QdrantCorpusStoreOptions,
  ): Promise<QdrantCorpusStore> {
    requireBound("QdrantCorpusStore", embeddings);
    const index = await QdrantIndex.create(embedderOf(embeddings), { ...options, ...WHOLE });
    return new QdrantCorpusStore(embeddings, index);
  }

  /**
   * Opens a collection. Nothing is made where there is none.
   *
   * @throws QdrantError for one that isn't there or isn't ours, FingerprintMismatchError for one of another context
   */
  static async fromExistingCollection(
    embeddings: ContextBoundEmbeddings,
    options: Omit<QdrantOpenOptions, "split" | "base">,
  ): Promise<QdrantCorpusStore> {
    requireBound("QdrantCorpusStore", embeddings);
    const index = await QdrantIndex.open(embedderOf(embeddings), { ...options, ...WHOLE });
    return new QdrantCorpusStore(embeddings, index);
  }

  static override async fromTexts(
    texts: string[],
    metadatas: object[] | object,
    embeddings: ContextBoundEmbeddings,
    options: QdrantCorpusStoreOptions,
  ): Promise<QdrantCorpusStore> {
    return await QdrantCorpusStore.fromDocuments(documentsOf(texts, metadatas), embeddings, options);
  }

  static override async fromDocuments(
    documents: DocumentInterface[],
    embeddings: ContextBoundEmbeddings,
    options: QdrantCorpusStoreOptions,
  ): Promise<QdrantCorpusStore> {
    const store = await QdrantCorpusStore.create(embeddings, options);
    await store.addDocuments(documents);
    return store;
  }

  /** Of the model and context of all vectors here. */
  get fingerprint(): string {
    return this.embeddings.fingerprint;
  }

  /**
   * Embeds documents and adds them; one whose id is there replaces it. An id is that of `ids`, else the document's,
   * else a new UUID; all are returned, in order. Interrupted, it may have added the first ones: the same call with the
   * same ids completes it.
   *
   * @throws InvalidInputError for an id twice in one call, metadata that JSON would change, or with the key "cde"
   */
  override async addDocuments(documents: DocumentInterface[], options?: { ids?: string[] }): Promise<string[]> {
    const entries = entriesOf("addDocuments", documents, options?.ids);
    for (let start = 0; start < entries.length; start += SLICE) {
      const slice = entries.slice(start, start + SLICE);
      const vectors = await this.embeddings.embedDocuments(slice.map(({ text }) => text));
      await this.index.upsertVectors(slice, vectors.map(toVector), this.#made);
    }
    return entries.map(({ id }) => id);
  }

  /** Like `addDocuments`, for vectors that embeddings of this very fingerprint gave: nothing here can check that. */
  override async addVectors(
    vectors: number[][],
    documents: DocumentInterface[],
    options?: { ids?: string[] },
  ): Promise<string[]> {
    const entries = entriesOf("addVectors", documents, options?.ids);
    await this.index.upsertVectors(entries, vectors.map(toVector), this.#made);
    return entries.map(({ id }) => id);
  }

  /** Removes documents by `{ ids }` or `{ filter }`. Ids that aren't there are no error. */
  override async delete(params: { ids?: string[]; filter?: Filter } = {}): Promise<void> {
    await this.index.delete(selectionOf(params));
  }

  /** Documents of these ids, in the order asked for; those that aren't there are left out. */
  async getByIds(ids: string[]): Promise<Document[]> {
    return (await this.index.getMany(ids)).map(toDocument);
  }

  override async similaritySearchVectorWithScore(
    query: number[],
    k: number,
    filter?: Filter,
  ): Promise<[Document, number][]> {
    const hits = await this.index.searchVector(toVector(query), { ...this.#made, k, ...(filter ? { filter } : {}) });
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
    return (await this.index.searchVector(vector, { ...this.#made, k, mmr, ...(filter ? { filter } : {}) })).map(
      toDocument,
    );
  }

  /** What vectors are made under: `index.recontext` may have moved the collection to another context. */
  get #made(): { readonly fingerprint: string } {
    return { fingerprint: this.fingerprint };
  }

  /** Ends what is under way. The collection stays. */
  close(): Promise<void> {
    return this.index.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A LangChain vector store on a Qdrant server, bound to one context: ids, filters and MMR as in `CorpusVectorStore`. */
import { randomUUID } from "node:crypto";
import { type Embedder, FingerprintMismatchError, InvalidInputError } from "@cde-js/core";
import type { CorpusDocument, Filter, Hit, JsonObject } from "@cde-js/retriever";
import { Document, type DocumentInterface } from "@langchain/core/documents";
import { type MaxMarginalRelevanceSearchOptions, VectorStore } from "@langchain/core/vectorstores";
import { type QdrantCreateOptions, QdrantIndex, type QdrantOpenOptions } from "../qdrant/index.js";
import type { ContextBoundEmbeddings } from "./corpus-vector-store.js";

/** As for `QdrantIndex`; documents are embedded whole, as LangChain's stores do. */
export type QdrantCorpusStoreOptions = Omit<QdrantCreateOptions, "split" | "base">;

/** Documents embedded and written together; one call of `addDocuments` may hold a whole corpus. */
const SLICE = 1024;

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
    const index = await QdrantIndex.create(embedderOf(embeddings), { ...options, split: false });
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
    const index = await QdrantIndex.open(embedderOf(embeddings), { ...options, split: false });
    return new QdrantCorpusStore(embeddings, index);
  }

  static override async fromTexts(
    texts: string[],
    metadatas: object[] | object,
    embeddings: ContextBoundEmbeddings,
    options: QdrantCorpusStoreOptions,
  ): Promise<QdrantCorpusStore> {
    if (Array.isArray(metadatas) && metadatas.length !== texts.length) {
      throw new InvalidInputError(
        `fromTexts: ${texts.length} texts and ${metadatas.length} metadata. Pass one for each, or one object for all.`,
      );
    }
    const documents = texts.map((pageContent, i) => {
      return new Document({ pageContent, metadata: Array.isArray(metadatas) ? metadatas[i] : metadatas });
    });
    return await QdrantCorpusStore.fromDocuments(documents, embeddings, options);
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
      await this.index.upsertVectors(slice, vectors.map(toVector));
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
    await this.index.upsertVectors(entries, vectors.map(toVector));
    return entries.map(({ id }) => id);
  }

  /** Removes documents by `{ ids }` or `{ filter }`. Ids that aren't there are no error. */
  override async delete(params: { ids?: string[]; filter?: Filter } = {}): Promise<void> {
    const { ids, filter } = params;
    if ((ids === undefined) === (filter === undefined)) {
      throw new InvalidInputError(
        `delete: needs either ids or filter, got ${ids === undefined ? "neither" : "both"}. To delete everything: { filter: {} }.`,
      );
    }
    await this.index.delete(ids ?? { filter: filter as Filter });
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
    const hits = await this.index.searchVector(toVector(query), { k, ...(filter ? { filter } : {}) });
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
    return (await this.index.searchVector(vector, { k, mmr, ...(filter ? { filter } : {}) })).map(toDocument);
  }

  /** Ends what is under way. The collection stays. */
  close(): Promise<void> {
    return this.index.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The embeddings as the index asks them. */
function embedderOf(embeddings: ContextBoundEmbeddings): Embedder {
  const { modelId, fingerprint, dimensions } = embeddings ?? {};
  if (typeof fingerprint !== "string" || typeof modelId !== "string" || !Number.isSafeInteger(dimensions)) {
    throw new InvalidInputError(
      "QdrantCorpusStore: these embeddings don't say which context their vectors belong to. Pass ContextualEmbeddings; " +
        "where another class wraps them (a cache), give it their modelId, fingerprint and dimensions.",
    );
  }
  const embed = (texts: readonly string[]): Promise<number[][]> => embeddings.embedDocuments([...texts]);
  return {
    modelId,
    fingerprint,
    dimensions,
    maxTokens: Number.POSITIVE_INFINITY,
    batchInvariant: true,
    embedQuery: async (text) => toVector(await embeddings.embedQuery(text)),
    embedQueries: async (texts) => {
      const vectors: Float32Array[] = [];
      for (const text of texts) vectors.push(toVector(await embeddings.embedQuery(text)));
      return { vectors, truncated: [] };
    },
    embedDocuments: async (texts) => ({ vectors: (await embed(texts)).map(toVector), truncated: [] }),
    async *embedStream(texts) {
      let position = 0;
      for await (const text of texts) {
        const [vector] = await embed([text]);
        yield { position: position++, text, vector: toVector(vector ?? []), truncated: false };
      }
    },
  };
}

function toVector(numbers: readonly number[]): Float32Array {
  return Float32Array.from(numbers);
}

/** The documents with their ids; the index copies them and checks their metadata. */
function entriesOf(
  operation: string,
  documents: readonly DocumentInterface[],
  ids?: readonly string[],
): CorpusDocument[] {
  if (ids !== undefined && ids.length !== documents.length) {
    throw new InvalidInputError(`${operation}: ${documents.length} documents and ${ids.length} ids.`);
  }
  const positions = new Map<string, number>();
  return documents.map(({ pageContent, metadata, id: own }, position) => {
    const id = ids?.[position] ?? own ?? randomUUID();
    const first = positions.get(id);
    if (first !== undefined) {
      throw new InvalidInputError(
        `${operation}: the document at position ${position} has the id ${JSON.stringify(id)} of the one at ${first}.`,
        { position },
      );
    }
    positions.set(id, position);
    return { id, text: pageContent, ...(metadata === undefined ? {} : { metadata: metadata as JsonObject }) };
  });
}

function toDocument({ id, text, metadata = {} }: CorpusDocument | Hit): Document {
  return new Document({ id, pageContent: text, metadata: structuredClone(metadata) });
}

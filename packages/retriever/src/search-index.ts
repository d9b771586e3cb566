/** What every index of documents can do, embedded or on a server: a program written for it runs on either. Types only. */
import type { CorpusContext, Embedder } from "@cde-js/core";
import type { BuildReport } from "./build-index.js";
import type { RecontextReport } from "./corpus-index-options.js";
import type { CorpusDocument } from "./documents.js";
import type { Filter } from "./filters/types.js";
import type { Hit, SearchOptions, VectorSearchOptions } from "./search/options.js";
import type { MetadataPatch, Selection, UpsertReport } from "./updates.js";

export interface RequestOptions {
  readonly signal?: AbortSignal;
}

export interface IndexCounts {
  readonly documents: number;
  /** What a search ranks. */
  readonly passages: number;
}

/** Where an `upsert` or `build` stands. Each index says more. */
export interface UpsertProgress {
  /** Documents read so far. */
  readonly documents: number;
  /** Passages embedded so far. */
  readonly embedded: number;
}

/**
 * `CorpusIndex` and `QdrantIndex` both are one: same documents, filters, options, hits and errors for what is wrong with
 * them. It answers only for the embedder whose fingerprint it carries. What one of them does beyond this (folders, drift,
 * tenants) is in its class.
 */
export interface SearchIndex extends AsyncDisposable {
  readonly modelId: string;
  /** Of the model and context that made the vectors. */
  readonly fingerprint: string;
  readonly dimensions: number;
  /** What queries are embedded with. `recontext` changes it. */
  readonly embedder: Embedder;
  /** The context of the embedder; undefined without one, or where the embedder doesn't say. */
  readonly context: CorpusContext | undefined;
  /** Whether words were counted, so that lexical and hybrid searches are possible. */
  readonly hasLexicalPart: boolean;
  /** Whether there is a context to roll back to. */
  readonly canRollBack: boolean;
  /** What building left out or cut; undefined for an index that was opened. */
  readonly report: BuildReport | undefined;

  /** How many documents and passages there are. */
  counts(options?: RequestOptions): Promise<IndexCounts>;
  /** The passages that answer best, best first. */
  search(query: string, options?: SearchOptions): Promise<Hit[]>;
  /** The dense search of a query vector that is at hand. */
  searchVector(vector: Float32Array, options?: VectorSearchOptions): Promise<Hit[]>;
  /** A document by its id; undefined where there is none. */
  get(id: string, options?: RequestOptions): Promise<CorpusDocument | undefined>;
  /** Documents of these ids, in the order asked for; those that aren't there are left out. */
  getMany(ids: readonly string[], options?: RequestOptions): Promise<CorpusDocument[]>;
  /** All documents, or those that a filter accepts. */
  documents(options?: RequestOptions & { readonly filter?: Filter }): AsyncIterable<CorpusDocument>;

  /** Adds documents and replaces those whose ids are there; what has its text and title already is not embedded again. */
  upsert(
    documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
    options?: RequestOptions & { readonly onProgress?: (progress: UpsertProgress) => void },
  ): Promise<UpsertReport>;
  /** Adds or replaces whole documents, a passage each, with vectors that were made elsewhere. */
  upsertVectors(
    documents: readonly CorpusDocument[],
    vectors: readonly Float32Array[],
    options?: GivenVectorsOptions,
  ): Promise<UpsertReport>;
  /** Removes documents and says how many there were. Ids that are not there are passed over. */
  delete(which: string | readonly string[] | Selection, options?: RequestOptions): Promise<number>;
  /** Changes fields of metadata, embeds nothing, and says how many documents there were. */
  updateMetadata(
    which: string | readonly string[] | Selection,
    patch: MetadataPatch,
    options?: RequestOptions,
  ): Promise<number>;

  /** Moves to another context while searches go on. */
  recontext(options: RequestOptions & { readonly embedder: Embedder }): Promise<RecontextReport>;
  /** Returns to the context before the last `recontext`. */
  rollback(options?: RequestOptions & { readonly embedder?: Embedder }): Promise<RecontextReport>;
  close(): Promise<void>;
}

export interface GivenVectorsOptions extends RequestOptions {
  /**
   * That the vectors were made under: the index refuses another than its own. Vectors that an embedder of this process
   * gave are known without it, unless they were copied.
   */
  readonly fingerprint?: string;
}

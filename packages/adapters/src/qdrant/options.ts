/** What a collection can be told when it is made, opened, or given another context. Types only. */
import type { Embedder } from "@cde-js/core";
import type { JsonObject, RequestOptions, SplitOptions, Splitter } from "@cde-js/retriever";
import type { QdrantConnectionOptions } from "./connection.js";
import type { MigrationProgress } from "./migration.js";
import type { LexicalOptions } from "./record.js";
import type { QdrantSearchParameters } from "./search.js";
import type { SpectralBase } from "./source.js";

/** A payload index, by Qdrant's name of its type or by its parameters: `"keyword"`, `{ type: "text", lowercase: true }`. */
export type PayloadIndex = string | JsonObject;

export interface QdrantOpenOptions extends QdrantConnectionOptions {
  readonly collection: string;
  /** Whose documents these are, in a collection made with `tenants`. Everything here is confined to them. */
  readonly tenant?: string;
  /**
   * Of a spectral context: what gives the base vectors that are kept beside those of the context, so that another context
   * is made of them without encoding. With `false` a new collection keeps none, and of one that has them is only read.
   * @default what the embedder says, as far as it says it; a collection that is there keeps what it keeps
   */
  readonly base?: SpectralBase | false;
  /** How texts are split, as for `CorpusIndex.build`; the same at every writing. */
  readonly split?: SplitOptions | Splitter | false;
  /** Parameters of every search in Qdrant's own words, such as `{ hnsw_ef: 256 }` or `{ exact: true }`. */
  readonly search?: QdrantSearchParameters;
  readonly signal?: AbortSignal;
}

export interface QdrantCreateOptions extends QdrantOpenOptions {
  /** How words are found, or `false` for no lexical part. @default English */
  readonly lexical?: LexicalOptions | false;
  /** Whether the collection holds documents of several tenants, each of which sees its own. @default false */
  readonly tenants?: boolean;
  /** Metadata fields that filters will ask for. In strict mode a filter on any other field is refused. */
  readonly payloadIndexes?: Readonly<Record<string, PayloadIndex>>;
  /**
   * Of the collection, in Qdrant's own words: shard_number, replication_factor, write_consistency_factor,
   * on_disk_payload, hnsw_config, optimizers_config, strict_mode_config, …
   */
  readonly parameters?: JsonObject;
  /** Of the contextual vectors, in Qdrant's own words: on_disk, hnsw_config, quantization_config, datatype. */
  readonly vectors?: JsonObject;
}

export interface QdrantRollbackOptions extends RequestOptions {
  /** Of the generation to go back to. @default known to the object that left it */
  readonly embedder?: Embedder;
  readonly onProgress?: (progress: MigrationProgress) => void;
}

export interface QdrantRecontextOptions extends RequestOptions {
  /** Bound to the context to move to. */
  readonly embedder: Embedder;
  /**
   * Of a spectral context: maps the base vectors that the collection has, so that nothing is encoded.
   * @default what the embedder says, where it fits those that are kept
   */
  readonly base?: SpectralBase;
  /** Drops what an unfinished change to another context has left. @default false */
  readonly abandon?: boolean;
  readonly onProgress?: (progress: MigrationProgress) => void;
}

/** The one thing that embeds: an encoder bound to one context. Types only. */
import type { CorpusContext, StageKind } from "../context/corpus-context.js";
import type { TokenWeights } from "../context/token-weights.js";

/** Vectors in the order of the texts, and which texts were cut to fit the model. */
export interface Embeddings {
  /** One unit-length vector a text, in the order given; `fingerprintOf` says under which fingerprint each was made. */
  readonly vectors: Float32Array[];
  /** Positions of texts that were longer than `maxTokens` and were cut at the end, ascending. */
  readonly truncated: number[];
}

/** Where a long call stands. */
export interface EmbedProgress {
  readonly done: number;
  readonly total: number;
}

export interface EmbedOptions {
  /** Stops between micro-batches; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: EmbedProgress) => void;
}

/** One text of a stream with its vector. */
export interface EmbeddedText {
  /** Position in the stream, from 0. */
  readonly position: number;
  readonly text: string;
  readonly vector: Float32Array;
  readonly truncated: boolean;
}

/**
 * An encoder bound to one context. Immutable. Its vectors are unit length and comparable only with vectors of the
 * same `fingerprint`.
 */
export interface Embedder {
  readonly modelId: string;
  readonly dimensions: number;
  /** Longest input in tokens, special tokens and prompt included. */
  readonly maxTokens: number;
  /** sha256 (hex) of all that determines the vectors: model and context. */
  readonly fingerprint: string;
  /** Whether a text's vector is the same alone and in any batch; false only for the opt-in dynamic int8. */
  readonly batchInvariant: boolean;
  /** The context that it is bound to, so that an index can keep it; absent without one. */
  readonly context?: CorpusContext | undefined;
  /**
   * Where the context acts as a map of finished vectors (`context.map`): what gives these. An index keeps its vectors,
   * and maps them again under another context.
   */
  readonly base?: Embedder | undefined;
  /** How its model uses a context; "spectral" ones are made of base vectors, without encoding. */
  readonly stage?: StageKind | undefined;
  /** Of one whose vectors are base vectors: how much each token counts in them, where they don't count alike. */
  readonly tokenWeights?: TokenWeights | undefined;
  /** The same model without any context, tokens counting alike. Raises NoNullContextError where it has no such form. */
  withoutContext?(): Embedder;
  /** The same model bound to another context of its own. Absent where the embedder can't be bound anew. */
  withContext?(context: CorpusContext): Embedder;

  /**
   * A context of texts from other corpora whose vectors are of this embedder's fingerprint, where the model brings one:
   * what `index.drift()` takes for far away. Read when it is asked for.
   */
  otherCorpora?(): Promise<CorpusContext | undefined>;

  /**
   * Tokens that `text` takes as a document, special tokens and prompt included, before any cut. Absent where the
   * model behind it has no tokenizer at hand (a remote endpoint); then an index can't split by tokens.
   */
  countTokens?(text: string): number;
  embedQuery(text: string, options?: { signal?: AbortSignal }): Promise<Float32Array>;
  embedQueries(texts: readonly string[], options?: EmbedOptions): Promise<Embeddings>;
  embedDocuments(texts: readonly string[], options?: EmbedOptions): Promise<Embeddings>;
  /** Documents of a stream, in its order, in bounded memory. */
  embedStream(
    texts: AsyncIterable<string> | Iterable<string>,
    options?: { signal?: AbortSignal },
  ): AsyncIterable<EmbeddedText>;
}

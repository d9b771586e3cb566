/** Embedding models of the Vercel AI SDK (specification v3, which AI SDK 6, 7 and Mastra take) over an `Embedder`. */
import { type Embedder, InvalidInputError } from "@cde-js/core";

export interface CdeProviderOptions {
  /** Larger lists are sent in several calls, one after the other. @default 1024 */
  readonly maxEmbeddingsPerCall?: number;
}

export interface EmbedCall {
  readonly values: string[];
  readonly abortSignal?: AbortSignal | undefined;
}

export interface EmbedResult {
  readonly embeddings: number[][];
  /** One where texts were cut: how many, and which. */
  readonly warnings: { type: "other"; message: string }[];
}

/** `EmbeddingModelV3` of @ai-sdk/provider, written out so that its package isn't needed. */
export interface CdeEmbeddingModel {
  readonly specificationVersion: "v3";
  readonly provider: "cde";
  /**
   * Side, context fingerprint, model: what caches and logs tell vectors apart by. The name comes last because Mastra names
   * its indexes and its cache by the first 49 characters.
   */
  readonly modelId: string;
  readonly maxEmbeddingsPerCall: number;
  /** One worker computes for all calls. */
  readonly supportsParallelCalls: false;
  doEmbed(call: EmbedCall): Promise<EmbedResult>;
}

/** The two models of one embedder; each call gives the same object. */
export interface CdeProvider {
  /** For what is searched with: `embed({ model: cde.query(), value })`. */
  query(): CdeEmbeddingModel;
  /** For what is searched: `embedMany({ model: cde.document(), values })`. */
  document(): CdeEmbeddingModel;
}

/**
 * The AI SDK knows no difference between queries and documents, so there are two models. Their vectors are comparable
 * with each other and with no other fingerprint's.
 *
 * @example
 * const cde = createCde(encoder.withContext(context));
 * const { embedding } = await embed({ model: cde.query(), value: "who pays for flood damage?" });
 */
export function createCde(embedder: Embedder, options: CdeProviderOptions = {}): CdeProvider {
  const { maxEmbeddingsPerCall = 1024 } = options;
  if (!Number.isSafeInteger(maxEmbeddingsPerCall) || maxEmbeddingsPerCall < 1) {
    throw new InvalidInputError(
      `createCde: maxEmbeddingsPerCall must be an integer of at least 1, got ${maxEmbeddingsPerCall}.`,
    );
  }
  const [query, document] = (["query", "document"] as const).map((side) =>
    embeddingModel(embedder, side, maxEmbeddingsPerCall),
  ) as [CdeEmbeddingModel, CdeEmbeddingModel];
  return { query: () => query, document: () => document };
}

function embeddingModel(
  embedder: Embedder,
  side: "query" | "document",
  maxEmbeddingsPerCall: number,
): CdeEmbeddingModel {
  return {
    specificationVersion: "v3",
    provider: "cde",
    modelId: `${side}@${embedder.fingerprint}/${embedder.modelId}`,
    maxEmbeddingsPerCall,
    supportsParallelCalls: false,
    async doEmbed({ values, abortSignal }) {
      abortSignal?.throwIfAborted();
      if (values.length > maxEmbeddingsPerCall) {
        throw new InvalidInputError(
          `doEmbed: ${values.length} values, at most ${maxEmbeddingsPerCall} a call. embedMany splits them.`,
        );
      }
      const signal = abortSignal ? { signal: abortSignal } : {};
      const { vectors, truncated } = await (side === "query"
        ? embedder.embedQueries(values, signal)
        : embedder.embedDocuments(values, signal));
      const message = `${truncated.length} of ${values.length} texts were longer than ${embedder.maxTokens} tokens and were cut: positions ${truncated.join(", ")}.`;
      return {
        embeddings: vectors.map((vector) => Array.from(vector)),
        warnings: truncated.length === 0 ? [] : [{ type: "other", message }],
      };
    },
  };
}

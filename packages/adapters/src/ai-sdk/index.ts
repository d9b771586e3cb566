/** Embedding models of the Vercel AI SDK (specification v3, which AI SDK 6, 7 and Mastra take) over an `Embedder`. */
import { type Embedder, InvalidInputError } from "@cde-js/core";

export interface EmbeddingModelOptions {
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
  /** Model, side and context fingerprint: what caches and logs tell vectors apart by. */
  readonly modelId: string;
  readonly maxEmbeddingsPerCall: number;
  /** One worker computes for all calls. */
  readonly supportsParallelCalls: false;
  doEmbed(call: EmbedCall): Promise<EmbedResult>;
}

/**
 * The AI SDK knows no difference between queries and documents, so there are two models:
 * `embed({ model: models.query, value })` for what is searched with, `embedMany({ model: models.document, values })`
 * for what is searched. Their vectors are comparable with each other and with no other fingerprint's.
 */
export function embeddingModels(
  embedder: Embedder,
  options: EmbeddingModelOptions = {},
): { readonly query: CdeEmbeddingModel; readonly document: CdeEmbeddingModel } {
  const { maxEmbeddingsPerCall = 1024 } = options;
  if (!Number.isSafeInteger(maxEmbeddingsPerCall) || maxEmbeddingsPerCall < 1) {
    throw new InvalidInputError(
      `embeddingModels: maxEmbeddingsPerCall must be an integer of at least 1, got ${maxEmbeddingsPerCall}.`,
    );
  }
  const model = (side: "query" | "document"): CdeEmbeddingModel => ({
    specificationVersion: "v3",
    provider: "cde",
    modelId: `${embedder.modelId}/${side}@${embedder.fingerprint}`,
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
  });
  return { query: model("query"), document: model("document") };
}

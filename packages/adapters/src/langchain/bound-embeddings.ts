/** Embeddings of LangChain that say which context their vectors belong to, and the same as an index asks them. */
import { type Embedder, InvalidInputError } from "@cde-js/core";
import type { EmbeddingsInterface } from "@langchain/core/embeddings";
import { ContextualEmbeddings } from "./contextual-embeddings.js";

/** Embeddings that say which context their vectors belong to: `ContextualEmbeddings`, or yours with these three fields. */
export interface ContextBoundEmbeddings extends EmbeddingsInterface {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly dimensions: number;
}

/** @throws InvalidInputError for embeddings that don't say it */
export function requireBound(store: string, embeddings: ContextBoundEmbeddings): void {
  const { modelId, fingerprint, dimensions } = embeddings ?? {};
  if (typeof fingerprint === "string" && typeof modelId === "string" && Number.isSafeInteger(dimensions)) return;
  throw new InvalidInputError(
    `${store}: these embeddings don't say which context their vectors belong to. Pass ContextualEmbeddings; ` +
      "where another class wraps them (a cache), give it their modelId, fingerprint and dimensions.",
  );
}

/** The embeddings as an index asks them: whole texts, nothing cut or counted here. */
export function embedderOf(embeddings: ContextBoundEmbeddings): Embedder {
  const { modelId, fingerprint, dimensions } = embeddings;
  const embed = (texts: readonly string[]): Promise<number[][]> => embeddings.embedDocuments([...texts]);
  // So that a saved index keeps it. No base: a store's vectors come from anywhere, and are those of the context.
  const context = embeddings instanceof ContextualEmbeddings ? embeddings.embedder.context : undefined;
  return {
    modelId,
    fingerprint,
    dimensions,
    maxTokens: Number.POSITIVE_INFINITY,
    batchInvariant: true,
    ...(context ? { context } : {}),
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

export function toVector(numbers: readonly number[]): Float32Array {
  return Float32Array.from(numbers);
}

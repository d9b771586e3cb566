/** An embedder for tests of everything that needs one: hashed bags of words, so that shared words mean nearness. */
import { createHash } from "node:crypto";
import type { EmbeddedText, Embedder, Embeddings, EmbedOptions } from "@cde-js/core";

export interface StubEmbedderOptions {
  /** @default 64 */
  readonly dimensions?: number;
  /** Words and 2 special tokens; longer texts are cut and reported. @default 32 */
  readonly maxTokens?: number;
  /** Another context gives other vectors and another fingerprint. @default "none" */
  readonly context?: string;
}

export function stubEmbedder(options: StubEmbedderOptions = {}): Embedder {
  const { dimensions = 64, maxTokens = 32, context = "none" } = options;
  const wordsOf = (text: string): string[] => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const countTokens = (text: string): number => 2 + wordsOf(text).length;

  function embed(text: string): Float32Array {
    const vector = new Float64Array(dimensions);
    // So that no text is the zero vector, which has no direction.
    vector[0] = 0.1;
    for (const word of wordsOf(text).slice(0, maxTokens - 2)) {
      const digest = createHash("sha256").update(`${context}\n${word}`).digest();
      for (let i = 0; i < 4; i++) {
        const at = digest.readUInt32LE(8 * i) % dimensions;
        vector[at] = (vector[at] as number) + (digest.readUInt8(8 * i + 4) / 128 - 1);
      }
    }
    const length = Math.hypot(...vector);
    return Float32Array.from(vector, (x) => x / length);
  }

  async function embedDocuments(
    texts: readonly string[],
    { signal, onProgress }: EmbedOptions = {},
  ): Promise<Embeddings> {
    const vectors: Float32Array[] = [];
    const truncated: number[] = [];
    for (const [position, text] of texts.entries()) {
      signal?.throwIfAborted();
      vectors.push(embed(text));
      if (countTokens(text) > maxTokens) truncated.push(position);
      if (position % 64 === 63) await new Promise((resolve) => setImmediate(resolve));
      onProgress?.({ done: position + 1, total: texts.length });
    }
    return { vectors, truncated };
  }

  return {
    modelId: "stub/bag-of-words",
    dimensions,
    maxTokens,
    fingerprint: createHash("sha256")
      .update(JSON.stringify({ stub: 1, dimensions, maxTokens, context }))
      .digest("hex"),
    batchInvariant: true,
    countTokens,
    embedQuery: async (text, { signal } = {}) => {
      signal?.throwIfAborted();
      return embed(text);
    },
    embedQueries: embedDocuments,
    embedDocuments,
    async *embedStream(texts, { signal } = {}): AsyncGenerator<EmbeddedText> {
      let position = 0;
      for await (const text of texts) {
        signal?.throwIfAborted();
        yield { position: position++, text, vector: embed(text), truncated: countTokens(text) > maxTokens };
      }
    },
  };
}

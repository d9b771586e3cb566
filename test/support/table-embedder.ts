/** An embedder for results that are computed by hand: each text has the vector that a table gives it. */
import { createHash } from "node:crypto";
import type { Embedder } from "@cde-js/core";

/** It has no tokenizer, so an index needs `split: false`. */
export function tableEmbedder(table: Readonly<Record<string, readonly number[]>>): Embedder {
  const vectorOf = (text: string): Float32Array => {
    const vector = table[text];
    if (!vector) throw new Error(`the table has no vector for ${JSON.stringify(text)}`);
    return Float32Array.from(vector);
  };
  const embedDocuments: Embedder["embedDocuments"] = async (texts) => ({
    vectors: texts.map(vectorOf),
    truncated: [],
  });
  return {
    modelId: "stub/table",
    dimensions: Object.values(table)[0]?.length ?? 0,
    maxTokens: 512,
    fingerprint: createHash("sha256").update(JSON.stringify(table)).digest("hex"),
    batchInvariant: true,
    embedQuery: async (text) => vectorOf(text),
    embedQueries: embedDocuments,
    embedDocuments,
    // biome-ignore lint/correctness/useYield: an index never asks for it.
    async *embedStream() {
      throw new Error("not needed");
    },
  };
}

/** A model for tests of updates and contexts: hashed bags of words as base vectors, and real spectral contexts. */
import { createHash } from "node:crypto";
import { CorpusContext, type Embedder, type Embeddings } from "@cde-js/core";
import type { ContextEncoder } from "./context/from-corpus.js";
import { type Neighbour, type VectorIndex, vectorFault } from "./vector-index.js";

const DIMENSIONS = 16;

export interface SpectralStub extends ContextEncoder {
  /** Texts that were embedded so far, by any embedder of it. */
  readonly embedded: string[];
}

export function spectralStub(): SpectralStub {
  const embedded: string[] = [];
  const vectorOf = (text: string): Float32Array => {
    const vector = new Float64Array(DIMENSIONS);
    vector[0] = 0.1;
    for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []) {
      const digest = createHash("sha256").update(word).digest();
      for (let i = 0; i < 4; i++) vector[digest.readUInt8(i) % DIMENSIONS]! += digest.readUInt8(i + 4) / 128 - 1;
    }
    const length = Math.hypot(...vector);
    return Float32Array.from(vector, (x) => x / length);
  };
  const fingerprint = createHash("sha256").update("spectral stub").digest("hex");
  const embedder = (context?: CorpusContext): Embedder => {
    const apply = (vector: Float32Array): Float32Array => context?.map?.applyRows(vector) ?? vector;
    const embedDocuments = async (texts: readonly string[]): Promise<Embeddings> => {
      embedded.push(...texts);
      return { vectors: texts.map((text) => apply(vectorOf(text))), truncated: [] };
    };
    return {
      modelId: "stub/spectral",
      dimensions: DIMENSIONS,
      maxTokens: 64,
      fingerprint: context?.fingerprint ?? fingerprint,
      batchInvariant: true,
      stage: "spectral",
      context,
      base: context && embedder(),
      countTokens: (text) => 2 + (text.match(/\S+/g)?.length ?? 0),
      withContext: embedder,
      embedQuery: async (text) => apply(vectorOf(text)),
      embedQueries: embedDocuments,
      embedDocuments,
      // biome-ignore lint/correctness/useYield: an index never asks for it.
      async *embedStream() {
        throw new Error("not needed");
      },
    };
  };
  return {
    modelId: "stub/spectral",
    maxTokens: 64,
    contextSize: undefined,
    embedded,
    countTokens: (text) => 2 + (text.match(/\S+/g)?.length ?? 0),
    withContext: embedder,
    withoutContext: () => embedder(),
    async buildContext(texts, { strength } = {}) {
      const rows = Float32Array.from(texts.flatMap((text) => [...vectorOf(text)]));
      return await CorpusContext.fromBaseVectors(embedder(), texts, rows, {
        ...(strength && strength !== "auto" && { strength }),
      });
    },
  };
}

/** The same texts under a context that is no map: every fingerprint is another model's to an index. */
export function opaqueStub(context: string): Embedder {
  const { context: _, base: __, withContext: ___, stage: ____, ...plain } = spectralStub().withoutContext();
  const word = (text: string): string => `${context} ${text}`;
  const embedDocuments: Embedder["embedDocuments"] = (texts) => plain.embedDocuments(texts.map(word));
  return {
    ...plain,
    fingerprint: `${context}/${plain.fingerprint}`,
    embedQuery: (text) => plain.embedQuery(word(text)),
    embedQueries: embedDocuments,
    embedDocuments,
  };
}

/** Compares every row, in this thread: a worker takes longer to start than a test. */
export function naiveVectorIndex(dimensions: number): VectorIndex {
  const rows = new Map<number, Float32Array>();
  return {
    dimensions,
    get count() {
      return rows.size;
    },
    async upsert(labels, vectors) {
      for (const [i, label] of labels.entries()) {
        const row = vectors.slice(i * dimensions, (i + 1) * dimensions);
        const fault = vectorFault(row, dimensions);
        if (fault) throw new Error(fault);
        rows.set(label, row);
      }
    },
    async delete(labels) {
      return labels.reduce((removed, label) => removed + Number(rows.delete(label)), 0);
    },
    async search(query, k, { allowed } = {}) {
      const found: Neighbour[] = [];
      for (const [label, row] of rows) {
        if (allowed && !((allowed[label >> 3] ?? 0) & (1 << (label & 7)))) continue;
        found.push({ label, score: row.reduce((sum, x, i) => sum + x * (query[i] as number), 0) });
      }
      return found.sort((a, b) => b.score - a.score || a.label - b.label).slice(0, k);
    },
    close: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
}

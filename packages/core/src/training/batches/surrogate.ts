/** The model whose vectors cluster training data and find false negatives: anything that embeds texts. */

import { toUnitVector } from "../../context/remap.js";
import { type BatchOptions, type EmbedFunction, embedByFunction } from "../../encoder/embed-function.js";
import type { Embedder, EmbedProgress } from "../../encoder/embedder.js";
import { InvalidInputError, RuntimeFailureError } from "../../errors.js";
import { sha256Hex } from "../../model/digest.js";

/** A text's part in a pair. A surrogate with prompts gives the same text another vector as a query. */
export type TextKind = "query" | "document";

export interface SurrogateCall {
  readonly kind: TextKind;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: EmbedProgress) => void) | undefined;
}

/** Texts to unit vectors, with a name for what determines them. */
export interface Surrogate {
  /** What a person calls it. */
  readonly name: string;
  /** sha256 (hex) of what determines the vectors, as far as it is known. Vectors are cached under it. */
  readonly digest: string;
  /** Whether its vectors lie on disk already: then none is cached. */
  readonly stored?: boolean;
  /** One unit vector a text, in order. */
  embed(texts: readonly string[], call: SurrogateCall): Promise<readonly Float32Array[]>;
}

/** What is taken for a surrogate: one made by a function of this file, or an embedder as it is. */
export type AnySurrogate = Surrogate | Embedder;

export function toSurrogate(surrogate: AnySurrogate): Surrogate {
  return "embedDocuments" in surrogate ? embedderSurrogate(surrogate) : surrogate;
}

/** An encoder bound to a context, `withoutContext()` for one; its fingerprint names it. */
export function embedderSurrogate(embedder: Embedder): Surrogate {
  return {
    name: embedder.modelId,
    digest: embedder.fingerprint,
    async embed(texts, { kind, signal, onProgress }) {
      const options = { ...(signal && { signal }), ...(onProgress && { onProgress }) };
      const { vectors } =
        kind === "query" ? await embedder.embedQueries(texts, options) : await embedder.embedDocuments(texts, options);
      if (vectors.length !== texts.length) {
        throw new RuntimeFailureError(
          `surrogate ${embedder.modelId}: ${vectors.length} vectors for ${texts.length} texts.`,
        );
      }
      return vectors.map((vector, i) => toUnitVector(`surrogate ${embedder.modelId}`, vector, embedder.dimensions, i));
    },
  };
}

export interface FunctionSurrogateOptions extends BatchOptions {
  /**
   * Names the model behind the function: all that changes its vectors (name, version, pooling, prompts, truncation)
   * belongs in it. Where it stays and the vectors change, the probe of the cache notices.
   */
  readonly modelId: string;
  /** Refuses vectors of any other dimension. @default that of the first vector */
  readonly dimensions?: number;
}

/**
 * A function from texts to vectors: a transformers.js pipeline, an endpoint. The paper's GTR is a T5 encoder with mean
 * pooling and no prompt:
 *
 * @example
 * const gtr = await pipeline("feature-extraction", "sentence-transformers/gtr-t5-base");
 * const surrogate = functionSurrogate(
 *   async (texts) => (await gtr([...texts], { pooling: "mean", normalize: true })).tolist(),
 *   { modelId: "gtr-t5-base, mean, no dense layer" },
 * );
 */
export function functionSurrogate(embed: EmbedFunction, options: FunctionSurrogateOptions): Surrogate {
  const { modelId, dimensions, ...batches } = options;
  if (typeof modelId !== "string" || modelId.trim() === "") {
    throw new InvalidInputError("functionSurrogate: { modelId } must name the model: nothing else tells two apart.");
  }
  return {
    name: modelId,
    digest: sha256Hex(`surrogate function\n${modelId}`),
    embed: (texts, { kind, signal, onProgress }) =>
      embedByFunction(embed, texts, { operation: "surrogate", kind, signal, onProgress, dimensions, ...batches }),
  };
}

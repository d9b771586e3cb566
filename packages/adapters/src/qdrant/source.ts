/** Where a generation's vectors come from: an embedder, or base vectors and the spectral map of its context. */
import {
  type CorpusContext,
  type Embedder,
  FingerprintMismatchError,
  InvalidInputError,
  RuntimeFailureError,
  remap,
} from "@cde-js/core";
import { vectorFault } from "@cde-js/retriever/backend";

/** Gives the base vectors of a spectral context, so that a change of context encodes nothing again. */
export interface SpectralBase {
  /** The same model without context: `encoder.withoutContext()`, `embedder.withStrength("off")`. */
  readonly embedder: Embedder;
  /** The context that the index's embedder is bound to. */
  readonly context: CorpusContext;
}

/** What gives base vectors, as far as the embedder says it; undefined where its context is no map. */
export function knownBase(embedder: Embedder): SpectralBase | undefined {
  const { context } = embedder;
  // Of strength "off", a context maps nothing: then the vectors are base vectors themselves.
  const base = embedder.base ?? (context?.identity.strength === "off" ? embedder : undefined);
  if (!base || !context?.map) return undefined;
  const fits = context.fingerprint === embedder.fingerprint && context.identity.model === base.fingerprint;
  return fits ? { embedder: base, context } : undefined;
}

/** What gives those that a collection keeps: as asked for, or as the embedder says it. */
export function keptBase(
  embedder: Embedder,
  asked: SpectralBase | false | undefined,
  kept: string | null,
): SpectralBase | undefined {
  if (asked !== undefined) return asked || undefined;
  const known = knownBase(embedder);
  return known?.embedder.fingerprint === kept ? known : undefined;
}

/** @throws FingerprintMismatchError where embedder, base and context aren't of one model and context */
export function checkBase(operation: string, embedder: Embedder, base: SpectralBase | undefined): void {
  if (!base) return;
  const { context } = base;
  if (!context.map) {
    throw new InvalidInputError(
      `${operation}: the context is of the stage "${context.stage}", and only a spectral one is a map of base vectors. ` +
        "Leave base out.",
    );
  }
  if (context.fingerprint !== embedder.fingerprint) {
    throw new FingerprintMismatchError(
      embedder.fingerprint,
      context.fingerprint,
      `${operation}: the embedder is bound to the context ${embedder.fingerprint}, base.context is ${context.fingerprint}. ` +
        "Pass the context that the embedder was made with.",
    );
  }
  if (context.identity.model !== base.embedder.fingerprint) {
    throw new FingerprintMismatchError(
      context.identity.model,
      base.embedder.fingerprint,
      `${operation}: the context was made by the model ${context.identity.model}, base.embedder is ` +
        `${base.embedder.fingerprint}. Pass the same model without context.`,
    );
  }
}

/** A generation and what embeds for it. */
export interface GenerationEmbedder {
  /** The named vector. */
  readonly vector: string;
  readonly embedder: Embedder;
  readonly base: SpectralBase | undefined;
}

/** The vectors of texts, by the name of each: the generation's, and the base ones where they are kept. */
export interface TextVectors {
  readonly vectors: readonly Float32Array[];
  readonly base: readonly Float32Array[] | undefined;
  /** Positions of texts that were cut. */
  readonly truncated: readonly number[];
}

export async function embedTexts(
  operation: string,
  texts: readonly string[],
  { embedder, base }: { readonly embedder: Embedder; readonly base: SpectralBase | undefined },
  options: { readonly signal?: AbortSignal | undefined; readonly onProgress?: (done: number) => void } = {},
): Promise<TextVectors> {
  const { signal, onProgress } = options;
  const from = base?.embedder ?? embedder;
  const { vectors, truncated } = await from.embedDocuments(texts, {
    ...(signal ? { signal } : {}),
    ...(onProgress ? { onProgress: ({ done }) => onProgress(done) } : {}),
  });
  checkVectors(operation, vectors, texts.length, from);
  if (!base) return { vectors, base: undefined, truncated };
  return { vectors: remap(vectors, base.context), base: vectors, truncated };
}

/** @throws RuntimeFailureError for what an embedder gave and is no vector */
export function checkVectors(
  operation: string,
  vectors: readonly Float32Array[],
  count: number,
  { modelId, dimensions }: Pick<Embedder, "modelId" | "dimensions">,
): void {
  if (vectors.length !== count) {
    throw new RuntimeFailureError(`${operation}: ${modelId} gave ${vectors.length} vectors for ${count} texts.`);
  }
  for (const [position, vector] of vectors.entries()) {
    const fault = vectorFault(vector, dimensions);
    if (fault)
      throw new RuntimeFailureError(`${operation}: ${modelId} gave a vector for text ${position} that ${fault}.`);
  }
}

/** Encodes each text once, however many contexts its vector is wanted in: a spectral context maps the base vector. */
import type { CorpusContext, EmbeddedText, Embedder, Embeddings, EmbedOptions } from "@cde-js/core";

/** The embedder, with the vectors of all texts that it was given kept in memory. */
export function embedOnce(base: Embedder): Embedder {
  const queries = new Map<string, Kept>();
  const documents = new Map<string, Kept>();
  const remember = async (
    known: Map<string, Kept>,
    texts: readonly string[],
    embed: (unknown: readonly string[], options?: EmbedOptions) => Promise<Embeddings>,
    options?: EmbedOptions,
  ): Promise<Embeddings> => {
    const unknown = [...new Set(texts)].filter((text) => !known.has(text));
    if (unknown.length > 0) {
      const { vectors, truncated } = await embed(unknown, options);
      const cut = new Set(truncated);
      unknown.forEach((text, i) => {
        known.set(text, { vector: vectors[i]!, truncated: cut.has(i) });
      });
    }
    const kept = texts.map((text) => known.get(text)!);
    return {
      vectors: kept.map(({ vector }) => vector),
      truncated: kept.flatMap(({ truncated }, i) => (truncated ? [i] : [])),
    };
  };
  return derived(base, base.fingerprint, {
    queries: (texts, options) => remember(queries, texts, (list, more) => base.embedQueries(list, more), options),
    documents: (texts, options) => remember(documents, texts, (list, more) => base.embedDocuments(list, more), options),
  });
}

/** `bound`, computed from the vectors of `base` where its context is a map of them: not where tokens have weights too. */
export function inContext(
  base: Embedder | undefined,
  bound: Embedder,
  { map, identity }: Pick<CorpusContext, "map" | "identity">,
): Embedder {
  if (!base || !map || identity.model !== base.fingerprint) return bound;
  const mapped = async ({ vectors, truncated }: Embeddings, options?: EmbedOptions): Promise<Embeddings> => ({
    vectors: await map.applyInTurns(vectors, options?.signal),
    truncated,
  });
  return derived(base, bound.fingerprint, {
    queries: async (texts, options) => mapped(await base.embedQueries(texts, options), options),
    documents: async (texts, options) => mapped(await base.embedDocuments(texts, options), options),
  });
}

/** Counts tokens like `encoder` and gives every text the same vector: for an index that is searched by words alone. */
export function wordsOnly(encoder: Pick<Embedder, "modelId" | "maxTokens" | "countTokens">): Embedder {
  const same = async (texts: readonly string[]): Promise<Embeddings> => ({
    vectors: texts.map(() => Float32Array.of(1)),
    truncated: [],
  });
  const { modelId, maxTokens } = encoder;
  const origin = {
    modelId,
    maxTokens,
    dimensions: 1,
    batchInvariant: true,
    ...(encoder.countTokens ? { countTokens: (text: string) => encoder.countTokens!(text) } : {}),
  };
  return derived(origin, "words only", { queries: same, documents: same });
}

interface Kept {
  readonly vector: Float32Array;
  readonly truncated: boolean;
}

type Embed = (texts: readonly string[], options?: EmbedOptions) => Promise<Embeddings>;

function derived(
  origin: Pick<Embedder, "modelId" | "dimensions" | "maxTokens" | "batchInvariant" | "countTokens">,
  fingerprint: string,
  { queries, documents }: { readonly queries: Embed; readonly documents: Embed },
): Embedder {
  const { modelId, dimensions, maxTokens, batchInvariant } = origin;
  return {
    modelId,
    dimensions,
    maxTokens,
    batchInvariant,
    fingerprint,
    ...(origin.countTokens ? { countTokens: (text: string) => origin.countTokens!(text) } : {}),
    embedQuery: async (text, options) => (await queries([text], options)).vectors[0]!,
    embedQueries: queries,
    embedDocuments: documents,
    async *embedStream(texts, options): AsyncGenerator<EmbeddedText> {
      let position = 0;
      for await (const text of texts) {
        const { vectors, truncated } = await documents([text], options);
        yield { position: position++, text, vector: vectors[0]!, truncated: truncated.length > 0 };
      }
    },
  };
}

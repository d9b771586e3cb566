/** What a collection says of itself when it is made, and what it has to say to be opened. */
import { readFileSync } from "node:fs";
import { type Embedder, FingerprintMismatchError, InvalidInputError } from "@cde-js/core";
import { type AnalyzerOptions, createAnalyzer, type JsonObject } from "@cde-js/retriever";
import {
  type CollectionRecord,
  type CollectionState,
  currentOf,
  type LexicalRecord,
  vectorNameOf,
  WORDS,
} from "./collection.js";
import { QdrantError } from "./errors.js";
import type { SpectralBase } from "./source.js";

/** Options of an analyzer, and what the caller knows of the corpus. */
export type LexicalOptions = AnalyzerOptions & {
  /** Terms of a passage on average. @default measured over the first 4,096 passages written */
  readonly averageLength?: number;
};

export function newRecord(
  name: string,
  embedder: Embedder,
  options: {
    readonly lexical: LexicalOptions | false | undefined;
    readonly base: SpectralBase | undefined;
    readonly tenants: boolean;
    readonly vectors: JsonObject;
  },
): CollectionRecord {
  const { lexical = {}, base, tenants, vectors } = options;
  return {
    format: "cde-qdrant/2",
    sdk: packageVersion(),
    name,
    modelId: embedder.modelId,
    contextFingerprint: embedder.fingerprint,
    dimensions: embedder.dimensions,
    vector: vectorNameOf(embedder.fingerprint),
    generation: 1,
    baseFingerprint: base?.embedder.fingerprint ?? null,
    lexical: lexical === false ? null : lexicalRecord(lexical),
    tenants,
    vectorParams: vectors,
    previous: null,
    migration: null,
  };
}

function lexicalRecord({ language, stopWords, stem, averageLength }: LexicalOptions): LexicalRecord {
  const analyzer: AnalyzerOptions = {
    ...(language === undefined ? {} : { language }),
    ...(stopWords === undefined ? {} : { stopWords: [...stopWords] }),
    ...(stem === undefined ? {} : { stem }),
  };
  if (averageLength !== undefined && !(averageLength > 0 && Number.isFinite(averageLength))) {
    throw new InvalidInputError(`create: lexical.averageLength must be above 0, got ${averageLength}.`);
  }
  return {
    analyzer,
    analyzerId: createAnalyzer(analyzer).id,
    k1: 0.9,
    b: 0.4,
    averageLength: averageLength ?? null,
  };
}

/** What `create` was asked for, against the collection that is there. */
export function requireAlike(name: string, there: CollectionRecord, wanted: CollectionRecord): void {
  const differs = (what: string, one: unknown, two: unknown): void => {
    if (one === two) return;
    throw new QdrantError(
      "QDRANT_COLLECTION",
      `create: the collection "${name}" is there and has ${what} ${String(one)}, asked for is ${String(two)}. ` +
        "Open it as it is, or make another one.",
    );
  };
  differs("tenants", there.tenants, wanted.tenants);
  differs("base vectors of", there.baseFingerprint ?? "nothing", wanted.baseFingerprint ?? "nothing");
  differs("the analyzer", there.lexical?.analyzerId ?? "none", wanted.lexical?.analyzerId ?? "none");
  const average = wanted.lexical?.averageLength;
  if (average != null) differs("an average length of", there.lexical?.averageLength ?? average, average);
}

export function requireEmbedder(operation: string, name: string, state: CollectionState, embedder: Embedder): void {
  const { record, vectors } = state;
  const { contextFingerprint, vector, modelId } = currentOf(record);
  if (contextFingerprint !== embedder.fingerprint) {
    throw new FingerprintMismatchError(
      contextFingerprint,
      embedder.fingerprint,
      `${operation}: the collection "${name}" answers for ${modelId}, fingerprint ${contextFingerprint}; the embedder is ` +
        `${embedder.modelId}, fingerprint ${embedder.fingerprint}. Their vectors are not comparable; open it with its own ` +
        "model and context, or move it with recontext.",
    );
  }
  const stored = vectors.get(vector);
  if (!stored) {
    throw new QdrantError("QDRANT_COLLECTION", `${operation}: the collection "${name}" has no vector "${vector}".`);
  }
  if (stored.size !== embedder.dimensions || record.dimensions !== embedder.dimensions) {
    throw new FingerprintMismatchError(
      String(stored.size),
      String(embedder.dimensions),
      `${operation}: the vector "${vector}" of "${name}" has ${stored.size} dimensions, the embedder of the same ` +
        `fingerprint has ${embedder.dimensions}. Build the collection again.`,
    );
  }
  if (stored.distance === "Cosine") return;
  throw new QdrantError(
    "QDRANT_COLLECTION",
    `${operation}: the vector "${vector}" of "${name}" has the distance ${stored.distance}, expected Cosine.`,
  );
}

/** What opening a collection takes, whoever made it. @throws FingerprintMismatchError, QdrantError, InvalidInputError */
export function requireOpenable(
  name: string,
  state: CollectionState,
  embedder: Embedder,
  { base, tenant }: { readonly base?: SpectralBase | false; readonly tenant?: string },
): void {
  const { record } = state;
  requireEmbedder("open", name, state, embedder);
  if (record.tenants !== (tenant !== undefined)) {
    const what = record.tenants
      ? "holds several tenants: say which with { tenant }"
      : "has no tenants: leave tenant out";
    throw new QdrantError("QDRANT_COLLECTION", `open: the collection "${name}" ${what}.`);
  }
  if (tenant === "") throw new InvalidInputError("open: the tenant is an empty string.");
  if (base && record.baseFingerprint !== base.embedder.fingerprint) {
    throw new FingerprintMismatchError(
      String(record.baseFingerprint),
      base.embedder.fingerprint,
      `open: the base vectors of "${name}" are ${record.baseFingerprint === null ? "not kept" : `of ${record.baseFingerprint}`}, ` +
        `base.embedder is ${base.embedder.fingerprint}. ${record.baseFingerprint === null ? "Leave base out" : "Pass the model that made them"}.`,
    );
  }
  if (record.lexical && state.sparse.get(WORDS) !== "idf") {
    throw new QdrantError(
      "QDRANT_COLLECTION",
      `open: the sparse vector "${WORDS}" of "${name}" has the modifier ${String(state.sparse.get(WORDS))}, expected idf.`,
    );
  }
}

/** Of this package: which code made a collection. */
function packageVersion(): string {
  const manifest = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

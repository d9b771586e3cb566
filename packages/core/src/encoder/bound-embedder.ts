/** An `Embedder`: tokenizer, prompts, and one second stage that is bound to a context. */
import type { CorpusContext, StageKind } from "../context/corpus-context.js";
import type { TokenWeights } from "../context/token-weights.js";
import { InvalidInputError } from "../errors.js";
import { checkTexts, type Tokenizer } from "../tokenizer/tokenizer.js";
import type { EmbeddedText, Embedder, Embeddings, EmbedOptions } from "./embedder.js";
import type { Stage } from "./loaded-model.js";
import { madeUnder, requireMadeUnder } from "./provenance.js";

/** How texts longer than the model reads are treated: cut at the end and reported, or refused. */
export type Truncation = "end" | "error";

export interface BoundEmbedderParts {
  readonly modelId: string;
  readonly dimensions: number;
  readonly maxTokens: number;
  readonly fingerprint: string;
  readonly batchInvariant: boolean;
  readonly tokenizer: Tokenizer;
  readonly queryPrompt: string;
  readonly documentPrompt: string;
  readonly truncation: Truncation;
  readonly encode: Stage["encode"];
  readonly stage: StageKind;
  readonly context: CorpusContext | undefined;
  readonly base: BoundEmbedder | undefined;
  readonly tokenWeights: TokenWeights | undefined;
  readonly bind: (context: CorpusContext) => BoundEmbedder;
  readonly unbind: () => BoundEmbedder;
  /** The sample that comes with the model, whatever embedder made it. */
  readonly otherCorpora: () => Promise<CorpusContext | undefined>;
}

/** How far texts' vectors lie apart in two contexts, as distances 1 − cosine: 0 not at all, 2 at most. */
export interface ContextEffect {
  readonly mean: number;
  readonly min: number;
  readonly max: number;
  /** Texts that moved by more than rounding does. 0 means that the context is not read. */
  readonly moved: number;
}

/** 1 − cosine below which a text counts as unmoved: rounding in float32 gives about 1e-13, any context 1e-4 and more. */
const ROUNDING = 1e-10;

/** Texts of a stream that are embedded together; enough for batches of like length, little enough to hold. */
const STREAM_SLICE = 1024;

export class BoundEmbedder implements Embedder {
  readonly modelId: string;
  readonly dimensions: number;
  readonly maxTokens: number;
  readonly fingerprint: string;
  readonly batchInvariant: boolean;
  readonly context: CorpusContext | undefined;
  readonly base: BoundEmbedder | undefined;
  readonly stage: StageKind;
  readonly tokenWeights: TokenWeights | undefined;
  readonly #parts: BoundEmbedderParts;

  constructor(parts: BoundEmbedderParts) {
    this.#parts = parts;
    this.modelId = parts.modelId;
    this.dimensions = parts.dimensions;
    this.maxTokens = parts.maxTokens;
    this.fingerprint = parts.fingerprint;
    this.batchInvariant = parts.batchInvariant;
    this.context = parts.context;
    this.base = parts.base;
    this.stage = parts.stage;
    this.tokenWeights = parts.tokenWeights;
  }

  /** The same model and options with another context. Raises FingerprintMismatchError for one of another model. */
  withContext(context: CorpusContext): BoundEmbedder {
    return this.#parts.bind(context);
  }

  /** The same model and options without context. Raises NoNullContextError where it has no such form. */
  withoutContext(): BoundEmbedder {
    return this.#parts.unbind();
  }

  /** Raises CorruptFileError for a damaged file. The model run in another way (`maxTokens`, `dtype`, prompts) has none. */
  async otherCorpora(): Promise<CorpusContext | undefined> {
    const found = await this.#parts.otherCorpora();
    // The vectors of another kind of context are those of a first stage, which no embedder gives.
    return found?.identity.model === this.fingerprint && found.stage === "spectral" ? found : undefined;
  }

  countTokens(text: string): number {
    checkTexts("countTokens", [text]);
    return this.#parts.tokenizer.countTokens(this.#parts.documentPrompt + text);
  }

  async embedQuery(text: string, options: { signal?: AbortSignal } = {}): Promise<Float32Array> {
    if (typeof text !== "string")
      throw new InvalidInputError(`embedQuery: the query must be a string, got ${typeof text}.`);
    const { vectors } = await this.#embed("embedQuery", [text], this.#parts.queryPrompt, options);
    return vectors[0]!;
  }

  embedQueries(texts: readonly string[], options: EmbedOptions = {}): Promise<Embeddings> {
    return this.#embed("embedQueries", texts, this.#parts.queryPrompt, options);
  }

  embedDocuments(texts: readonly string[], options: EmbedOptions = {}): Promise<Embeddings> {
    return this.#embed("embedDocuments", texts, this.#parts.documentPrompt, options);
  }

  /** Reads 1,024 texts ahead, and no more until their vectors were taken. */
  async *embedStream(
    texts: AsyncIterable<string> | Iterable<string>,
    options: { signal?: AbortSignal } = {},
  ): AsyncGenerator<EmbeddedText, void, undefined> {
    let start = 0;
    let slice: string[] = [];
    const embedSlice = async () => {
      const prompt = this.#parts.documentPrompt;
      const { vectors, truncated } = await this.#embed("embedStream", slice, prompt, options, start);
      const cut = new Set(truncated);
      const first = start;
      start += slice.length;
      return slice.map((text, i) => ({ position: first + i, text, vector: vectors[i]!, truncated: cut.has(i) }));
    };
    options.signal?.throwIfAborted();
    for await (const text of texts) {
      options.signal?.throwIfAborted();
      slice.push(text);
      if (slice.length === STREAM_SLICE) {
        yield* await embedSlice();
        slice = [];
      }
    }
    if (slice.length > 0) yield* await embedSlice();
  }

  /**
   * Cosine of two of this embedder's vectors, −1 to 1. Raises InvalidInputError for one of another dimension or without
   * a direction, and FingerprintMismatchError for one that another embedder of this process returned.
   */
  similarity(a: Float32Array, b: Float32Array): number {
    if (a.length !== this.dimensions || b.length !== this.dimensions) {
      throw new InvalidInputError(
        `similarity: this embedder's vectors have ${this.dimensions} dimensions, got ${a.length} and ${b.length}.`,
      );
    }
    for (const vector of [a, b]) requireMadeUnder("similarity", this.fingerprint, vector);
    const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
    const lengths = Math.sqrt(dot(a, a)) * Math.sqrt(dot(b, b));
    if (lengths > 0 && lengths < Number.POSITIVE_INFINITY) return dot(a, b) / lengths;
    throw new InvalidInputError(
      "similarity: a vector is zero everywhere, or holds NaN or Infinity: it has no direction.",
    );
  }

  /**
   * How much `texts`, embedded as documents, move between the context of `against` and this one's: a check that the
   * context is read at all. Raises InvalidInputError where both have one fingerprint, or other dimensions.
   */
  async effect(
    texts: readonly string[],
    { against, signal }: { against: Embedder; signal?: AbortSignal },
  ): Promise<ContextEffect> {
    if (against.fingerprint === this.fingerprint) {
      throw new InvalidInputError(
        `effect: both embedders have the fingerprint ${this.fingerprint.slice(0, 12)}, so their vectors are equal. Pass one that is bound to another context, or to none.`,
      );
    }
    if (against.dimensions !== this.dimensions) {
      throw new InvalidInputError(
        `effect: this embedder's vectors have ${this.dimensions} dimensions, the other's ${against.dimensions}. Compare two contexts of one model.`,
      );
    }
    if (texts.length === 0) throw new InvalidInputError("effect: got no texts. Pass some of the corpus.");
    const options = signal ? { signal } : {};
    const { vectors: here } = await this.#embed("effect", texts, this.#parts.documentPrompt, options);
    const { vectors: there } = await against.embedDocuments(texts, options);
    // |a − b|² / 2 is 1 − cosine of unit vectors, without the cancellation.
    const distances = here.map((a, i) => a.reduce((sum, value, k) => sum + (value - there[i]![k]!) ** 2, 0) / 2);
    return {
      mean: distances.reduce((sum, distance) => sum + distance, 0) / distances.length,
      min: distances.reduce((least, distance) => Math.min(least, distance), Number.POSITIVE_INFINITY),
      max: distances.reduce((most, distance) => Math.max(most, distance), 0),
      moved: distances.filter((distance) => distance > ROUNDING).length,
    };
  }

  async #embed(
    operation: string,
    texts: readonly string[],
    prompt: string,
    options: EmbedOptions,
    firstPosition = 0,
  ): Promise<Embeddings> {
    const { tokenizer, maxTokens, truncation, encode } = this.#parts;
    const { ids, truncated } = await tokenizer.encodeBatch(texts, {
      maxTokens,
      prompt,
      truncation,
      operation,
      firstPosition,
      ...(options.signal && { signal: options.signal }),
    });
    return { vectors: madeUnder(this.fingerprint, await encode(ids, options)), truncated };
  }
}

/** LangChain's `Embeddings` over an `Embedder`: every vector it gives belongs to one context. */
import {
  type BindOptions,
  type BuildContextOptions,
  type ContextualEncoder,
  type CorpusContext,
  contextualize,
  type Embedder,
  type EmbedFunction,
  type EmbedProgress,
  type FunctionEmbedder,
  InvalidInputError,
  openContextualized,
  type SpectralStrength,
} from "@cde-js/core";
import type { DocumentInterface } from "@langchain/core/documents";
import { Embeddings, type EmbeddingsInterface } from "@langchain/core/embeddings";
import { sampleTexts } from "./sample-texts.js";

/** Texts of one call that were longer than the model reads and were cut at the end. */
export interface TruncatedTexts {
  readonly kind: "query" | "document";
  /** In the call's list, ascending. */
  readonly positions: readonly number[];
  readonly texts: readonly string[];
}

export interface ContextualEmbeddingsOptions {
  /** Called once for every call that cut texts. `truncatedCount` counts them either way. */
  readonly onTruncated?: (cut: TruncatedTexts) => void;
}

export interface ChooseContextOptions {
  /** Context documents drawn, fewer where the corpus has fewer. @default what the model needs exactly, else 512 */
  readonly size?: number;
  /** Of the draw. Equal texts and seeds give equal contexts, whatever the order of the texts. @default 0 */
  readonly seed?: number;
  /** Strength of a spectral context; "auto" chooses it for the corpus. @default "auto" */
  readonly strength?: SpectralStrength | "off" | "auto";
  readonly signal?: AbortSignal;
}

export interface FromTextsOptions extends ChooseContextOptions, ContextualEmbeddingsOptions, BindOptions {
  /** Whether tokens count by how rare they are in the corpus. @default as `buildContext` has it: chosen with the strength */
  readonly tokenWeights?: NonNullable<BuildContextOptions["tokenWeights"]>;
  /** Where the model needs more context documents than there are texts: repeat some. @default false */
  readonly repeat?: boolean;
  readonly onProgress?: (progress: EmbedProgress) => void;
}

export interface OpenWrappedOptions {
  /** Names the model, its version included: fingerprints stand on it, since its weights can't be seen. */
  readonly modelId: string;
  readonly signal?: AbortSignal;
}

export interface WrapOptions extends ChooseContextOptions, OpenWrappedOptions {
  readonly onProgress?: (progress: EmbedProgress) => void;
}

/** A context that was chosen here, and how it is saved. */
interface ChosenContext {
  readonly context: CorpusContext;
  readonly save: (path: string) => Promise<void>;
}

const DEFAULT_SIZE = 512;

/**
 * Documents and queries get the prompts of the model and the context of the corpus. Gives plain `number[]`, because
 * LangChain's stores send vectors as JSON. Never retries: what fails here fails again.
 */
export class ContextualEmbeddings extends Embeddings {
  readonly embedder: Embedder;
  readonly modelId: string;
  readonly dimensions: number;
  /** sha256 (hex) of the model and context: vectors of two fingerprints are not comparable. */
  readonly fingerprint: string;
  /**
   * For `CacheBackedEmbeddings` and for record managers, which know nothing of a context: with it as (part of) the
   * namespace no vector of another context is ever taken for one of this. Letters, digits and hyphens, so that it can be
   * the name of a file.
   */
  readonly cacheNamespace: string;
  /** The context that `fromDocuments`, `fromTexts` or `wrap` chose; undefined for a given embedder. */
  readonly context: CorpusContext | undefined;
  readonly #saveContext: ((path: string) => Promise<void>) | undefined;
  readonly #onTruncated: ContextualEmbeddingsOptions["onTruncated"];
  #truncatedCount = 0;

  constructor(embedder: Embedder, options: ContextualEmbeddingsOptions & { readonly chosen?: ChosenContext } = {}) {
    super({ maxRetries: 0 });
    this.embedder = embedder;
    this.modelId = embedder.modelId;
    this.dimensions = embedder.dimensions;
    this.fingerprint = embedder.fingerprint;
    this.cacheNamespace = `cde-${embedder.fingerprint}-`;
    this.context = options.chosen?.context;
    this.#saveContext = options.chosen?.save;
    this.#onTruncated = options.onTruncated;
  }

  /** Texts cut since this object was made, queries and documents. */
  get truncatedCount(): number {
    return this.#truncatedCount;
  }

  /** Draws the context from the documents' texts, builds it and binds the encoder to it. See `fromTexts`. */
  static fromDocuments(
    documents: Iterable<DocumentInterface>,
    encoder: Pick<ContextualEncoder, "buildContext" | "withContext" | "contextSize">,
    options: FromTextsOptions = {},
  ): Promise<ContextualEmbeddings> {
    return ContextualEmbeddings.fromTexts(
      Array.from(documents, ({ pageContent }) => pageContent),
      encoder,
      options,
    );
  }

  /**
   * Draws the context from the texts, builds it and binds the encoder to it. Reads the texts once and embeds only the
   * sample. With `saveContext` the context can be bound again when the corpus has changed:
   * `new ContextualEmbeddings(encoder.withContext(await CorpusContext.load(path)))`. Another sample is another context.
   *
   * @throws InvalidInputError for no texts, or fewer than the model needs without `repeat`
   */
  static async fromTexts(
    texts: Iterable<string>,
    encoder: Pick<ContextualEncoder, "buildContext" | "withContext" | "contextSize">,
    options: FromTextsOptions = {},
  ): Promise<ContextualEmbeddings> {
    const { size = encoder.contextSize ?? DEFAULT_SIZE, seed = 0, truncation, onTruncated, ...build } = options;
    const sample = draw("fromTexts", texts, size, seed);
    const context = await encoder.buildContext(sample, { seed, ...build });
    const embedder = encoder.withContext(context, truncation === undefined ? {} : { truncation });
    return new ContextualEmbeddings(embedder, {
      chosen: { context, save: (path) => context.save(path) },
      ...(onTruncated ? { onTruncated } : {}),
    });
  }

  /**
   * Any LangChain embedding model made contextual: a sample of `documents` is embedded once, a spectral context is
   * made of it, and every vector is normalised and mapped by that. What the model cuts, it doesn't say.
   *
   * @throws InvalidInputError for fewer than 2 texts, EmbedFunctionError for vectors that can't be used
   */
  static async wrap(
    embeddings: EmbeddingsInterface,
    documents: Iterable<string | DocumentInterface>,
    options: WrapOptions,
  ): Promise<ContextualEmbeddings> {
    const { size = DEFAULT_SIZE, seed = 0, ...rest } = options;
    const texts = Array.from(documents, (document) => (typeof document === "string" ? document : document.pageContent));
    const embedder = await contextualize(embedFunction(embeddings), draw("wrap", texts, size, seed), { size, ...rest });
    return ofFunction(embedder);
  }

  /**
   * `wrap` with a context that `saveContext` wrote: embeds its probe text, nothing else.
   *
   * @throws MissingFileError, CorruptFileError; FingerprintMismatchError for another model's name; ModelChangedError
   * where the name is the same and the model isn't
   */
  static async openWrapped(
    embeddings: EmbeddingsInterface,
    path: string,
    options: OpenWrappedOptions,
  ): Promise<ContextualEmbeddings> {
    return ofFunction(await openContextualized(embedFunction(embeddings), path, options));
  }

  /** Writes the context that was chosen to one file: for `CorpusContext.load`, or of a wrapped model for `openWrapped`. */
  async saveContext(path: string): Promise<void> {
    if (this.#saveContext) return this.#saveContext(path);
    throw new InvalidInputError(
      "saveContext: these embeddings were made from an embedder and chose no context. Save the one that it is bound to.",
    );
  }

  async embedQuery(document: string): Promise<number[]> {
    // By the list, because only that says what was cut.
    const { vectors, truncated } = await this.embedder.embedQueries([document]);
    this.#report("query", [document], truncated);
    return Array.from(vectors[0] as Float32Array);
  }

  async embedDocuments(documents: string[]): Promise<number[][]> {
    const { vectors, truncated } = await this.embedder.embedDocuments(documents);
    this.#report("document", documents, truncated);
    return vectors.map((vector) => Array.from(vector));
  }

  #report(kind: TruncatedTexts["kind"], texts: readonly string[], positions: readonly number[]): void {
    if (positions.length === 0) return;
    this.#truncatedCount += positions.length;
    this.#onTruncated?.({ kind, positions, texts: positions.map((position) => texts[position] as string) });
  }
}

function ofFunction(embedder: FunctionEmbedder): ContextualEmbeddings {
  // Its context's own save would leave out the probe.
  const chosen = { context: embedder.context, save: (path: string) => embedder.saveContext(path) };
  return new ContextualEmbeddings(embedder, { chosen });
}

function embedFunction(embeddings: EmbeddingsInterface): EmbedFunction {
  return (texts, { kind }) =>
    kind === "document"
      ? embeddings.embedDocuments([...texts])
      : Promise.all(texts.map((text) => embeddings.embedQuery(text)));
}

function draw(operation: string, texts: Iterable<string>, size: number, seed: number): string[] {
  if (!Number.isSafeInteger(size) || size < 1) {
    throw new InvalidInputError(`${operation}: size must be an integer of at least 1, got ${size}.`);
  }
  const sample = sampleTexts(texts, size, seed);
  if (sample.length > 0) return sample;
  throw new InvalidInputError(`${operation}: got no text to draw a context from. Pass the corpus, or a part of it.`);
}

/** A corpus context for any embedding model: a function from texts to vectors becomes an `Embedder` of one corpus. */
import { type CorpusContext, textDigest } from "../context/corpus-context.js";
import { checkStrength, type SpectralMap, type SpectralStrength } from "../context/spectral-map.js";
import { Spectrum } from "../context/spectrum.js";
import { CdeError, FingerprintMismatchError, InvalidInputError } from "../errors.js";
import { createRandom } from "../random.js";
import { calibrateStrength, packed, planCalibration } from "./calibrate.js";
import { type BatchOptions, type EmbedFunction, embedByFunction } from "./embed-function.js";
import type { EmbeddedText, Embedder, Embeddings, EmbedOptions, EmbedProgress } from "./embedder.js";
import {
  functionContext,
  loadFunctionContext,
  modelDigest,
  type Probe,
  saveFunctionContext,
} from "./function-context.js";
import { madeUnder } from "./provenance.js";

export interface FunctionModel extends BatchOptions {
  /**
   * Names the model behind the function: all that changes its vectors (name, version, prompts, truncation) belongs in
   * it, since nothing else of it can be seen.
   */
  readonly modelId: string;
  /** Refuses vectors of any other dimension. @default that of the first vector */
  readonly dimensions?: number;
  /** Longest input in tokens. @default Infinity: not known */
  readonly maxTokens?: number;
  /** Tokens of a text, if they can be counted here; an index splits texts by them. */
  readonly countTokens?: (text: string) => number;
}

export interface ContextualizeOptions extends FunctionModel {
  /**
   * "auto" chooses it for this corpus by pseudo-queries made from the documents: at most 1,000 further short texts go
   * through the function (see `Calibration`).
   * @default "auto"
   */
  readonly strength?: SpectralStrength | "off" | "auto";
  /** Documents that the context is made from; of more, so many are drawn at random. At least 2. @default 512 */
  readonly size?: number;
  /** Seed of that draw, and of the pseudo-queries of "auto". @default 0 */
  readonly seed?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: EmbedProgress) => void;
}

/** A model that is known by name only gives another vector for the probe than when the context was made. */
export class ModelChangedError extends CdeError {
  readonly modelId: string;
  /** Cosine of the probe's vectors then and now. */
  readonly similarity: number;

  constructor(modelId: string, similarity: number, message: string) {
    super("MODEL_CHANGED", message);
    this.modelId = modelId;
    this.similarity = similarity;
  }
}

/** One model on two machines agrees to five digits; another version of it is far below. */
const LEAST_PROBE_SIMILARITY = 0.999;
/** Two sentences, a number and a word of another language: what tokenizers and models differ in. */
const PROBE_TEXT = "The tenant pays for flood damage. Der Vermieter repariert das Dach within 30 days.";

/**
 * Makes a context from documents of a corpus, embeds through `embed`, and maps what it gives by that context.
 *
 * Blank documents are passed over. The vectors of `embed` are brought to unit length, so only their direction counts.
 * The function decides about texts that are too long: nothing is reported as truncated.
 *
 * @example
 * const embedder = await contextualize(embed, texts, { modelId: "my-model-2" });
 * await embedder.saveContext("corpus.context"); // and later: openContextualized(embed, "corpus.context", { modelId })
 *
 * @throws InvalidInputError for fewer than 2 documents, EmbedFunctionError (with the position) for what `embed` gives
 */
export async function contextualize(
  embed: EmbedFunction,
  documents: AsyncIterable<string> | Iterable<string>,
  options: ContextualizeOptions,
): Promise<FunctionEmbedder> {
  const { modelId, strength: asked = "auto", size = 512, seed = 0, signal, onProgress } = options;
  requireModelId("contextualize", modelId);
  if (asked !== "auto") checkStrength(asked); // before the work
  if (!Number.isSafeInteger(size) || size < 2) {
    throw new InvalidInputError(`contextualize: size must be an integer of at least 2, got ${size}.`);
  }
  const { texts, positions } = await draw(documents, size, seed, signal);
  if (texts.length < 2) {
    throw new InvalidInputError(
      `contextualize: a context needs at least 2 documents that aren't blank, got ${texts.length}. Pass a sample of the corpus.`,
    );
  }
  const { batchSize, maxConcurrency } = options;
  const call = { operation: "contextualize", kind: "document" as const, signal, ...limits(batchSize, maxConcurrency) };
  const [probeVector] = await embedByFunction(embed, [PROBE_TEXT], { ...call, dimensions: options.dimensions });
  const dimensions = probeVector!.length;
  const positionOf = (index: number): number => positions[index]!;
  const plan = planCalibration(asked === "auto" ? texts : [], seed);
  const progressFrom = (before: number) => ({
    onProgress: ({ done }: EmbedProgress) => onProgress?.({ done: before + done, total: texts.length + plan.texts }),
  });
  const vectors = packed(await embedByFunction(embed, texts, { ...call, dimensions, positionOf, ...progressFrom(0) }));
  const spectrum = await Spectrum.fit({ rows: vectors, dimensions });
  const embedPseudo = (kind: "query" | "document", pseudo: readonly string[], before: number) =>
    embedByFunction(embed, pseudo, { ...call, kind, dimensions, ...progressFrom(texts.length + before) });
  const calibration =
    asked === "auto"
      ? await calibrateStrength({ plan, bases: [{ spectrum, vectors }], signal, embed: embedPseudo })
      : undefined;
  const strength = asked === "auto" ? calibration!.strength : asked;
  const digests = texts.map(textDigest);
  const context = await functionContext({ modelId, strength, texts: digests, vectors, spectrum, calibration });
  return new FunctionEmbedder(embed, context, { text: PROBE_TEXT, vector: probeVector! }, options);
}

/**
 * The embedder of a context that `saveContext` wrote. Embeds the context's probe text once and compares.
 *
 * @throws MissingFileError, CorruptFileError; FingerprintMismatchError for another model's name or dimension;
 * ModelChangedError where the name is the same and the model isn't (cosine of the probe below 0.999)
 */
export async function openContextualized(
  embed: EmbedFunction,
  path: string,
  options: FunctionModel & { readonly signal?: AbortSignal },
): Promise<FunctionEmbedder> {
  const { modelId, signal, batchSize, maxConcurrency } = options;
  const operation = "openContextualized";
  requireModelId(operation, modelId);
  const { context, probe } = await loadFunctionContext(path);
  const { dimensions = context.dimensions } = options;
  if (modelId !== context.modelId) {
    throw new FingerprintMismatchError(
      modelDigest(modelId, dimensions),
      context.identity.model,
      `${operation}: ${path} is a context of ${context.modelId}, this model is ${modelId}. Their vectors are not comparable; build a context for this one.`,
    );
  }
  const call = { operation, kind: "document" as const, signal, ...limits(batchSize, maxConcurrency) };
  const [now] = await embedByFunction(embed, [probe.text], call);
  if (now!.length !== context.dimensions || dimensions !== context.dimensions) {
    const found = now!.length === context.dimensions ? dimensions : now!.length;
    throw new FingerprintMismatchError(
      modelDigest(modelId, found),
      context.identity.model,
      `${operation}: the context has ${context.dimensions} dimensions, ${modelId} has ${found}. ${REMEDY}`,
    );
  }
  const similarity = now!.reduce((sum, value, i) => sum + value * probe.vector[i]!, 0);
  if (!(similarity >= LEAST_PROBE_SIMILARITY)) {
    throw new ModelChangedError(
      modelId,
      similarity,
      `${operation}: ${modelId} gives another vector for the probe text than when the context was made (cosine ${similarity.toFixed(4)}, at least ${LEAST_PROBE_SIMILARITY} is expected). ${REMEDY}`,
    );
  }
  return new FunctionEmbedder(embed, context, probe, options);
}

const REMEDY =
  "The model behind that name has changed, and its vectors are not comparable: build context and index again.";

/** An `Embedder` over somebody's function, bound to one context. Made by `contextualize`. */
export class FunctionEmbedder implements Embedder {
  readonly modelId: string;
  readonly dimensions: number;
  readonly maxTokens: number;
  readonly fingerprint: string;
  /** The function is trusted in this. */
  readonly batchInvariant = true;
  readonly stage = "spectral";
  /** Its own `save` leaves out the probe; use `saveContext`. */
  readonly context: CorpusContext;
  readonly countTokens?: (text: string) => number;
  readonly #embed: EmbedFunction;
  readonly #probe: Probe;
  readonly #map: SpectralMap;
  readonly #options: FunctionModel;

  /** @internal */
  constructor(embed: EmbedFunction, context: CorpusContext, probe: Probe, options: FunctionModel) {
    this.#embed = embed;
    this.#probe = probe;
    this.#options = options;
    this.#map = context.map!;
    this.context = context;
    this.modelId = context.modelId;
    this.dimensions = context.dimensions;
    this.fingerprint = context.fingerprint;
    this.maxTokens = options.maxTokens ?? Number.POSITIVE_INFINITY;
    if (options.countTokens) this.countTokens = options.countTokens;
  }

  /** What gives base vectors; undefined where this does. */
  get base(): FunctionEmbedder | undefined {
    return this.context.identity.strength === "off" ? undefined : this.withStrength("off");
  }

  /** The same function with another context of its vectors. Raises FingerprintMismatchError for one of another model. */
  withContext(context: CorpusContext): FunctionEmbedder {
    context.requireModel("withContext", modelDigest(this.modelId, this.dimensions));
    return new FunctionEmbedder(this.#embed, context, this.#probe, this.#options);
  }

  /** The same context at another strength; "off" gives base vectors, which `remap` takes. Nothing is embedded again. */
  withStrength(strength: SpectralStrength | "off"): FunctionEmbedder {
    return new FunctionEmbedder(this.#embed, this.context.withStrength(strength), this.#probe, this.#options);
  }

  /** Writes context and probe to one file, wholly or not at all, for `openContextualized`. */
  saveContext(path: string): Promise<void> {
    return saveFunctionContext(path, { context: this.context, probe: this.#probe });
  }

  async embedQuery(text: string, options: { signal?: AbortSignal } = {}): Promise<Float32Array> {
    return (await this.#run("embedQuery", "query", [text], options))[0]!;
  }

  async embedQueries(texts: readonly string[], options: EmbedOptions = {}): Promise<Embeddings> {
    return { vectors: await this.#run("embedQueries", "query", texts, options), truncated: [] };
  }

  async embedDocuments(texts: readonly string[], options: EmbedOptions = {}): Promise<Embeddings> {
    return { vectors: await this.#run("embedDocuments", "document", texts, options), truncated: [] };
  }

  async *embedStream(
    texts: AsyncIterable<string> | Iterable<string>,
    options: { signal?: AbortSignal } = {},
  ): AsyncGenerator<EmbeddedText, void, undefined> {
    const { batchSize = 64, maxConcurrency = 2 } = this.#options;
    let first = 0;
    let slice: string[] = [];
    const embedSlice = async (): Promise<EmbeddedText[]> => {
      const vectors = await this.#run("embedStream", "document", slice, options);
      return slice.map((text, i) => ({ position: first + i, text, vector: vectors[i]!, truncated: false }));
    };
    for await (const text of texts) {
      slice.push(text);
      if (slice.length < batchSize * maxConcurrency) continue;
      yield* await embedSlice();
      first += slice.length;
      slice = [];
    }
    if (slice.length > 0) yield* await embedSlice();
  }

  async #run(
    operation: string,
    kind: "query" | "document",
    texts: readonly string[],
    options: EmbedOptions,
  ): Promise<Float32Array[]> {
    const { batchSize, maxConcurrency } = this.#options;
    const call = { operation, kind, dimensions: this.dimensions, ...limits(batchSize, maxConcurrency), ...options };
    const base = await embedByFunction(this.#embed, texts, call);
    return madeUnder(this.fingerprint, await this.#map.applyInTurns(base, options.signal));
  }
}

function limits(batchSize: number | undefined, maxConcurrency: number | undefined): BatchOptions {
  return {
    ...(batchSize === undefined ? {} : { batchSize }),
    ...(maxConcurrency === undefined ? {} : { maxConcurrency }),
  };
}

function requireModelId(operation: string, modelId: unknown): void {
  if (typeof modelId === "string" && modelId.trim() !== "") return;
  throw new InvalidInputError(
    `${operation}: { modelId } must name the model: vectors of two models are told apart by nothing else.`,
  );
}

/** `size` documents that aren't blank, each equally likely (Vitter 1985, algorithm R); all of them where fewer are. */
async function draw(
  documents: AsyncIterable<string> | Iterable<string>,
  size: number,
  seed: number,
  signal: AbortSignal | undefined,
): Promise<{ texts: string[]; positions: number[] }> {
  const random = createRandom(seed);
  const texts: string[] = [];
  const positions: number[] = [];
  let [position, seen] = [-1, 0];
  for await (const text of documents) {
    signal?.throwIfAborted();
    position++;
    if (typeof text !== "string") {
      const message = `contextualize: the document at position ${position} is ${typeof text}, expected a string.`;
      throw new InvalidInputError(message, { position });
    }
    if (text.trim() === "") continue;
    const at = texts.length < size ? texts.length : random.integer(seen + 1);
    seen++;
    if (at >= size) continue;
    texts[at] = text;
    positions[at] = position;
  }
  return { texts, positions };
}

/** The encoder: loads a model, builds contexts with its first stage, and binds them to embedders. */
import { CorpusContext, contextFingerprint, isSpectral, textDigest } from "../context/corpus-context.js";
import { checkStrength, DEFAULT_STRENGTH, type SpectralStrength } from "../context/spectral-map.js";
import { Spectrum } from "../context/spectrum.js";
import { checkSmoothing, DEFAULT_SMOOTHING, TokenWeights } from "../context/token-weights.js";
import { CdeError, InvalidInputError } from "../errors.js";
import { isTwoStageDirectory, readTwoStageDirectory } from "../model/checkpoint.js";
import { type Pooling, readModelDirectory } from "../model/model-directory.js";
import { newSecondStage, readSecondStage, SECOND_STAGE_FILE, type SecondStage } from "../model/second-stage.js";
import type { TwoStagePreset } from "../model/two-stage.js";
import { createRandom } from "../random.js";
import { Runtime, type RuntimeOptions } from "../runtime/runtime.js";
import { checkTexts } from "../tokenizer/tokenizer.js";
import { BoundEmbedder, type Truncation } from "./bound-embedder.js";
import { type CalibrationBase, calibrateStrength, packed, packedPart, planCalibration } from "./calibrate.js";
import type { Embedder, EmbedProgress } from "./embedder.js";
import { loadBiencoder } from "./load-biencoder.js";
import { loadPrefix } from "./load-prefix.js";
import { loadTwoStage } from "./load-two-stage.js";
import type { LoadedModel, NumberForm, Stage } from "./loaded-model.js";
import { type HubOptions, type LoadProgress, locateModel } from "./model-source.js";
import { otherCorporaOf } from "./other-corpora.js";
import type { PromptNames } from "./prompts.js";

export interface LoadOptions extends HubOptions {
  /** Execution provider, device and threads of the worker that this encoder starts. */
  readonly runtime?: RuntimeOptions;
  /**
   * The numbers to run in. float32 weights can be run in any form, int8 weights only as int8.
   * @default the form that the weights are stored in
   */
  readonly dtype?: NumberForm;
  /** Longest input in tokens, from 3 to what the model has positions for. @default what the model was made for */
  readonly maxTokens?: number;
  /** Which of the model's prompts stand before queries, and before documents and context documents. */
  readonly prompts?: PromptNames;
  /**
   * For two-stage checkpoints: which function of the same weights is meant.
   * @default "v1-train" for cde-small-v1, "v2" for cde-small-v2
   */
  readonly preset?: TwoStagePreset;
  /** For two-stage checkpoints that came without tokenizer.json: a directory that holds it. */
  readonly tokenizer?: string;
  /** For a Hugging Face directory without modules.json, which doesn't say how its vectors are pooled. */
  readonly pooling?: Pooling;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: LoadProgress) => void;
}

export interface FromBiencoderOptions extends LoadOptions {
  readonly secondStage: SecondStage;
}

export interface BuildContextOptions {
  /**
   * Where the model reads an exact number of context documents and fewer are given: draw the missing ones from those
   * given, each about equally often. @default false
   */
  readonly repeat?: boolean;
  /** Seed of that draw, and of the pseudo-queries of "auto". @default 0 */
  readonly seed?: number;
  /**
   * Strength of a spectral context. "auto" chooses it for this corpus by pseudo-queries made from the documents, which
   * embeds at most 1,000 further short texts (see `Calibration`); after a prefix stage it is DEFAULT_STRENGTH.
   * @default "auto"
   */
  readonly strength?: SpectralStrength | "off" | "auto";
  /**
   * Whether a text's tokens count in its mean by how rare they are in the corpus (`TokenWeights`), for spectral contexts
   * of models that pool by the mean. "auto" chooses between "off" and a smoothing of DEFAULT_SMOOTHING, together with the
   * strength and by the same pseudo-queries. Base vectors depend on the weights, so another context that is to act on
   * stored ones must keep them.
   * @default "auto" where the strength is, "off" elsewhere
   */
  readonly tokenWeights?: { readonly smoothing: number } | "off" | "auto";
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: EmbedProgress) => void;
}

export interface BindOptions {
  /** Texts longer than `maxTokens`: cut at the end and reported, or refused. @default "end" */
  readonly truncation?: Truncation;
}

/** An encoder was asked for vectors without context, and its model was never trained to give any. */
export class NoNullContextError extends CdeError {
  constructor(message: string) {
    super("NO_NULL_CONTEXT", message);
  }
}

/**
 * A loaded model. It never changes. It embeds nothing itself: `withContext` and `withoutContext` give the `Embedder`s
 * that do. `dispose()` ends its worker thread; an idle encoder doesn't keep the process alive.
 */
export class ContextualEncoder implements AsyncDisposable {
  readonly #model: LoadedModel;
  readonly #runtime: Runtime;
  readonly #otherCorpora: () => Promise<CorpusContext | undefined>;

  private constructor(model: LoadedModel, runtime: Runtime, directory: string) {
    this.#model = model;
    this.#runtime = runtime;
    this.#otherCorpora = otherCorporaOf(directory);
  }

  /**
   * Loads a model from a directory in the form of sentence-transformers or Hugging Face, or, where there is no such
   * directory, from the hub's repository `organisation/name` by way of the shared cache. Raises MissingFileError,
   * CorruptFileError, HubError, or ModelError for what this version can't run; nothing stays open then. A biencoder whose
   * directory says nothing else in `cde.json` gets a spectral context.
   *
   * @example
   * const encoder = await ContextualEncoder.load("jxm/cde-small-v2", { revision: "main", signal });
   */
  static async load(source: string, options: LoadOptions = {}): Promise<ContextualEncoder> {
    return ContextualEncoder.#open(source, options);
  }

  /**
   * Makes any biencoder contextual. The tensors that a prefix stage adds are made in memory, from its seed; no file is
   * written. Raises InvalidInputError for a model that names a second stage already, and what `load` raises.
   */
  static async fromBiencoder(source: string, options: FromBiencoderOptions): Promise<ContextualEncoder> {
    return ContextualEncoder.#open(source, options, options.secondStage);
  }

  static async #open(source: string, options: LoadOptions, secondStage?: SecondStage): Promise<ContextualEncoder> {
    options.signal?.throwIfAborted();
    const { directory, modelId } = await locateModel(source, options);
    const open = await modelAt(directory, modelId, options, secondStage);
    const runtime = await Runtime.start(options.runtime);
    try {
      return new ContextualEncoder(await open(runtime), runtime, directory);
    } catch (error) {
      await runtime.dispose();
      throw error;
    }
  }

  get modelId(): string {
    return this.#model.modelId;
  }

  get dimensions(): number {
    return this.#model.dimensions;
  }

  get maxTokens(): number {
    return this.#model.maxTokens;
  }

  /** sha256 (hex) of all that determines vectors without context. */
  get fingerprint(): string {
    return this.#model.fingerprint;
  }

  /** Tensors of the checkpoint that nothing read, by name; those known to be left over in published files aside. */
  get unusedTensors(): readonly string[] {
    return this.#model.unusedTensors;
  }

  /** Tokens that `text` takes as a document, special tokens and prompt included, before any cut. */
  countTokens(text: string): number {
    checkTexts("countTokens", [text]);
    return this.#model.tokenizer.countTokens(this.#model.prompts.document + text);
  }

  /** The number of context documents that the model reads exactly; undefined where any number will do. */
  get contextSize(): number | undefined {
    return this.#model.contextSize;
  }

  /**
   * Runs the first stage over exactly the documents given, once per corpus. Which documents stand for a corpus best is
   * the retriever's to choose. Their order determines the fingerprint, and, in the paper's models, the vectors. Chunks
   * grouped by document (`string[][]`) count one by one, in order: what is embedded later are chunks too. Documents
   * longer than the model reads are cut at the end; `context.truncated` lists them. Raises InvalidInputError where their
   * number doesn't suit the model.
   */
  async buildContext(
    documents: readonly string[] | readonly (readonly string[])[],
    options: BuildContextOptions = {},
  ): Promise<CorpusContext> {
    const { signal, onProgress, strength: asked = "auto", seed = 0 } = options;
    const model = this.#model;
    const spectral = isSpectral(model.stageKind);
    if (!spectral && options.strength !== undefined) {
      throw new InvalidInputError(
        `buildContext: only a spectral context has a strength, this model's is ${model.stageKind}.`,
      );
    }
    if (spectral && asked !== "auto") checkStrength(asked); // before the work
    const calibrated = asked === "auto" && model.stageKind === "spectral";
    const smoothings = this.#smoothings(options.tokenWeights, calibrated);
    const given = Array.isArray(documents) ? documents.flat() : documents;
    checkTexts("buildContext", given as readonly string[]);
    const texts = this.#contextTexts(given as readonly string[], options);
    const { ids, truncated } = await model.tokenizer.encodeBatch(texts, {
      maxTokens: model.maxTokens,
      prompt: model.prompts.document,
      operation: "buildContext",
      ...(signal && { signal }),
    });
    const passes = spectral && model.beforeMap ? 2 : 1;
    const plan = planCalibration(calibrated ? texts : [], seed);
    const total = passes * texts.length + plan.texts;
    const encode = async (stage: Stage, pass: number) => {
      const progress = ({ done }: EmbedProgress) => onProgress?.({ done: pass * texts.length + done, total });
      return await stage.encode(ids, { signal, onProgress: progress });
    };
    const digests = texts.map(textDigest);
    const { vocabularySize: vocabulary } = model.tokenizer;
    const weightings = smoothings.map((smoothing) =>
      smoothing === undefined
        ? undefined
        : TokenWeights.count(ids, { model: model.fingerprint, digests, vocabulary, smoothing }),
    );
    const stage = model.weigh?.(...weightings) ?? model.firstStage;
    const all = await encode(stage, 0);
    const dimensions = all[0]!.length / weightings.length;
    const bases: (CalibrationBase & { tokenWeights: TokenWeights | undefined })[] = [];
    for (const [at, tokenWeights] of weightings.entries()) {
      const vectors = packedPart(all, dimensions, at);
      // A map is for the vectors that it follows: those of the stage before it, with this context.
      const mapped = passes === 2 ? packed(await encode(model.beforeMap!(vectors), 1)) : vectors;
      const spectrum = spectral ? await Spectrum.fit({ rows: mapped, dimensions }) : undefined;
      bases.push({ spectrum: spectrum!, vectors, tokenWeights, smoothing: tokenWeights?.identity.smoothing });
      signal?.throwIfAborted();
    }
    const calibration = calibrated
      ? await calibrateStrength({
          plan,
          bases,
          signal,
          embed: async (kind, pseudo, before) => {
            const encoded = await model.tokenizer.encodeBatch(pseudo, {
              maxTokens: model.maxTokens,
              prompt: model.prompts[kind],
              operation: "buildContext",
              ...(signal && { signal }),
            });
            const progress = ({ done }: EmbedProgress) => onProgress?.({ done: texts.length + before + done, total });
            return await stage.encode(encoded.ids, { signal, onProgress: progress });
          },
        })
      : undefined;
    const strength = asked === "auto" ? (calibration?.strength ?? DEFAULT_STRENGTH) : asked;
    const chosen = bases.find(({ smoothing }) => bases.length === 1 || smoothing === calibration?.smoothing)!;
    signal?.throwIfAborted();
    return new CorpusContext({
      identity: {
        model: chosen.tokenWeights?.fingerprint ?? model.fingerprint,
        stage: model.stageKind,
        strength: spectral ? strength : null,
        texts: digests,
      },
      modelId: model.modelId,
      vectors: chosen.vectors,
      dimensions,
      spectrum: chosen.spectrum,
      truncated,
      calibration,
      tokenWeights: chosen.tokenWeights,
    });
  }

  /** Of the token weights to choose from; undefined stands for tokens that count alike. */
  #smoothings(asked: BuildContextOptions["tokenWeights"], calibrated: boolean): readonly (number | undefined)[] {
    const { weigh, modelId } = this.#model;
    if (asked === "auto" && !calibrated) {
      throw new InvalidInputError(
        'buildContext: tokenWeights "auto" are chosen together with a strength that is "auto", for a spectral context. Give both, or a smoothing.',
      );
    }
    if (asked === undefined || asked === "auto")
      return calibrated && weigh ? [undefined, DEFAULT_SMOOTHING] : [undefined];
    if (asked === "off") return [undefined];
    checkSmoothing(asked?.smoothing);
    if (weigh) return [asked.smoothing];
    throw new InvalidInputError(
      `buildContext: ${modelId} can't weigh tokens: only a biencoder that pools by the mean, with a spectral context, can. Leave tokenWeights out.`,
    );
  }

  /** An embedder bound to a context that this encoder (or one equal to it) built. */
  withContext(context: CorpusContext, options: BindOptions = {}): BoundEmbedder {
    context.requireModel("withContext", this.#model.fingerprint);
    const { tokenWeights } = context;
    const fingerprint = contextFingerprint(context.identity);
    const off = fingerprint === context.identity.model;
    if (off) return this.#embedder(this.#baseStage(tokenWeights), fingerprint, { ...options, context, tokenWeights });
    const base =
      context.map && this.#model.nullStage
        ? this.#embedder(this.#baseStage(tokenWeights), context.identity.model, { ...options, tokenWeights })
        : undefined;
    return this.#embedder(this.#model.bind(context), fingerprint, { ...options, context, base });
  }

  /** An embedder without context: the null context. Raises NoNullContextError where the model has none. */
  withoutContext(options: BindOptions = {}): BoundEmbedder {
    return this.#embedder(this.#requireNullStage(), this.#model.fingerprint, options);
  }

  /** Ends the worker thread. Embedders of this encoder reject afterwards. */
  async dispose(): Promise<void> {
    await this.#runtime.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #embedder(
    stage: Stage,
    fingerprint: string,
    options: BindOptions & { context?: CorpusContext; base?: BoundEmbedder | undefined } & Pick<
        Embedder,
        "tokenWeights"
      >,
  ): BoundEmbedder {
    const { truncation = "end", context, base, tokenWeights } = options;
    if (truncation !== "end" && truncation !== "error") {
      throw new InvalidInputError(
        `withContext: truncation must be "end" or "error", got ${JSON.stringify(truncation)}.`,
      );
    }
    const { modelId, dimensions, maxTokens, batchInvariant, tokenizer, prompts } = this.#model;
    return new BoundEmbedder({
      modelId,
      dimensions,
      maxTokens,
      fingerprint,
      batchInvariant,
      tokenizer,
      queryPrompt: prompts.query,
      documentPrompt: prompts.document,
      truncation,
      encode: (ids, encodeOptions) => stage.encode(ids, encodeOptions),
      stage: this.#model.stageKind,
      context,
      base,
      tokenWeights,
      bind: (other) => this.withContext(other, { truncation }),
      unbind: () => this.withoutContext({ truncation }),
      otherCorpora: this.#otherCorpora,
    });
  }

  /** What gives the base vectors that a context's map is for. */
  #baseStage(tokenWeights: TokenWeights | undefined): Stage {
    return tokenWeights ? this.#model.weigh!(tokenWeights) : this.#requireNullStage();
  }

  #requireNullStage(): Stage {
    const { nullStage, modelId, contextSize } = this.#model;
    if (nullStage) return nullStage;
    throw new NoNullContextError(
      `withoutContext: ${modelId} was trained without a null context. Bind it to a context of ${contextSize} documents of your corpus, or of general texts where there is no corpus.`,
    );
  }

  /** The documents themselves, or repeated up to the exact number that the model reads. */
  #contextTexts(documents: readonly string[], { repeat = false, seed = 0 }: BuildContextOptions): readonly string[] {
    const wanted = this.#model.contextSize;
    if (documents.length === 0)
      throw new InvalidInputError("buildContext: got no documents. Pass a sample of the corpus.");
    if (wanted === undefined || documents.length === wanted) return documents;
    const numbers = `this model reads exactly ${wanted} context documents, got ${documents.length}`;
    if (documents.length > wanted) throw new InvalidInputError(`buildContext: ${numbers}. Pass a sample of that size.`);
    if (!repeat)
      throw new InvalidInputError(`buildContext: ${numbers}. Pass more, or allow repeats with { repeat: true }.`);
    const random = createRandom(seed);
    const texts = [...documents];
    while (texts.length < wanted) texts.push(...random.shuffle(documents).slice(0, wanted - texts.length));
    return texts;
  }
}

/** Reads a directory's description and says how to open its model. */
async function modelAt(
  directory: string,
  modelId: string | undefined,
  options: LoadOptions,
  secondStage: SecondStage | undefined,
): Promise<(runtime: Runtime) => Promise<LoadedModel>> {
  const { dtype, maxTokens, prompts, signal, pooling, preset, tokenizer } = options;
  const onProgress = (progress: EmbedProgress) => options.onProgress?.({ step: "load", ...progress });
  const common = { modelId, dtype, maxTokens, prompts, signal, onProgress };
  const twoStage = await isTwoStageDirectory(directory);
  const misplaced = twoStage ? { pooling } : { preset, tokenizer };
  for (const [name, value] of Object.entries(misplaced)) {
    if (value === undefined) continue;
    throw new InvalidInputError(
      `ContextualEncoder.load: ${directory} is a ${twoStage ? "two-stage model" : "biencoder"}, which has no option "${name}", got ${JSON.stringify(value)}. Leave it out.`,
    );
  }
  const known = (what: string) =>
    new InvalidInputError(
      `ContextualEncoder.fromBiencoder: ${directory} ${what} already. Load it with ContextualEncoder.load.`,
    );
  if (twoStage) {
    if (secondStage !== undefined) throw known("is a two-stage model");
    const description = await readTwoStageDirectory(directory, { preset, tokenizer });
    return (runtime) => loadTwoStage(description, runtime, common);
  }
  const description = await readModelDirectory(directory, pooling === undefined ? {} : { pooling });
  const found = await readSecondStage(directory, description.config);
  if (found && secondStage !== undefined) throw known(`names a second stage in ${SECOND_STAGE_FILE}`);
  const chosen = secondStage === undefined ? (found ?? "spectral") : newSecondStage(secondStage, description.config);
  return (runtime) =>
    chosen === "spectral"
      ? loadBiencoder(description, runtime, common)
      : loadPrefix(description, chosen, runtime, common);
}

/** A model in training: its weights and sessions in the worker, one step's gradients, and vectors in between. */
import type { Weighting } from "../encoder/batches.js";
import { InvalidInputError } from "../errors.js";
import type { Float } from "../graph/index.js";
import { canonicalJson, sha256Hex } from "../model/digest.js";
import { encodeModel } from "../onnx/encode.js";
import { namedRandom, type Random } from "../random.js";
import type { Runtime, Session, TensorStore } from "../runtime/runtime.js";
import type { BaseModel, ModelPlan } from "./base-model.js";
import { requireFloatWeights } from "./base-weights.js";
import type { TrainingBatch } from "./batch.js";
import { checkBatch } from "./check-batch.js";
import { compareByBase } from "./compare-by-base.js";
import { Contrast } from "./contrast.js";
import { addGradients, type ContextStep, embedTexts, type TextStep, writeContext } from "./gradient-cache.js";
import { LayerCache } from "./layer-cache.js";
import { ContrastiveLoss } from "./loss.js";
import { type MachineOptions, type TrainingSettings, threadsOfWorkers } from "./options.js";
import { float32Tensor, LOG_SCALE, Parameters } from "./parameters.js";
import { Replica } from "./replica.js";
import { type SpectralSpace, spectralSpace } from "./spectral-space.js";
import { emptyTables, flushTables, Stage, weightsOf } from "./stage.js";
import {
  type FrozenLayers,
  idsSource,
  lowerSource,
  statesSource,
  type TextSource,
  weighedSource,
} from "./text-source.js";
import { cachedLayers, initialLora, lowRankOf, trainedOf } from "./trained-parts.js";
import { isLora, TrainedWeights } from "./trained-weights.js";

/** What one batch added to the gradients. */
export interface BatchResult {
  readonly loss: number;
  /** Part of the loss: the distance from the base model's similarities. */
  readonly distillation: number;
  readonly accuracy: number;
  /** Hard negatives included. */
  readonly documents: number;
  /** Documents that didn't count against a query, added up over queries. */
  readonly falseNegatives: number;
  /** Mean cosine, by the base, of queries and the documents that counted against them; NaN where it embedded none. */
  readonly difficulty: number;
  /** Texts that were cut to `maxTokens`. */
  readonly truncated: number;
}

interface Parts {
  readonly base: BaseModel;
  readonly settings: TrainingSettings;
  readonly parameters: Parameters;
  readonly text: Stage;
  readonly first: Stage | undefined;
  /** The base model as it was, for distillation, false negatives and spectral contexts. */
  readonly original: Stage | undefined;
  readonly loss: ContrastiveLoss;
  /** ids → states of the frozen layers, where a cache keeps them. */
  readonly lower: Session | undefined;
  readonly cache: LayerCache | undefined;
  /** The second worker, where there is one. */
  readonly replica: Replica | undefined;
  readonly state: TensorStore;
  /** The same for evaluation, so that a caller's own figures don't disturb a step. */
  readonly evaluation: TensorStore;
  readonly tables: ReadonlyMap<string, Float32Array>;
  /** sha256 of the base weights as stored. */
  readonly baseDigest: string;
}

/** Texts of a micro-batch at most. */
const TEXTS = 64;
const CACHE_BYTES = 4 * 2 ** 30;

export class TrainedModel implements AsyncDisposable {
  readonly base: BaseModel;
  readonly settings: TrainingSettings;
  readonly parameters: Parameters;
  /** sha256 of the base weights as stored. */
  readonly baseDigest: string;
  readonly #parts: Parts;
  /** Of each data set, made when it first comes. */
  readonly #spaces = new Map<string, SpectralSpace>();
  #dLogScale = 0;

  private constructor(parts: Parts) {
    this.base = parts.base;
    this.settings = parts.settings;
    this.parameters = parts.parameters;
    this.baseDigest = parts.baseDigest;
    this.#parts = parts;
  }

  /** Reads the weights and opens all sessions. */
  static async open(
    base: BaseModel,
    settings: TrainingSettings,
    runtime: Runtime,
    machine: MachineOptions & { dequantize?: boolean | undefined } = {},
  ): Promise<TrainedModel> {
    const { layerCache, dequantize = false } = machine;
    const threads = threadsOfWorkers(machine);
    const fromLayer = layerCache && cachedLayers(base, settings);
    const planOptions = {
      fromLayer,
      contextDropout: (settings.context?.dropout ?? 0) > 0,
      contextGradient: settings.context?.gradient ?? false,
      tokenWeights: readsWeights(settings),
    };
    const plan = base.plan({ ...planOptions, lowRank: lowRankOf(settings) });
    const lowerStates = fromLayer && base.lowerLayers(new TrainedWeights(), fromLayer);
    const all = weightsOf([
      plan.text.vectors,
      ...(plan.first ? [plan.first.vectors] : []),
      ...(lowerStates ? [lowerStates] : []),
    ]);
    const logScale = { name: LOG_SCALE, shape: [1] };
    const trained = trainedOf(plan, settings);
    if (trained.length === 0) {
      throw new InvalidInputError(
        `Trainer.create: nothing of ${base.path} would be trained${settings.lora ? `: lora.products ${JSON.stringify(settings.lora.products)} name no product of the layers that aren't frozen` : ""}.`,
      );
    }
    const parameters = await Parameters.create(runtime, [
      ...trained,
      ...(settings.temperatureLearned ? [logScale] : []),
    ]);
    const state = runtime.createStore();
    const weights = await base.openWeights();
    let baseDigest: string;
    try {
      baseDigest = weights.digest;
      requireFloatWeights(weights, base.path, dequantize);
      const made = base.initialTensors(settings.seed);
      for (const tensor of all) {
        const { name, shape } = tensor;
        const missing = isLora(name) ? initialLora(tensor, settings.seed) : weights.has(name) ? undefined : made[name];
        const data = missing ? (missing.data as Float32Array) : await weights.read(tensor);
        await parameters.weights.write({ [name]: float32Tensor(shape, data) }, { transfer: true });
      }
    } finally {
      await weights[Symbol.asyncDispose]();
    }
    await parameters.weights.write({
      [LOG_SCALE]: float32Tensor([1], Float32Array.of(-Math.log(settings.temperature))),
    });
    await parameters.zeroGradients();
    const tables = emptyTables([plan.text, ...(plan.first ? [plan.first] : [])], parameters);
    const replica =
      threads.length === 1
        ? undefined
        : await Replica.open(runtime, parameters, {
            read: weightsOf([plan.text.vectors, ...(plan.first ? [plan.first.vectors] : [])]),
            tables: new Set(tables.keys()),
            options: { ...machine.runtime, threads: threads[1]! },
          });
    try {
      const open = (stage: ModelPlan["text"]) =>
        Stage.open(runtime, stage, parameters, state, tables, { replica, threads: threads[0] });
      const text = await open(plan.text);
      const first = plan.first && (await open(plan.first));
      const lower =
        lowerStates && (await runtime.open(encodeModel({ states: lowerStates }), { weights: parameters.weights }));
      const compared = settings.distillation || settings.falseNegatives || settings.spectral;
      const original = compared ? await openOriginal(base, planOptions, runtime, parameters) : undefined;
      const loss = await ContrastiveLoss.open(runtime, lossSettings(base, settings), parameters.weights.at(LOG_SCALE));
      // Last, since nothing after it can fail and leave it open.
      const cache =
        layerCache &&
        fromLayer &&
        (await LayerCache.open(layerCache.directory, {
          key: sha256Hex(canonicalJson({ weights: baseDigest, backbone: base.backbone, layers: fromLayer })),
          width: base.backbone.hiddenSize,
          maxBytes: layerCache.maxBytes ?? CACHE_BYTES,
        }));
      return new TrainedModel({
        base,
        settings,
        parameters,
        text,
        first,
        original,
        loss,
        lower: lower || undefined,
        cache: cache || undefined,
        replica,
        state,
        evaluation: runtime.createStore(),
        tables,
        baseDigest,
      });
    } catch (error) {
      await replica?.[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Adds one batch's gradients to the sums, and says what the loss was. Weights stay as they are. */
  async addBatch(batch: TrainingBatch, random: Random): Promise<BatchResult> {
    checkBatch(batch);
    const { base, settings, text, first, state, replica, loss, original } = this.#parts;
    const { pairs, dataset } = batch;
    const documentTexts = [...pairs.map(({ positive }) => positive), ...pairs.flatMap(({ negatives }) => negatives)];
    const prompts = this.promptsOf(dataset);
    const queries = await this.#tokenize(
      pairs.map(({ query }) => query),
      prompts.query,
    );
    const documents = await this.#tokenize(documentTexts, prompts.document);
    const ids = [...queries.ids, ...documents.ids];
    const space = settings.spectral ? await this.#spaceOf(dataset) : undefined;
    const texts = weighed(await this.#source(ids), ids, space?.weighting);
    const limits = { tokens: settings.microBatchTokens, texts: TEXTS };

    let context: ContextStep | undefined;
    if (first && settings.context) {
      const given = await this.#contextIds(batch, documents.ids, prompts.document, random);
      const source = await this.#source(given);
      const stores = { state, beside: replica?.state };
      await writeContext(stores, await embedTexts({ stage: first, texts: source, limits }), base.backbone.hiddenSize);
      context = {
        ...stores,
        places: base.contextTokens,
        from: settings.context.gradient ? { stage: first, texts: source } : undefined,
      };
    }
    const step: TextStep = { stage: text, texts, limits, context, dropped: this.#dropped(ids.length, random) };
    const split = (rows: Float32Array) => {
      const at = (rows.length / ids.length) * pairs.length;
      return { queries: rows.subarray(0, at), documents: rows.subarray(at) };
    };
    const vectors = split(await embedTexts(step));
    const asBase = settings.distillation || settings.falseNegatives ? original : undefined;
    const byBase = asBase && (await embedTexts({ stage: asBase, texts, limits }));
    const before = byBase && split(space ? space.map.applyRows(byBase) : byBase);
    const compared = before && compareByBase(batch, before, settings.falseNegatives);
    const falseNegatives = compared ? compared.falseNegatives : batch.falseNegatives;
    const contrast = new Contrast({
      // Documents are all different here, and a data set may give two pairs one id.
      ids: pairs.map((_, position) => String(position)),
      negatives: pairs.map(({ negatives }) => negatives.length),
      falseNegatives,
      inBatchNegatives: settings.negatives === "all",
    });
    const found = await loss.run(contrast, {
      ...vectors,
      base: settings.distillation ? before : undefined,
      map: space?.tensors,
    });
    const result: BatchResult = {
      loss: found.loss,
      distillation: found.distillation,
      accuracy: found.accuracy,
      documents: documentTexts.length,
      falseNegatives: falseNegatives?.reduce((count, entry) => count + entry, 0) ?? 0,
      difficulty: compared?.difficulty ?? Number.NaN,
      truncated: queries.truncated.length + documents.truncated.length,
    };
    if (!Number.isFinite(found.loss)) return result; // the caller stops; there is nothing to add
    const dVectors = new Float32Array(found.dQueries.length + found.dDocuments.length);
    dVectors.set(found.dQueries);
    dVectors.set(found.dDocuments, found.dQueries.length);
    await addGradients(step, dVectors);
    this.#dLogScale += found.dLogScale;
    return result;
  }

  /** Makes the sums of gradients complete, for the optimiser to read. */
  async finishGradients(): Promise<void> {
    await flushTables(this.#parts.tables, this.parameters);
    await this.#parts.replica?.collect();
    if (this.settings.temperatureLearned) {
      await this.parameters.gradients.write({ [LOG_SCALE]: float32Tensor([1], Float32Array.of(this.#dLogScale)) });
    }
    this.#dLogScale = 0;
  }

  /** Forgets the sums of gradients. */
  async clearGradients(): Promise<void> {
    for (const table of this.#parts.tables.values()) table.fill(0);
    this.#dLogScale = 0;
    await this.parameters.zeroGradients();
    await this.#parts.replica?.clear();
  }

  /** Context vectors of documents, as the first stage gives them now. */
  async embedContext(ids: readonly Int32Array[]): Promise<Float32Array> {
    const { first } = this.#parts;
    if (!first) throw new InvalidInputError(`embedder: ${this.base.path} is a biencoder, which takes no context.`);
    return embedTexts({ stage: first, texts: this.#exactSource(ids), limits: this.#evaluationLimits });
  }

  /** The spectral context that documents make of the vectors as they are now. */
  fitSpace(ids: readonly Int32Array[]): Promise<SpectralSpace> {
    return this.#fitSpace(ids, this.#parts.text);
  }

  /** Unit vectors of texts with the weights as they are now, row by row, within a spectral context. */
  async embedWithin(space: SpectralSpace, ids: readonly Int32Array[]): Promise<Float32Array> {
    const texts = weighed(this.#exactSource(ids), ids, space.weighting);
    return space.map.applyRows(await embedTexts({ stage: this.#parts.text, texts, limits: this.#evaluationLimits }));
  }

  /**
   * Unit vectors of texts with the weights as they are now, row by row; behind context vectors where the model takes
   * some. Without, it is the base of a prefix stage, and the null context of a two-stage model that was trained with one.
   */
  async embed(ids: readonly Int32Array[], context: Float32Array | undefined): Promise<Float32Array> {
    const { base, text, first, settings, evaluation: state, replica } = this.#parts;
    const stores = { state, beside: replica?.evaluation };
    const texts = this.#exactSource(ids);
    const limits = this.#evaluationLimits;
    if (base.kind === "biencoder") {
      return embedTexts({
        stage: text,
        texts: weighed(texts, ids, readsWeights(settings) ? () => 1 : undefined),
        limits,
      });
    }
    if (base.kind === "prefix" && !context) return embedTexts({ stage: first!, texts, limits });
    const width = base.backbone.hiddenSize;
    const places = settings.context!.documents;
    const masked = base.kind === "two-stage" && settings.context!.dropout > 0;
    if (!context && !masked) {
      throw new InvalidInputError(
        `embedder: ${base.path} is trained without context dropout, so it has no null context. Pass { context }.`,
      );
    }
    await writeContext(stores, context ?? new Float32Array(places * width), width);
    const dropped = masked ? new Float32Array(ids.length * places).fill(context ? 0 : 1) : undefined;
    return embedTexts({ stage: text, texts, limits, context: { ...stores, places: base.contextTokens }, dropped });
  }

  /** What stands before the texts of a data set. */
  promptsOf(dataset: string): { query: string; document: string } {
    const { prompts } = this.settings;
    const own = Object.hasOwn(prompts, dataset) ? prompts[dataset] : prompts.default;
    return { ...this.base.prompts, ...own };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { cache, replica } = this.#parts;
    try {
      await cache?.[Symbol.asyncDispose]();
    } finally {
      await replica?.[Symbol.asyncDispose]();
    }
  }

  /** Runs without gradients are fastest when small. */
  get #evaluationLimits() {
    return { tokens: this.#parts.replica ? 1024 : 512, texts: TEXTS }; // of both workers
  }

  #tokenize(texts: readonly string[], prompt: string) {
    return this.base.tokenizer.encodeBatch(texts, {
      maxTokens: this.settings.maxTokens,
      prompt,
      operation: "training",
    });
  }

  async #source(ids: readonly Int32Array[]): Promise<TextSource> {
    const { lower, cache, base, settings } = this.#parts;
    if (!lower || !cache) return idsSource(ids, base.padId);
    const frozen: FrozenLayers = { session: lower, cache, padId: base.padId, tokens: settings.microBatchTokens };
    return statesSource(ids, frozen);
  }

  /** For evaluation: states of frozen layers aren't rounded to float16. */
  #exactSource(ids: readonly Int32Array[]): TextSource {
    const { lower, base } = this.#parts;
    return lower ? lowerSource(ids, lower, base.padId) : idsSource(ids, base.padId);
  }

  /** The spectral context of a data set, of the base's vectors: the same in a run that is resumed. */
  async #spaceOf(dataset: string): Promise<SpectralSpace> {
    const found = this.#spaces.get(dataset);
    if (found) return found;
    const { from, documents } = this.settings.spectral!;
    const texts = documentsOf("spectral.from", from, dataset);
    const drawn = namedRandom(this.settings.seed, dataset)
      .sample(texts.length, Math.min(texts.length, documents))
      .map((i) => texts[i]!);
    const { ids } = await this.#tokenize(drawn, this.promptsOf(dataset).document);
    const space = await this.#fitSpace(ids, this.#parts.original!);
    this.#spaces.set(dataset, space);
    return space;
  }

  #fitSpace(ids: readonly Int32Array[], stage: Stage): Promise<SpectralSpace> {
    const { strength, smoothing } = this.settings.spectral!;
    return spectralSpace(ids, {
      vocabulary: this.base.backbone.vocabularySize,
      strength,
      smoothing,
      embed: (weighting) =>
        embedTexts({
          ...{ stage, limits: this.#evaluationLimits },
          texts: weighed(this.#exactSource(ids), ids, weighting),
        }),
    });
  }

  /** The paper's context: documents of the batch; or a sample of the corpus. */
  async #contextIds(
    { dataset }: TrainingBatch,
    documents: readonly Int32Array[],
    prompt: string,
    random: Random,
  ): Promise<readonly Int32Array[]> {
    const { from, documents: wanted, repeat } = this.settings.context!;
    const texts = from === "batch" ? undefined : documentsOf("context.from", from, dataset);
    const available = texts?.length ?? documents.length;
    if (available < wanted && (!repeat || available === 0)) {
      throw new InvalidInputError(
        `training: the model reads ${wanted} context documents, ${texts ? `context.from holds ${available} of "${dataset}"` : `a batch of "${dataset}" has ${available} documents`}. Give more, lower context.documents, or allow repeats with { context: { repeat: true } }.`,
      );
    }
    const drawn: number[] = [];
    while (drawn.length < wanted) drawn.push(...random.sample(available, Math.min(available, wanted - drawn.length)));
    if (!texts) return drawn.map((i) => documents[i]!);
    return (
      await this.#tokenize(
        drawn.map((i) => texts[i]!),
        prompt,
      )
    ).ids;
  }

  #dropped(texts: number, random: Random): Float32Array | undefined {
    const { context } = this.settings;
    if (!context || context.dropout === 0) return undefined;
    return Float32Array.from({ length: texts * context.documents }, () => (random.next() < context.dropout ? 1 : 0));
  }
}

/** Of a batch's data set, from the option of that name. */
function documentsOf(
  option: string,
  from: Readonly<Record<string, readonly string[]>>,
  dataset: string,
): readonly string[] {
  if (Object.hasOwn(from, dataset)) return from[dataset]!;
  throw new InvalidInputError(
    `training: ${option} holds documents of ${Object.keys(from).join(", ")}, a batch is of "${dataset}". Give documents of every data set.`,
  );
}

/** Whether the graphs of texts read what each token counts. */
function readsWeights({ spectral }: TrainingSettings): boolean {
  return spectral !== null && spectral.smoothing !== null;
}

/** With weights, where there are some. */
function weighed(texts: TextSource, ids: readonly Int32Array[], weighting: Weighting | undefined): TextSource {
  return weighting ? weighedSource(texts, ids, weighting) : texts;
}

function lossSettings(base: BaseModel, { widths, direction, distillation, spectral }: TrainingSettings) {
  return {
    dimensions: base.backbone.hiddenSize,
    symmetric: direction === "symmetric",
    widths: widths.map((width) => ({ width, weight: 1 / widths.length })),
    distillation: distillation ?? undefined,
    mapped: spectral !== null,
  };
}

/** The base without context, low-rank updates and training: a session of its own with constants. */
async function openOriginal(
  base: BaseModel,
  options: {
    fromLayer: number | undefined;
    contextDropout: boolean;
    contextGradient: boolean;
    tokenWeights: boolean;
  },
  runtime: Runtime,
  { weights }: Parameters,
): Promise<Stage> {
  const plan = base.plan({ ...options, contextGradient: false });
  const vectors: Float = (plan.first ?? plan.text).vectors;
  return Stage.frozen(await runtime.open(encodeModel({ vectors }, { weights: { kind: "external" } }), { weights }));
}

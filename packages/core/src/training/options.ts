/** What a run can be told, with every default; checked once into plain settings that a checkpoint keeps. */
import { availableParallelism } from "node:os";
import { checkStrength, DEFAULT_STRENGTH, type SpectralStrength } from "../context/spectral-map.js";
import { checkSmoothing, DEFAULT_SMOOTHING } from "../context/token-weights.js";
import { InvalidInputError } from "../errors.js";
import type { Pooling } from "../model/model-directory.js";
import type { SecondStage } from "../model/second-stage.js";
import type { TwoStagePreset } from "../model/two-stage.js";
import { usableCores } from "../runtime/cores.js";
import type { RuntimeOptions } from "../runtime/runtime.js";
import type { BaseModel } from "./base-model.js";
import { checkRule, type FalseNegativeRule } from "./batches/false-negatives.js";
import type { Decay } from "./schedule.js";

/** Texts before queries and documents, as they stand: "search_query: " with its space. */
export interface DatasetPrompts {
  readonly query?: string;
  readonly document?: string;
}

/** Settings of a run that a checkpoint keeps. */
export interface TrainingOptions {
  /** The paper's own: Adam, 1,000 steps of warm-up to 2e-5, linear, temperature 0.02, context dropout 0.005 (§5). */
  readonly preset?: "paper";
  /** Seed of all that a run draws. @default 0 */
  readonly seed?: number;

  /** `"adamw"` decays weights, `"adam"` doesn't. @default "adamw" */
  readonly optimizer?: "adamw" | "adam";
  /** At the end of the warm-up. @default 2e-5 */
  readonly learningRate?: number;
  /** @default "linear" where `totalSteps` is given, "constant" otherwise */
  readonly schedule?: Decay;
  /** Steps of the optimiser in which the rate grows from 0. @default a tenth of `totalSteps`, or 0 */
  readonly warmupSteps?: number;
  /** Steps of the optimiser in the whole run; a rate that falls ends there. */
  readonly totalSteps?: number;
  /** @default [0.9, 0.999] */
  readonly betas?: readonly [number, number];
  /** @default 1e-8 */
  readonly epsilon?: number;
  /** Of AdamW: not on biases, norms, gates and the temperature. @default 0.01 */
  readonly weightDecay?: number;
  /**
   * How many times faster than all else the gates of a prefix stage learn: they begin at 0, and a rate that suits weights
   * would leave them there. @default 100
   */
  readonly gateRate?: number;
  /** Longer gradients are scaled down to it; `null` for never. @default 1 */
  readonly maxGradientNorm?: number | null;
  /** Batches whose gradients are averaged for one step of the optimiser. @default 1 */
  readonly accumulate?: number;

  /** Divisor of cosines in the loss; `{ initial }` lets it be learned. @default 0.02 */
  readonly temperature?: number | { readonly initial: number };
  /** `"symmetric"` contrasts positives with all queries too. @default "query-to-document", as the paper */
  readonly direction?: "query-to-document" | "symmetric";
  /** `"hard"` leaves the other queries' documents out of a query's softmax. @default "all" */
  readonly negatives?: "all" | "hard";
  /** Matryoshka (Kusupati et al. 2022): widths whose first entries are trained to do alone, all with the same weight. */
  readonly widths?: readonly number[];
  /** By data set; `default` for all others. @default the model's own prompts */
  readonly prompts?: Readonly<Record<string, DatasetPrompts>>;
  /** Longest text in training, in tokens; longer ones are cut and counted. @default what the model reads */
  readonly maxTokens?: number;
  /** Tokens of a micro-batch, padding and context included: bounds memory, not the batch. @default 1024 */
  readonly microBatchTokens?: number;

  /** Keep the embeddings and the lower `freeze` layers as they are. @default 0: all is trained */
  readonly freeze?: number;
  /** Train low-rank updates beside the products and nothing else; they are merged on export. */
  readonly lora?: LoraOptions;
  /** Keep similarities close to the base model's. */
  readonly distillation?: {
    /** Beside the contrastive loss. @default 1 */
    readonly weight?: number;
    /** Divisor of cosines in this term. @default 0.05 */
    readonly temperature?: number;
  };
  /**
   * Documents that the base model finds too good, by its vectors of the texts as they are cut here, don't count against a
   * query, besides those that a batch masks. Instead of a surrogate of the batches: with `distillation` nothing more is embedded,
   * with `layerCache` little. @default none
   */
  readonly falseNegatives?: FalseNegativeRule;
  /** For models with a context. */
  readonly context?: ContextOptions;
  /** Biencoders: compare vectors as a spectral context of the corpus makes them, so that what it gives isn't learned again. */
  readonly spectral?: SpectralOptions;
}

/**
 * Tokens are weighed and vectors mapped, by data set, as `buildContext` would of the base model's vectors; weights and map
 * stay as they are in the run. Search with a context: that is what was trained for.
 */
export interface SpectralOptions {
  /** Documents of the corpus, by data set: at least 2 of each; 64 are few. */
  readonly from: Readonly<Record<string, readonly string[]>>;
  /** Of them, drawn by the seed, as many as make the context. @default 512, or all where there are fewer */
  readonly documents?: number;
  /** @default a 0.35, s 0.3, b 0.5 */
  readonly strength?: SpectralStrength;
  /** Of the token weights; `null` has tokens count alike. @default 0.3 for models that pool by the mean, else null */
  readonly smoothing?: number | null;
}

export interface LoraOptions {
  /** @default 8 */
  readonly rank?: number;
  /** Updates are scaled by alpha / rank. @default 2 · rank */
  readonly alpha?: number;
  /** Parts of names of the products to adapt, such as "query". @default all products of the trained layers */
  readonly products?: readonly string[];
}

export interface ContextOptions {
  /** `"batch"`: the documents of the batch (§4.2); or documents of the corpus, by data set. @default "batch" */
  readonly from?: "batch" | Readonly<Record<string, readonly string[]>>;
  /** Context documents of a step. @default what the model reads, or 64 */
  readonly documents?: number;
  /** Where there are fewer documents than that: draw some again. @default false */
  readonly repeat?: boolean;
  /** Whether the first stage is trained through the context too. @default true */
  readonly gradient?: boolean;
  /** Probability with which a text's context vector is replaced by the null context; two-stage models. @default 0 */
  readonly dropout?: number;
}

/** What a run is opened with besides; no checkpoint keeps it. */
export interface OpenOptions {
  /** Accept the rounded values of int8 weights as a start. @default false */
  readonly dequantize?: boolean;
  /** Makes a biencoder contextual by layers that read a context. */
  readonly secondStage?: SecondStage;
  /** For two-stage checkpoints; see `ContextualEncoder.load`. */
  readonly pathPreset?: TwoStagePreset;
  /** For two-stage checkpoints that came without tokenizer.json. */
  readonly tokenizer?: string;
  /** For a Hugging Face directory without modules.json. */
  readonly pooling?: Pooling;
}

/** Where things run and lie on this machine. */
export interface MachineOptions {
  /** Threads, of all workers together. Resuming bit for bit needs the same number. */
  readonly runtime?: RuntimeOptions;
  /**
   * How many workers run micro-batches. Two take them in turn with half of the threads and of `microBatchTokens` each, and
   * are faster than one with all; the second has copies of the weights and sums of gradients of its own: 132 MB for
   * MiniLM. Resuming bit for bit needs the same number. @default 2 with an even number of threads (of cores, where
   * `runtime.threads` is left out) on the provider "cpu", otherwise 1
   */
  readonly workers?: 1 | 2;
  /** Where to keep the states of frozen layers, so that later passes skip them; needs `freeze`. */
  readonly layerCache?: {
    readonly directory: string;
    /** @default 4 GiB */
    readonly maxBytes?: number;
  };
}

/** Threads of each worker, of one alone those of the runtime. Raises InvalidInputError for another number of workers. */
export function threadsOfWorkers({ runtime = {}, workers }: MachineOptions): (number | undefined)[] {
  const { threads, provider = "cpu" } = runtime;
  if (workers !== undefined && workers !== 1 && workers !== 2) {
    throw new InvalidInputError(`Trainer.create: workers should be 1 or 2, got ${workers}.`);
  }
  const all = threads || usableCores();
  const count = workers ?? (provider === "cpu" && all > 0 && all % 2 === 0 ? 2 : 1);
  if (count === 1) return [threads];
  const each = Math.max(1, Math.floor((all || availableParallelism()) / 2));
  return [each, each];
}

/** The options with their defaults, as plain data. */
export interface TrainingSettings {
  readonly seed: number;
  readonly optimizer: "adamw" | "adam";
  readonly learningRate: number;
  readonly schedule: Decay;
  readonly warmupSteps: number;
  readonly totalSteps: number | null;
  readonly betas: readonly [number, number];
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly gateRate: number;
  readonly maxGradientNorm: number | null;
  readonly accumulate: number;
  readonly temperature: number;
  readonly temperatureLearned: boolean;
  readonly direction: "query-to-document" | "symmetric";
  readonly negatives: "all" | "hard";
  readonly widths: readonly number[];
  readonly prompts: Readonly<Record<string, DatasetPrompts>>;
  readonly maxTokens: number;
  readonly microBatchTokens: number;
  readonly freeze: number;
  readonly lora: { readonly rank: number; readonly alpha: number; readonly products: readonly string[] } | null;
  readonly distillation: { readonly weight: number; readonly temperature: number } | null;
  readonly falseNegatives: FalseNegativeRule | null;
  readonly context: {
    readonly from: "batch" | Readonly<Record<string, readonly string[]>>;
    readonly documents: number;
    readonly repeat: boolean;
    readonly gradient: boolean;
    readonly dropout: number;
  } | null;
  readonly spectral: {
    readonly from: Readonly<Record<string, readonly string[]>>;
    readonly documents: number;
    readonly strength: SpectralStrength;
    readonly smoothing: number | null;
  } | null;
}

const PAPER: TrainingOptions = {
  optimizer: "adam",
  learningRate: 2e-5,
  schedule: "linear",
  warmupSteps: 1000,
  temperature: 0.02,
};

/** Checks all options against each other and the model. Raises InvalidInputError that names option and value. */
export function settingsOf(model: BaseModel, given: TrainingOptions): TrainingSettings {
  if (given.preset !== undefined && given.preset !== "paper") {
    throw refused("preset", given.preset, '"paper"');
  }
  const options: TrainingOptions = given.preset === "paper" ? { ...PAPER, ...given } : given;
  const totalSteps = options.totalSteps ?? null;
  if (totalSteps !== null) requireWhole("totalSteps", totalSteps, 1);
  const schedule = options.schedule ?? (totalSteps === null ? "constant" : "linear");
  oneOf("schedule", schedule, ["constant", "linear", "cosine"]);
  if (schedule !== "constant" && totalSteps === null) {
    throw new InvalidInputError(
      `Trainer.create: a ${schedule} schedule ends somewhere; pass { totalSteps }, the number of batches in all epochs, or { schedule: "constant" }.`,
    );
  }
  const { temperature = 0.02 } = options;
  const settings: TrainingSettings = {
    seed: whole("seed", options.seed ?? 0, 0),
    optimizer: oneOf("optimizer", options.optimizer ?? "adamw", ["adamw", "adam"]),
    learningRate: positive("learningRate", options.learningRate ?? 2e-5),
    schedule,
    warmupSteps: whole("warmupSteps", options.warmupSteps ?? Math.floor((totalSteps ?? 0) / 10), 0),
    totalSteps,
    betas: options.betas ?? [0.9, 0.999],
    epsilon: positive("epsilon", options.epsilon ?? 1e-8),
    weightDecay: atLeast("weightDecay", options.weightDecay ?? 0.01, 0),
    gateRate: positive("gateRate", options.gateRate ?? 100),
    maxGradientNorm:
      options.maxGradientNorm === null ? null : positive("maxGradientNorm", options.maxGradientNorm ?? 1),
    accumulate: whole("accumulate", options.accumulate ?? 1, 1),
    temperature: positive("temperature", typeof temperature === "number" ? temperature : temperature.initial),
    temperatureLearned: typeof temperature !== "number",
    direction: oneOf("direction", options.direction ?? "query-to-document", ["query-to-document", "symmetric"]),
    negatives: oneOf("negatives", options.negatives ?? "all", ["all", "hard"]),
    widths: options.widths ?? [model.backbone.hiddenSize],
    prompts: options.prompts ?? {},
    maxTokens: whole("maxTokens", options.maxTokens ?? model.maxTokens, 3, model.maxTokens),
    microBatchTokens: whole("microBatchTokens", options.microBatchTokens ?? 1024, 1),
    freeze: whole("freeze", options.freeze ?? 0, 0, model.backbone.layers),
    lora: loraOf(options.lora),
    distillation: distillationOf(model, options.distillation),
    falseNegatives: falseNegativesOf(model, options.falseNegatives),
    context: contextOf(model, options),
    spectral: spectralOf(model, options),
  };
  settings.betas.forEach((beta) => {
    if (!(beta >= 0 && beta < 1)) throw refused("betas", settings.betas, "two numbers from 0 to below 1");
  });
  for (const width of settings.widths) whole("widths", width, 1, model.backbone.hiddenSize);
  if (settings.widths.length === 0 || new Set(settings.widths).size !== settings.widths.length) {
    throw refused("widths", settings.widths, "different widths, at least one");
  }
  if (settings.freeze === model.backbone.layers && model.kind === "biencoder") {
    throw new InvalidInputError(
      `Trainer.create: freeze is ${settings.freeze}, all layers that ${model.path} has, so nothing would be trained. Freeze fewer.`,
    );
  }
  return settings;
}

function loraOf(lora: LoraOptions | undefined): TrainingSettings["lora"] {
  if (lora === undefined) return null;
  const rank = whole("lora.rank", lora.rank ?? 8, 1);
  return { rank, alpha: positive("lora.alpha", lora.alpha ?? 2 * rank), products: lora.products ?? [] };
}

function distillationOf(model: BaseModel, given: TrainingOptions["distillation"]): TrainingSettings["distillation"] {
  if (given === undefined) return null;
  if (model.kind === "two-stage") {
    throw new InvalidInputError(
      "Trainer.create: distillation compares with the base's vectors without context, which a two-stage model doesn't have. Leave it out.",
    );
  }
  return {
    weight: positive("distillation.weight", given.weight ?? 1),
    temperature: positive("distillation.temperature", given.temperature ?? 0.05),
  };
}

function falseNegativesOf(model: BaseModel, rule: FalseNegativeRule | undefined): FalseNegativeRule | null {
  if (rule === undefined) return null;
  checkRule("Trainer.create", rule);
  if (model.kind !== "two-stage") return rule;
  throw new InvalidInputError(
    "Trainer.create: falseNegatives are found by the base's vectors without context, which a two-stage model doesn't have. Leave it out, and give the batches a surrogate.",
  );
}

function contextOf(model: BaseModel, { context, preset }: TrainingOptions): TrainingSettings["context"] {
  if (model.kind === "biencoder") {
    if (context === undefined) return null;
    throw new InvalidInputError(
      `Trainer.create: ${model.path} is a biencoder, whose vectors depend on no context in training. Leave context out, or make it contextual with { secondStage: { kind: "prefix" } }.`,
    );
  }
  const dropout = context?.dropout ?? (preset === "paper" && model.kind === "two-stage" ? 0.005 : 0);
  if (!(dropout >= 0 && dropout < 1)) throw refused("context.dropout", dropout, "a number from 0 to below 1");
  if (dropout > 0 && model.kind === "prefix") {
    throw new InvalidInputError(
      "Trainer.create: a prefix stage has no null context for context.dropout; a two-stage model has. Leave it out.",
    );
  }
  const documents = whole("context.documents", context?.documents ?? model.contextSize ?? 64, 1);
  if (model.contextSize !== undefined && documents !== model.contextSize) {
    throw new InvalidInputError(
      `Trainer.create: ${model.path} reads exactly ${model.contextSize} context documents, context.documents is ${documents}.`,
    );
  }
  return {
    from: context?.from ?? "batch",
    documents,
    repeat: context?.repeat ?? false,
    gradient: context?.gradient ?? true,
    dropout,
  };
}

/** One has no spread. */
const LEAST_DOCUMENTS = 2;
const SPECTRAL_DOCUMENTS = 512;

function spectralOf(model: BaseModel, { spectral, widths }: TrainingOptions): TrainingSettings["spectral"] {
  if (spectral === undefined) return null;
  if (model.kind !== "biencoder") {
    throw new InvalidInputError(
      `Trainer.create: spectral maps the vectors of a biencoder; ${model.path} reads a context itself. Leave spectral out.`,
    );
  }
  if (widths?.some((width) => width !== model.backbone.hiddenSize)) {
    throw new InvalidInputError(
      `Trainer.create: spectral maps vectors of ${model.backbone.hiddenSize} dimensions, and a map of shorter ones is another; widths is ${JSON.stringify(widths)}. Leave one out.`,
    );
  }
  const { from, strength = DEFAULT_STRENGTH, smoothing = model.canWeighTokens ? DEFAULT_SMOOTHING : null } = spectral;
  const documents = whole("spectral.documents", spectral.documents ?? SPECTRAL_DOCUMENTS, LEAST_DOCUMENTS);
  for (const [dataset, texts] of Object.entries(from)) {
    if (texts.length >= LEAST_DOCUMENTS) continue;
    throw new InvalidInputError(
      `Trainer.create: spectral.from holds ${texts.length} documents of "${dataset}", a spectral context takes at least ${LEAST_DOCUMENTS}. Give more of them, or leave spectral out.`,
    );
  }
  checkStrength(strength);
  if (smoothing !== null) {
    checkSmoothing(smoothing);
    if (!model.canWeighTokens) {
      throw new InvalidInputError(
        `Trainer.create: spectral.smoothing is ${smoothing}, and ${model.path} doesn't pool by the mean, so its tokens can't be weighed. Leave it out.`,
      );
    }
  }
  return { from, documents, strength: { a: strength.a, s: strength.s, b: strength.b }, smoothing };
}

function refused(name: string, value: unknown, wanted: string): InvalidInputError {
  return new InvalidInputError(`Trainer.create: ${name} should be ${wanted}, got ${JSON.stringify(value)}.`);
}

function whole(name: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): number {
  requireWhole(name, value, least, most);
  return value;
}

function requireWhole(name: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  const range = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`;
  throw refused(name, value, `a whole number ${range}`);
}

function positive(name: string, value: number): number {
  if (Number.isFinite(value) && value > 0) return value;
  throw refused(name, value, "a number above 0");
}

function atLeast(name: string, value: number, least: number): number {
  if (Number.isFinite(value) && value >= least) return value;
  throw refused(name, value, `a number from ${least}`);
}

function oneOf<T extends string>(name: string, value: T, names: readonly T[]): T {
  if (names.includes(value)) return value;
  throw refused(name, value, names.map((entry) => `"${entry}"`).join(" or "));
}

/** The model that a run starts from: what its directory says, its tokenizer, and its stages as graphs. */
import { basename, resolve } from "node:path";
import { canWeighTokens, textInputs } from "../encoder/biencoder.js";
import { promptEndOf, shortened } from "../encoder/load-two-stage.js";
import { choosePrompts } from "../encoder/prompts.js";
import { InvalidInputError, ModelError } from "../errors.js";
import { type Float, input, l2Normalize } from "../graph/index.js";
import { backboneOf } from "../model/architectures.js";
import type { SequenceOptions } from "../model/backbone.js";
import type { BackboneConfig } from "../model/backbone-config.js";
import {
  isTwoStageDirectory,
  publishedWeights,
  readTwoStageDirectory,
  type TwoStageDirectory,
} from "../model/checkpoint.js";
import { type ModelDirectory, type Pooling, readModelDirectory } from "../model/model-directory.js";
import { pool } from "../model/pooling.js";
import { attendToPrefix, initialPrefix, prefixCache } from "../model/prefix-stage.js";
import { newSecondStage, type PrefixStage, readSecondStage, type SecondStage } from "../model/second-stage.js";
import { contextPrefix, firstStage, prefixTokens, secondStage, type TwoStagePreset } from "../model/two-stage.js";
import { createRandom } from "../random.js";
import type { TensorData } from "../runtime/runtime.js";
import { Tokenizer } from "../tokenizer/tokenizer.js";
import { type BaseWeights, openBaseWeights } from "./base-weights.js";
import { float32Tensor } from "./parameters.js";
import type { StagePlan } from "./stage.js";
import { type LowRank, TrainedWeights } from "./trained-weights.js";

export type ModelKind = "biencoder" | "prefix" | "two-stage";

export interface BaseModelOptions {
  /** Makes a biencoder contextual; see `ContextualEncoder.fromBiencoder`. */
  readonly secondStage?: SecondStage | undefined;
  readonly preset?: TwoStagePreset | undefined;
  /** Directory of tokenizer.json, for two-stage checkpoints that came without. */
  readonly tokenizer?: string | undefined;
  readonly pooling?: Pooling | undefined;
}

export interface PlanOptions {
  readonly lowRank?: LowRank | undefined;
  /** Texts come as the hidden states after this many layers, `states` [B, S, hidden], instead of as ids. */
  readonly fromLayer?: number | undefined;
  /** Whether the graphs of two stages read a mask of dropped context vectors. */
  readonly contextDropout: boolean;
  /** Whether the context vectors' gradient is wanted. */
  readonly contextGradient: boolean;
  /** Whether a biencoder reads `weights` [B, S], what each token of a text counts in its mean; zero at padding. */
  readonly tokenWeights?: boolean | undefined;
}

/** The graphs of a model. */
export interface ModelPlan {
  /** Texts, behind a context where the model takes one, to unit vectors. */
  readonly text: StagePlan;
  /** Context documents to context vectors. */
  readonly first: StagePlan | undefined;
}

export interface BaseModel {
  readonly kind: ModelKind;
  readonly directory: ModelDirectory | TwoStageDirectory;
  readonly path: string;
  readonly modelId: string;
  readonly backbone: BackboneConfig;
  readonly tokenizer: Tokenizer;
  readonly padId: number;
  /** What the model reads at most. */
  readonly maxTokens: number;
  readonly prompts: { readonly query: string; readonly document: string };
  /** Context documents that the model reads exactly, where it does; undefined where any number will do. */
  readonly contextSize: number | undefined;
  /** Tokens that a context adds to each text of a micro-batch. */
  readonly contextTokens: number;
  /** The prefix stage, where there is one: without a seed, since a trained one has its tensors. */
  readonly stage: PrefixStage | "spectral" | undefined;
  /** Whether its vectors can be means of weighted tokens. */
  readonly canWeighTokens: boolean;
  /** How many lowest layers give a text's states whatever the context: those that a cache can keep. */
  readonly cacheableLayers: number;
  plan(options: PlanOptions): ModelPlan;
  /** ids and mask to the states after the lowest `layers` layers, [B, S, hidden]. */
  lowerLayers(weights: TrainedWeights, layers: number): Float;
  openWeights(): Promise<BaseWeights>;
  /** Tensors that the model's files lack because a run makes them: by full name. */
  initialTensors(seed: number): Readonly<Record<string, TensorData>>;
}

/** Reads a model's directory and tokenizer; its weights stay closed. Raises what `ContextualEncoder.load` raises. */
export async function readBaseModel(path: string, options: BaseModelOptions = {}): Promise<BaseModel> {
  const { secondStage: wanted, preset, tokenizer, pooling } = options;
  if (await isTwoStageDirectory(path)) {
    if (wanted !== undefined || pooling !== undefined) {
      throw new InvalidInputError(
        `Trainer.create: ${path} is a two-stage model, which has no option ${wanted !== undefined ? "secondStage" : "pooling"}. Leave it out.`,
      );
    }
    return twoStageModel(await readTwoStageDirectory(path, { preset, tokenizer }));
  }
  const directory = await readModelDirectory(path, pooling === undefined ? {} : { pooling });
  const found = await readSecondStage(path, directory.config);
  if (found && wanted !== undefined) {
    throw new InvalidInputError(`Trainer.create: ${path} names a second stage already. Leave secondStage out.`);
  }
  const stage = wanted === undefined ? found : newSecondStage(wanted, directory.config);
  return biencoderModel(directory, stage);
}

async function biencoderModel(
  directory: ModelDirectory,
  stage: PrefixStage | "spectral" | undefined,
): Promise<BaseModel> {
  const { config, pooling } = directory;
  if (pooling === "max") {
    throw new ModelError(
      `Trainer.create: ${directory.path} pools by maxima, which has no gradient here. Train a model with mean, cls or last pooling.`,
    );
  }
  const prefix = stage === "spectral" ? undefined : stage;
  const text = (
    weights: TrainedWeights,
    { fromLayer, tokenWeights = false }: Pick<PlanOptions, "fromLayer" | "tokenWeights">,
    sequence: SequenceOptions = {},
  ): Float => {
    const { ids, mask } = textInputs();
    const counted = tokenWeights ? (input("weights", "float32", ["B", "S"]) as Float) : mask;
    const backbone = backboneOf(config, weights);
    const tokens =
      fromLayer === undefined
        ? backbone.embed(ids)
        : (input("states", "float32", ["B", "S", config.hiddenSize]) as Float);
    const layers = fromLayer === undefined ? {} : { layers: { start: fromLayer, end: config.layers } };
    return l2Normalize(pool(pooling, backbone.encode(tokens, mask, { ...sequence, ...layers }), counted));
  };
  const byDefault = directory.prompts[directory.defaultPrompt ?? ""] ?? "";
  return {
    ...(await common(directory, directory.tokenizer, config)),
    kind: prefix ? "prefix" : "biencoder",
    directory,
    maxTokens: directory.maxTokens,
    prompts: choosePrompts(directory.prompts, byDefault),
    contextSize: undefined,
    contextTokens: 0,
    stage,
    canWeighTokens: canWeighTokens(pooling),
    cacheableLayers: config.layers - (prefix?.layers ?? 0),
    plan({ lowRank, fromLayer, contextGradient, tokenWeights }) {
      const weights = new TrainedWeights({ lowRank });
      const from = { fromLayer };
      if (!prefix) return { text: { weights, vectors: text(weights, { fromLayer, tokenWeights }) }, first: undefined };
      const context = input("context", "float32", ["C", config.hiddenSize]) as Float;
      const cache = prefixCache(config, prefix, weights, context);
      const vectors = text(weights, from, { attend: attendToPrefix(prefix, cache) });
      const first = new TrainedWeights({ lowRank });
      return {
        text: { weights, vectors, context: contextGradient ? context : undefined },
        first: { weights: first, vectors: text(first, from) },
      };
    },
    lowerLayers(weights, layers) {
      const { ids, mask } = textInputs();
      const backbone = backboneOf(config, weights);
      return backbone.encode(backbone.embed(ids), mask, { layers: { start: 0, end: layers } });
    },
    openWeights: () => openBaseWeights(directory.weights, { whole: false }),
    initialTensors: (seed) => (prefix ? initialPrefix(config, prefix, prefix.seed ?? seed) : {}),
  };
}

async function twoStageModel(directory: TwoStageDirectory): Promise<BaseModel> {
  const { config, maxTokens } = directory;
  const short = shortened(config, maxTokens);
  const width = config.secondStage.hiddenSize;
  const shared = await common(directory, directory.tokenizer, config.firstStage);
  const promptEnd = promptEndOf(shared.tokenizer);
  return {
    ...shared,
    kind: "two-stage",
    directory,
    maxTokens,
    prompts: choosePrompts(directory.prompts, ""),
    contextSize: config.contextDocuments,
    contextTokens: prefixTokens(config),
    stage: undefined,
    canWeighTokens: false,
    cacheableLayers: 0,
    plan({ lowRank, contextDropout, contextGradient }) {
      const weights = new TrainedWeights({ lowRank });
      const first = new TrainedWeights({ lowRank });
      const context = input("context", "float32", [config.contextDocuments, width]) as Float;
      const dropped = input("dropped", "float32", ["B", config.contextDocuments]) as Float;
      const parts = publishedWeights(weights);
      const { ids, mask } = textInputs();
      const prefix = contextPrefix(short, parts, { context, ...(contextDropout && { dropped }) });
      const { vectors } = secondStage(short, parts, { ids, mask, prefix, promptEnd });
      return {
        text: { weights, vectors: l2Normalize(vectors), context: contextGradient ? context : undefined },
        first: { weights: first, vectors: firstStage(short, publishedWeights(first), textInputs()).vectors },
      };
    },
    lowerLayers() {
      throw new InvalidInputError(
        "Trainer.create: every layer of a two-stage model reads the context, so no states can be cached. Leave layerCache out.",
      );
    },
    openWeights: () => openBaseWeights(directory.weights, { whole: true }),
    // As in the reference: normal numbers, times 0.01.
    initialTensors: (seed) => {
      const random = createRandom(seed);
      const data = Float32Array.from({ length: width }, () => 0.01 * random.normal());
      return { [NULL_CONTEXT]: float32Tensor([width], data) };
    },
  };
}

/** The learned vector that stands for a dropped context vector. */
export const NULL_CONTEXT = "second_stage_model.sequence_dropout_null_embedding";

async function common(
  { path }: { readonly path: string },
  tokenizerPath: string,
  backbone: BackboneConfig,
): Promise<Pick<BaseModel, "path" | "modelId" | "backbone" | "tokenizer" | "padId">> {
  const tokenizer = await Tokenizer.load(tokenizerPath, { embeddingRows: backbone.vocabularySize });
  if (tokenizer.padId === undefined) {
    throw new ModelError(`Trainer.create: the tokenizer of ${tokenizerPath} names no padding token.`);
  }
  return { path: resolve(path), modelId: basename(resolve(path)), backbone, tokenizer, padId: tokenizer.padId };
}

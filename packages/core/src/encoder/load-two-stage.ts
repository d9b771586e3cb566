/**
 * Opens a two-stage checkpoint: the paper's second stage, in which every text is read behind the whole context. What
 * doesn't depend on the text (context vectors, soft prompt) is made once and lies in the worker.
 */
import { basename, resolve } from "node:path";
import type { CorpusContext } from "../context/corpus-context.js";
import { InvalidInputError, ModelError } from "../errors.js";
import { input, l2Normalize, type Value } from "../graph/index.js";
import type { BackboneConfig } from "../model/backbone-config.js";
import {
  publishedWeights,
  readNullContext,
  requireBothStages,
  type TwoStageDirectory,
  unexpectedTensors,
} from "../model/checkpoint.js";
import { canonicalJson } from "../model/digest.js";
import { GraphWeights } from "../model/graph-weights.js";
import { openWeights, type SafetensorsFile } from "../model/safetensors.js";
import {
  contextTokens,
  firstStage,
  prefixTokens,
  secondStage,
  softPrompt,
  type TwoStageConfig,
} from "../model/two-stage.js";
import { encodeModel, plainName } from "../onnx/encode.js";
import type { Runtime, Session } from "../runtime/runtime.js";
import { Tokenizer } from "../tokenizer/tokenizer.js";
import { textInputs } from "./biencoder.js";
import { FloatWeights } from "./float-weights.js";
import { keptStage } from "./kept-stage.js";
import { identityDigest, type LoadedModel, type ModelOptions } from "./loaded-model.js";
import { choosePrompts, requireRoom } from "./prompts.js";
import { TokenEncoder } from "./token-encoder.js";

/** Reads tokenizer and weights and opens the sessions. Raises ModelError for what doesn't fit together. */
export async function loadTwoStage(
  directory: TwoStageDirectory,
  runtime: Runtime,
  options: ModelOptions = {},
): Promise<LoadedModel> {
  const { config, preset } = directory;
  if ((options.dtype ?? "float32") !== "float32") {
    throw new InvalidInputError(
      `ContextualEncoder.load: a two-stage checkpoint runs in float32 only, got { dtype: "${options.dtype}" }.`,
    );
  }
  const maxTokens = chooseMaxTokens(directory, options.maxTokens);
  const tokenizer = await Tokenizer.load(directory.tokenizer, { embeddingRows: config.firstStage.vocabularySize });
  const { padId } = tokenizer;
  if (padId === undefined) {
    throw new ModelError(`ContextualEncoder.load: the tokenizer of ${directory.tokenizer} names no padding token.`);
  }
  const prompts = choosePrompts(directory.prompts, "", options.prompts);
  requireRoom(tokenizer, prompts, maxTokens);
  await using file = await openWeights(directory.weights);
  const sessions = await openStages(file, config, maxTokens, promptEndOf(tokenizer), runtime, options);
  const width = config.secondStage.hiddenSize;
  const prompt = (await sessions.softPrompt.run({})).vectors!.data as Float32Array;
  await sessions.softPrompt.close();

  /** Texts behind these context vectors [places · width]. */
  const stageBehind = (context: Float32Array): TokenEncoder => {
    const before = prefixTokens(config);
    return keptStage(runtime, sessions.second, {
      padId,
      limits: { prefix: before, tokens: 2048 }, // a text alone would leave the cores idle between runs
      make: async () => {
        const data = new Float32Array(before * width);
        data.set(context);
        data.set(prompt, context.length);
        return { prefix: { dtype: "float32", shape: [before, width], data } };
      },
    });
  };

  const nullVector = await readNullContext(file, width);
  return {
    modelId: options.modelId ?? basename(resolve(directory.path)),
    fingerprint: identityDigest({
      weights: await file.digest(),
      dtype: "float32",
      tokenizer: tokenizer.digest,
      architecture: canonicalJson({ ...config, preset }),
      pooling: "mean",
      maxTokens,
      prompts,
    }),
    dimensions: width,
    maxTokens,
    batchInvariant: true,
    tokenizer,
    prompts,
    stageKind: "full",
    contextSize: config.contextDocuments,
    unusedTensors: unexpectedTensors(file, sessions.read),
    firstStage: new TokenEncoder(sessions.first, { padId }),
    nullStage: nullVector && stageBehind(repeated(nullVector, contextTokens(config))),
    bind: (context) => stageBehind(contextVectors(context, config)),
  };
}

interface Sessions {
  readonly first: Session;
  readonly softPrompt: Session;
  readonly second: Session;
  /** Names of all tensors that they hold. */
  readonly read: ReadonlySet<string>;
}

/** Checks all weights before any is moved, then opens one session after the other: copies exist of one at a time. */
async function openStages(
  file: SafetensorsFile,
  config: TwoStageConfig,
  maxTokens: number,
  promptEnd: number,
  runtime: Runtime,
  { signal, onProgress }: ModelOptions,
): Promise<Sessions> {
  const graphs = stageGraphs(config, maxTokens, promptEnd);
  const outputs = Object.values(graphs).map((vectors) => ({ vectors }));
  const parameters = outputs.flatMap((graph) => encodeModel(graph).parameters);
  requireBothStages(file, parameters.map(plainName));
  let done = 0;
  const onTensor = () => onProgress?.({ done: ++done, total: parameters.length });
  const weights = await FloatWeights.of(file, outputs, runtime, { signal, onTensor });
  return {
    softPrompt: await weights.open({ vectors: graphs.softPrompt }),
    first: await weights.open({ vectors: graphs.first }),
    second: await weights.open({ vectors: graphs.second }),
    read: weights.names,
  };
}

function stageGraphs(
  config: TwoStageConfig,
  maxTokens: number,
  promptEnd: number,
): Record<keyof Omit<Sessions, "read">, Value> {
  const weights = publishedWeights(new GraphWeights());
  const texts = textInputs();
  const short = shortened(config, maxTokens);
  const prefix = input("prefix", "float32", [prefixTokens(config), config.secondStage.hiddenSize]);
  return {
    first: firstStage(short, weights, texts).vectors,
    softPrompt: softPrompt(config, weights),
    second: l2Normalize(secondStage(short, weights, { ...texts, prefix, promptEnd }).vectors),
  };
}

/** The same with tables of positions as long as the longest input, not as the backbones could be. */
export function shortened(config: TwoStageConfig, maxTokens: number): TwoStageConfig {
  // BERT's positions are weights, which have the shape that they have.
  const cut = (backbone: BackboneConfig, positions: number): BackboneConfig =>
    backbone.architecture === "bert" ? backbone : { ...backbone, maxPositions: positions };
  return {
    ...config,
    firstStage: cut(config.firstStage, maxTokens),
    secondStage: cut(config.secondStage, prefixTokens(config) + maxTokens),
  };
}

/** The first token of ": ", which ends every prompt of training (SPEC §1.3, step 8). */
export function promptEndOf(tokenizer: Tokenizer): number {
  const ids = tokenizer.encode(": ");
  return ids[tokenizer.clsId === undefined ? 0 : 1]!;
}

function chooseMaxTokens({ maxTokens: most }: TwoStageDirectory, wanted = most): number {
  if (Number.isInteger(wanted) && wanted >= 3 && wanted <= most) return wanted;
  throw new InvalidInputError(
    `ContextualEncoder.load: maxTokens must be a whole number from 3 to ${most}, got ${wanted}.`,
  );
}

function contextVectors(context: CorpusContext, config: TwoStageConfig): Float32Array {
  const { hiddenSize: width } = config.secondStage;
  const { size, dimensions } = context;
  if (size !== contextTokens(config) || dimensions !== width) {
    throw new InvalidInputError(
      `withContext: the context holds ${size} vectors of ${dimensions} dimensions, this model reads exactly ${contextTokens(config)} of ${width}. Build it with this encoder.`,
    );
  }
  return context.vectors();
}

function repeated(vector: Float32Array, times: number): Float32Array {
  const result = new Float32Array(times * vector.length);
  for (let i = 0; i < times; i++) result.set(vector, i * vector.length);
  return result;
}

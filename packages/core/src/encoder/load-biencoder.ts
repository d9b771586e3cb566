/** Opens a biencoder directory; with a context it is followed by the spectral map. */
import { basename, resolve } from "node:path";
import type { CorpusContext } from "../context/corpus-context.js";
import type { TokenWeights } from "../context/token-weights.js";
import { InvalidInputError, internal, ModelError } from "../errors.js";
import type { Float } from "../graph/index.js";
import type { BackboneConfig } from "../model/backbone-config.js";
import { canonicalJson } from "../model/digest.js";
import { GraphWeights } from "../model/graph-weights.js";
import { Int8Weights } from "../model/int8-weights.js";
import { loadWeights } from "../model/load-weights.js";
import type { ModelDirectory, Pooling } from "../model/model-directory.js";
import { quantizedView } from "../model/quantize.js";
import { openWeights, type SafetensorsFile } from "../model/safetensors.js";
import { encodeModel } from "../onnx/encode.js";
import type { Runtime, Session } from "../runtime/runtime.js";
import { Tokenizer } from "../tokenizer/tokenizer.js";
import { biencoderGraph, canWeighTokens, weightedGraph } from "./biencoder.js";
import { FloatWeights } from "./float-weights.js";
import { identityDigest, type LoadedModel, type ModelOptions, type NumberForm, type Stage } from "./loaded-model.js";
import { choosePrompts, requireRoom } from "./prompts.js";
import { TokenEncoder } from "./token-encoder.js";

/** Reads tokenizer and weights and opens the session. Raises ModelError for what doesn't fit together. */
export async function loadBiencoder(
  directory: ModelDirectory,
  runtime: Runtime,
  options: ModelOptions = {},
): Promise<LoadedModel> {
  const { config, pooling } = directory;
  const maxTokens = chooseMaxTokens(directory, options.maxTokens);
  const tokenizer = await Tokenizer.load(directory.tokenizer, { embeddingRows: config.vocabularySize });
  if (tokenizer.padId === undefined) {
    throw new ModelError(`ContextualEncoder.load: the tokenizer of ${directory.path} names no padding token.`);
  }
  const byDefault = directory.prompts[directory.defaultPrompt ?? ""] ?? "";
  const prompts = choosePrompts(directory.prompts, byDefault, options.prompts);
  requireRoom(tokenizer, prompts, maxTokens);
  await using file = await openWeights(directory.weights);
  const dtype = chooseForm(file, options.dtype);
  const { session, unused } = await openSession(file, dtype, directory, runtime, options);
  const { padId } = tokenizer;
  const weighted = canWeighTokens(pooling);
  const weigh = (...weights: readonly (TokenWeights | undefined)[]): Stage =>
    new TokenEncoder(session, { padId, weightings: weights.map((one) => (id) => one?.weightOf(id) ?? 1) });
  const base = weighted ? weigh(undefined) : new TokenEncoder(session, { padId });
  return {
    modelId: options.modelId ?? basename(resolve(directory.path)),
    fingerprint: identityDigest({
      weights: await file.digest(),
      dtype,
      tokenizer: tokenizer.digest,
      architecture: canonicalJson(config), // heads, epsilon and activation change vectors too
      pooling,
      maxTokens,
      prompts,
    }),
    dimensions: config.hiddenSize,
    maxTokens,
    batchInvariant: dtype !== "int8-dynamic",
    tokenizer,
    prompts,
    stageKind: "spectral",
    contextSize: undefined,
    unusedTensors: unused,
    firstStage: base,
    nullStage: base,
    ...(weighted && { weigh }),
    bind: (context) => spectralStage(context.tokenWeights ? weigh(context.tokenWeights) : base, context),
  };
}

/** Float weights are used where they lie, where that can be; those that are quantised on the way are handed over. */
async function openSession(
  file: SafetensorsFile,
  dtype: NumberForm,
  { config, pooling }: ModelDirectory,
  runtime: Runtime,
  { signal, onProgress }: ModelOptions,
): Promise<{ session: Session; unused: string[] }> {
  const prefix = prefixOf(file);
  let done = 0;
  if (dtype === "float32") {
    const graph = graphOf(config, new GraphWeights(), pooling);
    const weights: FloatWeights = await FloatWeights.of(file, [graph], runtime, {
      prefix,
      signal,
      onTensor: () => onProgress?.({ done: ++done, total: weights.names.size }),
    });
    const session = await weights.open(graph);
    return { session, unused: [...file.tensors.keys()].filter((name) => !weights.names.has(name)) };
  }
  const activations = dtype === "int8" ? "row" : "dynamic";
  const graph = graphOf(config, new Int8Weights(activations), pooling);
  const model = encodeModel(graph, { weights: { kind: "external" } });
  const store = runtime.createStore();
  try {
    const source = quantizedView(file, model.parameters, { prefix, activations });
    const { unused } = await loadWeights(source, model.parameters, store, {
      prefix,
      signal,
      onTensor: () => onProgress?.({ done: ++done, total: model.parameters.length }),
    });
    return { session: await runtime.open(model, { weights: store }), unused };
  } finally {
    await store.drop();
  }
}

function graphOf(config: BackboneConfig, weights: GraphWeights, pooling: Pooling): { vectors: Float } {
  return canWeighTokens(pooling) ? weightedGraph(config, weights) : biencoderGraph(config, weights, pooling);
}

/** base vectors → the context's map. */
function spectralStage(base: Stage, context: CorpusContext): Stage {
  const { map } = context;
  if (!map) throw internal("a spectral context without a map");
  return { encode: async (ids, options) => map.applyInTurns(await base.encode(ids, options), options?.signal) };
}

/** The model's own limit, or a lower one that was asked for. */
function chooseMaxTokens(directory: ModelDirectory, wanted: number | undefined): number {
  if (wanted === undefined) return directory.maxTokens;
  const most = directory.config.maxPositions;
  if (!Number.isInteger(wanted) || wanted < 3 || wanted > most) {
    throw new InvalidInputError(
      `ContextualEncoder.load: maxTokens must be a whole number from 3 to ${most}, got ${wanted}.`,
    );
  }
  return wanted;
}

/** The numbers to run in: those asked for, else those the weights are stored in. */
function chooseForm(file: SafetensorsFile, wanted: NumberForm | undefined): NumberForm {
  const forms: readonly unknown[] = ["float32", "int8", "int8-dynamic", undefined];
  if (!forms.includes(wanted)) {
    throw new InvalidInputError(
      `ContextualEncoder.load: dtype must be "float32", "int8" or "int8-dynamic", got ${JSON.stringify(wanted)}.`,
    );
  }
  const storedInt8 = [...file.tensors.values()].some(({ dtype }) => dtype === "I8");
  if (!storedInt8) return wanted ?? "float32";
  if (wanted === undefined || wanted === "int8") return "int8";
  throw new InvalidInputError(
    `ContextualEncoder.load: ${file.path} holds int8 weights and can only be run as "int8", got { dtype: "${wanted}" }. Load the float32 weights that it was made from.`,
  );
}

/** Hugging Face writes "bert." before the names of a model with a head. */
export function prefixOf(file: SafetensorsFile): string {
  const tables = ["embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight"];
  const prefixes = ["", "bert.", "model."];
  return prefixes.find((prefix) => tables.some((table) => file.tensors.has(prefix + table))) ?? "";
}

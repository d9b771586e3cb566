/** Opens a biencoder whose layers also attend to a context: the base, and the same weights behind a cached prefix. */
import type { CorpusContext } from "../context/corpus-context.js";
import { internal, ModelError } from "../errors.js";
import { input } from "../graph/index.js";
import type { BackboneConfig } from "../model/backbone-config.js";
import { canonicalJson, sha256Hex } from "../model/digest.js";
import { GraphWeights } from "../model/graph-weights.js";
import { loadWeights } from "../model/load-weights.js";
import type { ModelDirectory } from "../model/model-directory.js";
import {
  attendToPrefix,
  initialPrefix,
  PREFIX_FOLDER,
  type PrefixCache,
  prefixCache,
  prefixLayers,
} from "../model/prefix-stage.js";
import { openWeights, type SafetensorsFile } from "../model/safetensors.js";
import type { PrefixStage } from "../model/second-stage.js";
import { type EncodedModel, encodeModel, type Port, plainName } from "../onnx/encode.js";
import type { Runtime } from "../runtime/runtime.js";
import { biencoderGraph } from "./biencoder.js";
import { keptStage } from "./kept-stage.js";
import { loadBiencoder, prefixOf } from "./load-biencoder.js";
import type { LoadedModel, ModelOptions, Stage } from "./loaded-model.js";
import type { TokenEncoder } from "./token-encoder.js";

/** Raises ModelError for int8, and for weights that lack the stage's own where it has no seed to make them from. */
export async function loadPrefix(
  directory: ModelDirectory,
  stage: PrefixStage,
  runtime: Runtime,
  options: ModelOptions = {},
): Promise<LoadedModel> {
  const { config } = directory;
  const { signal, onProgress } = options;
  const { spectral, seed } = stage;
  const models = prefixModels(directory, stage);
  const parameters = new Map(
    Object.values(models).flatMap((model) => model.parameters.map((port) => [plainName(port), port])),
  );
  await using file = await openWeights(directory.weights);
  requireFloat(file, directory, options.dtype);

  let before = 0;
  const base = await loadBiencoder(directory, runtime, {
    ...options,
    dtype: "float32",
    onProgress: ({ done, total }) => {
      before = total;
      onProgress?.({ done, total: total + parameters.size });
    },
  });
  const store = runtime.createStore();
  const own = (name: string) => name.startsWith(`${PREFIX_FOLDER}.`);
  try {
    let done = 0;
    const onTensor = () => onProgress?.({ done: before + ++done, total: before + parameters.size });
    const read = (keep: (name: string) => boolean, prefix: string): Promise<unknown> => {
      const ports = [...parameters].filter(([name]) => keep(name)).map(([, port]): Port => port);
      return loadWeights(file, ports, store, { prefix, signal, onTensor });
    };
    await read((name) => !own(name), prefixOf(file));
    if (seed === undefined) await read(own, "");
    else {
      const made = initialPrefix(config, stage, seed);
      const names = Object.keys(made);
      await store.write(made, { transfer: true });
      names.forEach(onTensor);
    }
    const cache = await runtime.open(models.cache, { weights: store });
    const text = await runtime.open(models.text, { weights: store });

    const stages = new WeakMap<Float32Array, TokenEncoder>();
    /** The same stage, and so the same cache, for one context at any strength. */
    const behind = (vectors: Float32Array): TokenEncoder => {
      const known = stages.get(vectors);
      if (known) return known;
      const shape = [vectors.length / config.hiddenSize, config.hiddenSize];
      const made = keptStage(runtime, text, {
        padId: base.tokenizer.padId!,
        make: () => cache.run({ context: { dtype: "float32", shape, data: vectors } }),
      });
      stages.set(vectors, made);
      return made;
    };
    const { weigh: _, ...unweighted } = base; // its text graph takes no weights
    return {
      ...unweighted,
      // The base's covers the weights, those of this stage too where they are read from the same file.
      fingerprint: sha256Hex(canonicalJson({ version: 1, base: base.fingerprint, secondStage: { ...stage } })),
      stageKind: spectral ? "prefix+spectral" : "prefix",
      unusedTensors: base.unusedTensors.filter((name) => seed !== undefined || !parameters.has(name)),
      beforeMap: behind,
      bind: (context) => (spectral ? mapped(behind(context.rows), context) : behind(context.rows)),
    };
  } finally {
    await store.drop();
  }
}

/** `text` reads what `cache` gives, under the same names. */
function prefixModels(
  { config, pooling }: ModelDirectory,
  stage: PrefixStage,
): { cache: EncodedModel; text: EncodedModel } {
  const weights = new GraphWeights();
  const context = input("context", "float32", ["C", config.hiddenSize]);
  const made = [...prefixCache(config, stage, weights, context)].flatMap(([layer, { keys, values }]) => [
    [`keys.${layer}`, keys] as const,
    [`values.${layer}`, values] as const,
  ]);
  const sequence = { attend: attendToPrefix(stage, cacheInputs(config, stage)) };
  return {
    cache: encodeModel(Object.fromEntries(made), { weights: { kind: "external" } }),
    text: encodeModel(biencoderGraph(config, weights, pooling, sequence), { weights: { kind: "external" } }),
  };
}

function cacheInputs(config: BackboneConfig, stage: PrefixStage): PrefixCache {
  const { heads, hiddenSize } = config;
  const width = hiddenSize / heads;
  return new Map(
    prefixLayers(config, stage).map((layer) => [
      layer,
      {
        keys: input(`keys.${layer}`, "float32", [heads, width, "C"]),
        values: input(`values.${layer}`, "float32", [heads, "C", width]),
      },
    ]),
  );
}

function mapped(stage: Stage, { lastMap }: CorpusContext): Stage {
  if (!lastMap) throw internal("a spectral context without a map");
  return { encode: async (ids, options) => lastMap.applyInTurns(await stage.encode(ids, options), options?.signal) };
}

function requireFloat(file: SafetensorsFile, { path }: ModelDirectory, dtype: ModelOptions["dtype"]): void {
  const storedInt8 = [...file.tensors.values()].some((tensor) => tensor.dtype === "I8");
  if (!storedInt8 && (dtype ?? "float32") === "float32") return;
  throw new ModelError(
    `ContextualEncoder.load: a prefix stage runs in float32 only, ${storedInt8 ? `${path} holds int8 weights` : `got { dtype: "${dtype}" }`}. ${storedInt8 ? "Load the float32 weights that they were made from" : "Leave dtype out"}, or use the spectral stage.`,
  );
}

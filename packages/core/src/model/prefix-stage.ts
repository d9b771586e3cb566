/**
 * The prefix stage: a biencoder whose layers also attend to context documents. Rows of the context attend to each other
 * only, through the biencoder's own layers, so their keys and values depend on the corpus alone and are made once.
 * Inference feeds them to `attendToPrefix` from a cache, training straight from `prefixCache`: one definition.
 */
import { InvalidInputError } from "../errors.js";
import { type Dim, expand, type Float, mul, reshape, scalar, scope, transposeLast } from "../graph/index.js";
import { createRandom } from "../random.js";
import type { TensorData } from "../runtime/runtime.js";
import { backboneOf } from "./architectures.js";
import { type Attend, attend, scaled } from "./attention.js";
import type { BackboneConfig } from "./backbone-config.js";
import type { GraphWeights } from "./graph-weights.js";
import { attendGated, attendJointly, type LayerContext } from "./prefix-attention.js";

export interface PrefixConfig {
  /**
   * One softmax over the keys of context and text; or one for each, the context's behind a learned gate a head that
   * begins at 0, where the model is its base exactly.
   */
  readonly softmax: "joint" | "gated";
  /** How many of the top layers attend to the context. */
  readonly layers: number;
}

/** What each attending layer reads of a context, by the layer's number. */
export type PrefixCache = ReadonlyMap<number, LayerContext>;

/** What stands before the names of the stage's own tensors. */
export const PREFIX_FOLDER = "prefix";

/** Numbers of the layers that attend to the context; raises InvalidInputError where the model has fewer. */
export function prefixLayers(backbone: BackboneConfig, { layers }: Pick<PrefixConfig, "layers">): number[] {
  if (!Number.isInteger(layers) || layers < 1 || layers > backbone.layers) {
    throw new InvalidInputError(
      `prefix stage: layers must be a whole number from 1 to the ${backbone.layers} that the model has, got ${layers}.`,
    );
  }
  return Array.from({ length: layers }, (_, i) => backbone.layers - layers + i);
}

/**
 * Context vectors [C, hidden], unit vectors of the base, → keys and values. Rows have no positions, and keys aren't
 * turned: the order of context documents doesn't matter.
 */
export function prefixCache(
  backbone: BackboneConfig,
  config: PrefixConfig,
  weights: GraphWeights,
  context: Float,
): PrefixCache {
  const { hiddenSize } = backbone;
  const reading = new Set(prefixLayers(backbone, config));
  const cache = new Map<number, LayerContext>();
  const rows = (x: Float) => reshape(x, [x.shape[0]!, x.shape[2]!, x.shape[3]!]);
  const gated = (values: Float, layer: number) => {
    const [heads] = values.shape as [Dim];
    if (config.softmax === "joint") return values;
    return mul(values, reshape(weights.within(PREFIX_FOLDER).get(`layer.${layer}.gate`, [heads]), [heads, 1, 1]));
  };
  const remember: Attend = ({ layer, v, unturned: { q, k } }) => {
    if (reading.has(layer)) cache.set(layer, { keys: transposeLast(rows(scaled(k))), values: gated(rows(v), layer) });
    return attend({ q, k, v });
  };
  scope("context", () => {
    const size = { inputs: hiddenSize, outputs: hiddenSize };
    const tokens = weights.within(PREFIX_FOLDER).linear(context, "projection", size);
    const places = context.shape[0] as Dim;
    // What ends the embedding layer brings tokens to the scale that layer 0 expects; BERT does it in any case.
    const sequence = { attend: remember, embedAgain: backbone.architecture !== "bert" };
    const mask = expand(scalar(1, context.dtype), [1, places]);
    backboneOf(backbone, weights).encode(reshape(tokens, [1, places, hiddenSize]), mask, sequence);
  });
  return cache;
}

/** How the layers of a text attend, for `SequenceOptions.attend`: those in the cache to text and context. */
export function attendToPrefix({ softmax }: Pick<PrefixConfig, "softmax">, cache: PrefixCache): Attend {
  const attendToBoth = softmax === "joint" ? attendJointly : attendGated;
  return (inputs) => {
    const context = cache.get(inputs.layer);
    return context ? attendToBoth(inputs, context) : attend(inputs);
  };
}

/** The stage's own tensors before any training, by full name: a projection close to the identity, gates of 0. */
export function initialPrefix(
  backbone: BackboneConfig,
  config: PrefixConfig,
  seed: number,
): Record<string, TensorData> {
  const { hiddenSize: size, heads } = backbone;
  const random = createRandom(seed);
  const tensor = (shape: readonly number[], data: Float32Array): TensorData => ({ dtype: "float32", shape, data });
  // Uniform in ±0.02: added up over the entries of a unit vector this turns it by some degrees.
  const identity = (i: number) => (i % (size + 1) === 0 ? 1 : 0);
  const projection = Float32Array.from({ length: size * size }, (_, i) => identity(i) + 0.02 * (2 * random.next() - 1));
  const gates = config.softmax === "gated" ? prefixLayers(backbone, config) : [];
  return {
    [`${PREFIX_FOLDER}.projection.weight`]: tensor([size, size], projection),
    [`${PREFIX_FOLDER}.projection.bias`]: tensor([size], new Float32Array(size)),
    ...Object.fromEntries(
      gates.map((layer) => [`${PREFIX_FOLDER}.layer.${layer}.gate`, tensor([heads], new Float32Array(heads))]),
    ),
  };
}

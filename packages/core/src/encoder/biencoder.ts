/** A biencoder: one transformer, pooled. The first stage of every model, and the whole of one without context. */
import { type Float, input, l2Normalize, type Value } from "../graph/index.js";
import { backboneOf } from "../model/architectures.js";
import type { SequenceOptions } from "../model/backbone.js";
import type { BackboneConfig } from "../model/backbone-config.js";
import type { GraphWeights } from "../model/graph-weights.js";
import type { Pooling } from "../model/model-directory.js";
import { pool, poolWeighted } from "../model/pooling.js";

/** The inputs of a text graph: ids [B, S] and a mask [B, S] of ones and zeros. */
export function textInputs(dtype: "float32" | "float64" = "float32"): { ids: Value<"int32">; mask: Float } {
  return {
    ids: input("ids", "int32", ["B", "S"]),
    mask: input("mask", dtype, ["B", "S"]),
  };
}

/** Whether a biencoder's vectors can be means of weighted tokens. */
export function canWeighTokens(pooling: Pooling): boolean {
  return pooling === "mean";
}

/** ids and mask → `vectors` [B, hidden] of unit length. */
export function biencoderGraph(
  config: BackboneConfig,
  weights: GraphWeights,
  pooling: Pooling,
  sequence: SequenceOptions = {},
): { vectors: Float } {
  const { ids, mask } = textInputs(weights.form.dtype);
  const backbone = backboneOf(config, weights);
  const pooled = pool(pooling, backbone.encode(backbone.embed(ids), mask, sequence), mask);
  return { vectors: l2Normalize(pooled) };
}

/**
 * ids, mask and `weights` [B, M, S] → `vectors` [B, M, hidden] of unit length: for each text as many weighted means as
 * there are weightings of its tokens, all of one pass through the layers.
 */
export function weightedGraph(config: BackboneConfig, weights: GraphWeights): { vectors: Float } {
  const { ids, mask } = textInputs(weights.form.dtype);
  const backbone = backboneOf(config, weights);
  const hidden = backbone.encode(backbone.embed(ids), mask);
  return { vectors: l2Normalize(poolWeighted(hidden, input("weights", mask.dtype, ["B", "M", "S"]))) };
}

/** From hidden states to one vector a text. */
import {
  add,
  type Dim,
  div,
  expand,
  type Float,
  matMul,
  mul,
  pad,
  reduceMax,
  reduceSum,
  reshape,
  scalar,
  slice,
  sub,
} from "../graph/index.js";
import { paddingBias } from "./attention.js";
import type { Pooling } from "./model-directory.js";

/** Hidden states [batch, length, width] and a mask [batch, length] of ones, then zeros → [batch, width]. */
export function pool(kind: Pooling, hidden: Float, mask: Float): Float {
  const [batch, length, width] = hidden.shape as [Dim, Dim, Dim];
  switch (kind) {
    case "cls":
      return reshape(slice(hidden, { axis: 1, start: 0, end: 1 }), [batch, width]);
    case "max":
      return reduceMax(add(hidden, reshape(paddingBias(mask), [batch, length, 1])), { axes: [1] });
    case "last": {
      // The mask minus itself one place to the left leaves a one at the last token.
      const rest = slice(mask, { axis: 1, start: 1, end: length });
      return weightedSum(hidden, sub(mask, pad(rest, { axis: 1, before: 0, after: 1, size: length })));
    }
    case "mean": {
      // Σ h·mask / (Σ mask + 1e-20): an empty mask gives zeros (SPEC §1.1).
      const count = add(reduceSum(mask, { axes: [1], keep: true }), scalar(1e-20, mask.dtype));
      return weightedSum(hidden, div(mask, count));
    }
  }
}

/** Hidden states and several weightings [batch, means, length], zero at padding → [batch, means, width]. */
export function poolWeighted(hidden: Float, weights: Float): Float {
  const [batch, length, width] = hidden.shape as [Dim, Dim, Dim];
  const means = weights.shape[1] as Dim;
  const sum = add(reduceSum(weights, { axes: [2], keep: true }), scalar(1e-20, weights.dtype));
  // Each mean is a product of its own, so that it is the same to the bit whatever others are asked for. One text's hidden
  // states would be multiplied once for all its means, but for the copies.
  const rows = reshape(div(weights, sum), [batch, means, 1, length]);
  const copies = expand(reshape(hidden, [batch, 1, length, width]), [batch, means, length, width]);
  return reshape(matMul(rows, copies), [batch, means, width]);
}

/**
 * Hidden states [batch, length, width] → one mean a segment [batch, segments, width], with weights from
 * `segmentWeights`. Hidden states at padding count as zero.
 */
export function poolSegments(hidden: Float, mask: Float, weights: Float): Float {
  const [batch, length] = hidden.shape as [Dim, Dim, Dim];
  return matMul(weights, mul(hidden, reshape(mask, [batch, length, 1])));
}

/**
 * The reference's mean_pool_3d as a matrix (SPEC §1.1): every text, padded to a multiple of `segments`, is cut into
 * equal parts, each the mean of its tokens. A part without any is the mean over the whole padded length, so that this
 * one case depends on the batch. `mask` [texts, length] → [texts, segments, length].
 */
export function segmentWeights(
  mask: ArrayLike<number>,
  [texts, length]: readonly [texts: number, length: number],
  segments: number,
): Float32Array {
  const part = Math.ceil(length / segments);
  const weights = new Float32Array(texts * segments * length);
  for (let text = 0; text < texts; text++) {
    for (let segment = 0; segment < segments; segment++) {
      const positions = Array.from(
        { length: Math.max(0, Math.min(part, length - segment * part)) },
        (_, i) => segment * part + i,
      );
      const tokens = positions.filter((position) => mask[text * length + position]);
      const row = weights.subarray((text * segments + segment) * length).subarray(0, length);
      if (tokens.length === 0) row.fill(1 / (part * segments));
      for (const position of tokens) row[position] = 1 / tokens.length;
    }
  }
  return weights;
}

/** One batched product, with the weights [batch, length] as a row. */
function weightedSum(hidden: Float, weights: Float): Float {
  const [batch, length, width] = hidden.shape as [Dim, Dim, Dim];
  return reshape(matMul(reshape(weights, [batch, 1, length]), hidden), [batch, width]);
}

/** Multi-head attention over a batch of sequences. */
import {
  add,
  type Dim,
  type Float,
  matMul,
  mul,
  multiplyDims,
  reshape,
  scalar,
  scale,
  softmax,
  sub,
  transpose,
} from "../graph/index.js";

/** Added to the score of a key that may not be seen; safe in float32, where exp gives exactly 0. */
const MASKED = -1e9;

export interface AttentionShape {
  readonly batch: Dim;
  readonly length: Dim;
  readonly heads: number;
  /** Width of one head. */
  readonly width: number;
}

/** [batch·length, heads·width] → [batch, heads, length, width]. */
export function splitHeads(x: Float, { batch, length, heads, width }: AttentionShape): Float {
  return transpose(reshape(x, [batch, length, heads, width]), { perm: [0, 2, 1, 3] });
}

/** The inverse: [batch, heads, length, width] → [batch·length, heads·width]. */
export function mergeHeads(x: Float, { batch, length, heads, width }: AttentionShape): Float {
  return reshape(transpose(x, { perm: [0, 2, 1, 3] }), [multiplyDims([batch, length]), heads * width]);
}

/** softmax(q·kᵀ/√width + bias)·v, for q, k, v [batch, heads, length, width]; `bias` broadcasts to the scores. */
export function attend(q: Float, k: Float, v: Float, bias: Float | undefined, width: number): Float {
  const scores = matMul(scale(q, 1 / Math.sqrt(width)), transpose(k, { perm: [0, 1, 3, 2] }));
  return matMul(softmax(bias ? add(scores, bias) : scores), v);
}

/** A mask [batch, length] of ones and zeros as a bias [batch, 1, 1, length] for the scores: 0, or −1e9 where it is 0. */
export function paddingBias(mask: Float): Float {
  const [batch, length] = mask.shape as [Dim, Dim];
  const one = scalar(1, mask.dtype);
  return reshape(mul(sub(one, mask), scalar(MASKED, mask.dtype)), [batch, 1, 1, length]);
}

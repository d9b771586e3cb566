/** The contrastive loss of training, as a graph. */

import { mul, neg, scale, sub } from "./ops/elementwise.js";
import { l2Normalize, logSoftmax, matMul, reduceMean, reduceSum } from "./ops/matrix.js";
import type { Float } from "./value.js";

/** Subtracted from the logits of masked documents: their share of the softmax is exactly 0 in float32. */
const MASKED = 1e10;

export interface Contrast {
  /** [queries, width], of any length. */
  readonly queryVectors: Float;
  /** [documents, width], of any length: positives first, then hard negatives. */
  readonly documentVectors: Float;
  /** [queries, documents]; the positives of a query share 1. */
  readonly labels: Float;
  /** [queries, documents]: 1 at false negatives, which are left out of a query's softmax; 0 elsewhere, also at positives. */
  readonly masked: Float;
  /** 1/temperature: a number, or a value of the graph (rank 0 or [1]) where it is learned. The reference trains with 50, fixed. */
  readonly logitScale: number | Float;
}

/**
 * InfoNCE from queries to documents: the mean over queries of −Σ labels · log softmax(scale · cosine). A vector of zeros
 * gives NaN, as in the reference.
 *
 * *From*: Morris & Rush 2024, eq. 4; SPEC §6. *Relates to*: differentiated only down to the vectors, it is the middle
 * step of gradient caching (`differentiate` with the vectors as targets).
 */
export function infoNce(contrast: Contrast): Float {
  return crossEntropy(contrast.labels, maskedLogits(contrast));
}

/** Cosines [a, b] of the rows of two matrices. */
export function cosines(a: Float, b: Float): Float {
  return matMul(l2Normalize(a), l2Normalize(b), { transB: 1 });
}

/** What the softmax of `infoNce` is over: scale · cosine, far below all others where masked. */
export function maskedLogits({ queryVectors, documentVectors, masked, logitScale }: Omit<Contrast, "labels">): Float {
  const similar = cosines(queryVectors, documentVectors);
  const scaled = typeof logitScale === "number" ? scale(similar, logitScale) : mul(similar, logitScale);
  return sub(scaled, scale(masked, MASKED));
}

/** The mean over rows of −Σ shares · log softmax(logits). */
export function crossEntropy(shares: Float, logits: Float): Float {
  return neg(reduceMean(reduceSum(mul(shares, logSoftmax(logits)), { axes: [1] }), { axes: [0] }));
}

/** The contrastive loss of training, as a graph. */

import { mul, neg, scale, sub } from "./ops/elementwise.js";
import { l2Normalize, logSoftmax, matMul, reduceMean, reduceSum } from "./ops/matrix.js";
import { transposeLast } from "./ops/shape.js";
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
  /** 1/temperature. The reference trains with 50, fixed. */
  readonly logitScale: number;
}

/**
 * InfoNCE from queries to documents: the mean over queries of −Σ labels · log softmax(scale · cosine). A vector of zeros
 * gives NaN, as in the reference.
 *
 * *From*: Morris & Rush 2024, eq. 4; SPEC §6. *Relates to*: differentiated only down to the vectors, it is the middle
 * step of gradient caching (`differentiate` with the vectors as targets).
 */
export function infoNce({ queryVectors, documentVectors, labels, masked, logitScale }: Contrast): Float {
  const cosines = matMul(l2Normalize(queryVectors), transposeLast(l2Normalize(documentVectors)));
  const logits = sub(scale(cosines, logitScale), scale(masked, MASKED));
  return neg(reduceMean(reduceSum(mul(labels, logSoftmax(logits)), { axes: [1] }), { axes: [0] }));
}

/** From hidden states to one vector a text. */
import { add, type Dim, div, type Float, matMul, reduceSum, reshape, scalar, slice } from "../graph/index.js";

/** `mean` over the tokens of the mask; `cls` takes the first token. */
export type PoolingKind = "mean" | "cls";

/** Hidden states [batch, length, width] and a mask [batch, length] → [batch, width]. */
export function pool(kind: PoolingKind, hidden: Float, mask: Float): Float {
  const [batch, length, width] = hidden.shape as [Dim, Dim, Dim];
  if (kind === "cls") return reshape(slice(hidden, { axis: 1, start: 0, end: 1 }), [batch, width]);
  // Σ h·mask / (Σ mask + 1e-20): an empty mask gives zeros (SPEC §1.1). One batched product with the mask as a row.
  const count = add(reduceSum(mask, { axes: [1], keep: true }), scalar(1e-20, mask.dtype));
  const weights = reshape(div(mask, count), [batch, 1, length]);
  return reshape(matMul(weights, hidden), [batch, width]);
}

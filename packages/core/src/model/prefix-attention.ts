/** Attention of texts to a context whose keys and values depend on no text (docs/decisions/0012-prefix-stage.md). */
import { add, concat, type Dim, type Float, matMul, multiplyDims, reshape, slice, softmax } from "../graph/index.js";
import { type AttentionInputs, attend, scaled } from "./attention.js";

/** What one layer reads of a context of C rows, the same for every text. All that can be done beforehand is done. */
export interface LayerContext {
  /** [heads, width, C]: transposed, and divided by √width. */
  readonly keys: Float;
  /** [heads, C, width]: times the gates, where there are any. */
  readonly values: Float;
}

/** One softmax over the keys of context and text. */
export function attendJointly(inputs: AttentionInputs, context: LayerContext): Float {
  const { q, k, v, bias } = inputs;
  const textScores = add(matMul(scaled(q), k, { transB: 1 }), bias);
  const shares = softmax(concat([contextScores(inputs, context), textScores], 3));
  const [places, all] = [context.values.shape[1]!, shares.shape[3]!];
  const ofContext = slice(shares, { axis: 3, start: 0, end: places });
  const ofText = slice(shares, { axis: 3, start: places, end: all });
  return add(readContext(ofContext, context.values), matMul(ofText, v));
}

/** Plain attention to the text, plus attention to the context by a softmax of its own. */
export function attendGated(inputs: AttentionInputs, context: LayerContext): Float {
  return add(attend(inputs), readContext(softmax(contextScores(inputs, context)), context.values));
}

/**
 * [heads, batch, length, C], by one product a head with the rows of all texts: the context is never repeated for the
 * batch. A context row has no place, so the query isn't turned either: where its token stands doesn't matter.
 */
function contextScores({ unturned: { q } }: AttentionInputs, { keys }: LayerContext): Float {
  const [heads, batch, length] = q.shape as [Dim, Dim, Dim];
  return reshape(matMul(rowsOfAllTexts(q), keys), [heads, batch, length, keys.shape[2]!]);
}

/** shares [heads, batch, length, C] of values [heads, C, width] → [heads, batch, length, width] */
function readContext(shares: Float, values: Float): Float {
  return reshape(matMul(rowsOfAllTexts(shares), values), [...shares.shape.slice(0, 3), values.shape[2]!]);
}

/** [heads, batch, length, n] → [heads, batch·length, n] */
function rowsOfAllTexts(x: Float): Float {
  const [heads, batch, length, n] = x.shape as [Dim, Dim, Dim, Dim];
  return reshape(x, [heads, multiplyDims([batch, length]), n]);
}

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
  split,
  sub,
  transpose,
  width,
} from "../graph/index.js";
import { type RotaryTables, rotate } from "./rotary.js";

/** Added to the score of a key that may not be seen; safe in float32, where exp gives exactly 0. */
export const MASKED = -1e9;

export interface AttentionShape {
  readonly batch: Dim;
  readonly length: Dim;
  readonly heads: number;
  /** Width of one head. */
  readonly width: number;
}

/**
 * [batch·length, heads·width] → [heads, batch, length, width]: heads first, so that keys which all texts share are
 * scored by one product a head (prefix-attention.ts).
 */
export function splitHeads(x: Float, { batch, length, heads, width }: AttentionShape): Float {
  return transpose(reshape(x, [batch, length, heads, width]), { perm: [2, 0, 1, 3] });
}

/** The inverse: [heads, batch, length, width] → [batch·length, heads·width]. */
export function mergeHeads(x: Float, { batch, length, heads, width }: AttentionShape): Float {
  return reshape(transpose(x, { perm: [1, 2, 0, 3] }), [multiplyDims([batch, length]), heads * width]);
}

/** What one layer attends with; queries, keys and values are [heads, batch, length, width]. */
export interface AttentionInputs {
  /** Number of the layer, from 0. */
  readonly layer: number;
  readonly q: Float;
  readonly k: Float;
  readonly v: Float;
  /** Queries and keys as they are without positions: q and k themselves where the architecture turns none. */
  readonly unturned: { readonly q: Float; readonly k: Float };
  /** Added to the scores: padding, and what lies outside of a window. */
  readonly bias: Float;
}

/** Attention of one layer → [heads, batch, length, width]. */
export type Attend = (inputs: AttentionInputs) => Float;

/** softmax(q·kᵀ/√width + bias)·v; `bias` broadcasts to the scores. */
export function attend({ q, k, v, bias }: Pick<AttentionInputs, "q" | "k" | "v"> & { bias?: Float }): Float {
  const scores = matMul(scaled(q), k, { transB: 1 });
  return matMul(softmax(bias ? add(scores, bias) : scores), v);
}

/** q/√width */
export function scaled(q: Float): Float {
  return scale(q, 1 / Math.sqrt(width(q)));
}

/** The shapes of a batch of sequences whose tokens lie below each other. */
export interface TokenRows extends AttentionShape {
  /** [batch·length, hidden]: one row a token. */
  readonly flat: readonly [rows: Dim, hidden: number];
}

export function tokenRows(batch: Dim, length: Dim, heads: number, hidden: number): TokenRows {
  return { batch, length, heads, width: hidden / heads, flat: [multiplyDims([batch, length]), hidden] };
}

/** Attention from one product with rows [q | k | v][head][entry]: qkv [batch·length, 3·hidden] → [batch·length, hidden]. */
export function attendRotated(
  qkv: Float,
  rows: TokenRows,
  { layer, bias, rotary, by }: { layer: number; bias: Float; rotary: RotaryTables; by: Attend },
): Float {
  const [q, k, v] = split(qkv, { axis: 1, parts: 3 }).map((part) => splitHeads(part, rows)) as [Float, Float, Float];
  return mergeHeads(by({ layer, q: rotate(q, rotary), k: rotate(k, rotary), v, unturned: { q, k }, bias }), rows);
}

/** A mask [batch, length] of ones and zeros as a bias [1, batch, 1, length] for the scores: 0, or −1e9 where it is 0. */
export function paddingBias(mask: Float): Float {
  const [batch, length] = mask.shape as [Dim, Dim];
  const one = scalar(1, mask.dtype);
  return reshape(mul(sub(one, mask), scalar(MASKED, mask.dtype)), [1, batch, 1, length]);
}

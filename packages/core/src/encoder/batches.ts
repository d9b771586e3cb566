/** Micro-batches of texts of like length: padding is what costs most in a mixed batch (bench/README.md). */

import type { TensorData } from "../runtime/runtime.js";

/** Positions of texts that run together, padded to `length`. */
export interface MicroBatch {
  readonly positions: readonly number[];
  /** Tokens of the longest of them. */
  readonly length: number;
}

/**
 * What a layer makes of so many tokens stays in the processor's cache: for MiniLM a token costs 10 to 30 % more
 * processor time in runs of 2,048. Small runs also let a query through sooner.
 */
const TOKENS = 512;

export interface BatchLimits {
  /** Tokens of a micro-batch, padding included; a longer text runs alone. @default 512 */
  readonly tokens?: number;
  /** Texts of a micro-batch. @default 64 */
  readonly texts?: number;
  /** Tokens that every text brings along, such as a context; they count, and aren't in a batch's `length`. @default 0 */
  readonly prefix?: number;
}

/**
 * Groups texts by length, longest first, so that the largest run comes before memory was spent on others. `lengths` in
 * tokens.
 */
export function planBatches(lengths: readonly number[], limits: BatchLimits = {}): MicroBatch[] {
  const { tokens = TOKENS, texts = 64, prefix = 0 } = limits;
  const order = lengths.map((_, position) => position).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  const batches: MicroBatch[] = [];
  for (let start = 0; start < order.length; ) {
    const length = lengths[order[start]!]!;
    const count = Math.max(1, Math.min(texts, Math.floor(tokens / Math.max(1, prefix + length))));
    batches.push({ positions: order.slice(start, start + count), length });
    start += count;
  }
  return batches;
}

/** The ids of one micro-batch and their mask of ones and zeros, both [texts, length]. */
export function padBatch(
  { positions, length }: MicroBatch,
  ids: readonly Int32Array[],
  padId: number,
): { ids: TensorData; mask: TensorData } {
  const tokens = new Int32Array(positions.length * length).fill(padId);
  const mask = new Float32Array(positions.length * length);
  positions.forEach((position, row) => {
    const entry = ids[position]!;
    tokens.set(entry, row * length);
    mask.fill(1, row * length, row * length + entry.length);
  });
  const shape = [positions.length, length];
  return { ids: { dtype: "int32", shape, data: tokens }, mask: { dtype: "float32", shape, data: mask } };
}

/** What a token counts in its text's mean, by its id. */
export type Weighting = (id: number) => number;

/** What each token of a micro-batch counts in each of its text's means [texts, means, length]: zero at padding. */
export function weighBatch(
  { positions, length }: MicroBatch,
  ids: readonly Int32Array[],
  weightings: readonly Weighting[],
): TensorData {
  const shape = [positions.length, weightings.length, length];
  const weights = new Float32Array(positions.length * weightings.length * length);
  let start = 0;
  for (const position of positions) {
    for (const weightOf of weightings) {
      ids[position]!.forEach((id, i) => {
        weights[start + i] = weightOf(id);
      });
      start += length;
    }
  }
  return { dtype: "float32", shape, data: weights };
}

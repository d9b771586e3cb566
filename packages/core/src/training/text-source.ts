/** The texts of one step as a stage is fed with them: as ids, or as the states of frozen layers. */
import { type MicroBatch, padBatch, planBatches, type Weighting, weighBatch } from "../encoder/batches.js";
import type { Session, TensorData } from "../runtime/runtime.js";
import type { LayerCache } from "./layer-cache.js";
import { float32Tensor } from "./parameters.js";

export interface TextSource {
  /** Tokens of each text. */
  readonly lengths: readonly number[];
  feeds(batch: MicroBatch): Promise<Readonly<Record<string, TensorData>>>;
}

export function idsSource(ids: readonly Int32Array[], padId: number): TextSource {
  return {
    lengths: ids.map((entry) => entry.length),
    feeds: async (batch) => ({ ...padBatch(batch, ids, padId) }),
  };
}

/** The same texts, with what each of their tokens counts in the mean: `weights` [B, S], zero at padding. */
export function weighedSource(texts: TextSource, ids: readonly Int32Array[], weighting: Weighting): TextSource {
  return {
    lengths: texts.lengths,
    feeds: async (batch) => {
      const { data } = weighBatch(batch, ids, [weighting]);
      const weights = float32Tensor([batch.positions.length, batch.length], data as Float32Array);
      return { ...(await texts.feeds(batch)), weights };
    },
  };
}

export interface FrozenLayers {
  /** ids and mask to `states`. */
  readonly session: Session;
  readonly cache: LayerCache;
  readonly padId: number;
  /** Tokens of a micro-batch of the frozen layers. */
  readonly tokens: number;
}

/** States of frozen layers, computed for each micro-batch and not kept. */
export function lowerSource(ids: readonly Int32Array[], session: Session, padId: number): TextSource {
  return {
    lengths: ids.map((entry) => entry.length),
    feeds: async (batch) => {
      const { ids: tokens, mask } = padBatch(batch, ids, padId);
      const { states } = await session.run({ ids: tokens, mask });
      return { states: states!, mask };
    },
  };
}

/** Reads the states of frozen layers from the cache, after computing those that it lacks. */
export async function statesSource(ids: readonly Int32Array[], frozen: FrozenLayers): Promise<TextSource> {
  const { session, cache, padId, tokens } = frozen;
  const missing = ids.filter((entry) => !cache.has(entry));
  const lengths = missing.map((entry) => entry.length);
  for (const batch of planBatches(lengths, { tokens })) {
    const { states } = await session.run(padBatch(batch, missing, padId), {});
    const width = cache.width;
    const data = states!.data as Float32Array;
    for (const [row, position] of batch.positions.entries()) {
      const start = row * batch.length * width;
      await cache.add(missing[position]!, data.subarray(start, start + lengths[position]! * width));
    }
  }
  return {
    lengths: ids.map((entry) => entry.length),
    feeds: async (batch) => {
      const { positions, length } = batch;
      const { mask } = padBatch(batch, ids, padId);
      const states = new Float32Array(positions.length * length * cache.width);
      for (const [row, position] of positions.entries()) {
        await cache.read(ids[position]!, states, row * length * cache.width);
      }
      return { states: float32Tensor([positions.length, length, cache.width], states), mask };
    },
  };
}

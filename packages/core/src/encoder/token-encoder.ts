/** Runs token ids through one session: sorted by length, in micro-batches, back in the order given. */
import { internal, ModelError } from "../errors.js";
import type { StoredName } from "../runtime/protocol.js";
import type { Session } from "../runtime/runtime.js";
import { type BatchLimits, type MicroBatch, padBatch, planBatches, type Weighting, weighBatch } from "./batches.js";
import type { EmbedProgress } from "./embedder.js";

export interface EncodeOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: EmbedProgress) => void) | undefined;
}

/** Two runs wait in the worker at a time: it never idles, and a query that comes meanwhile waits for two at most. */
const LANES = 2;

/** A session that maps `ids` and `mask` [B, S] to `vectors` [B, dimensions]; with `weights` [B, M, S] to M of them a text. */
export class TokenEncoder {
  readonly #session: Session;
  readonly #padId: number;
  readonly #stored: () => Promise<Readonly<Record<string, StoredName>>>;
  readonly #limits: BatchLimits;
  readonly #weightings: readonly Weighting[] | undefined;

  /**
   * `stored` names further inputs that lie in the worker, such as context vectors; it is asked before every call.
   * `weightings` say what a token counts in each of its text's means, for sessions that read `weights`.
   */
  constructor(
    session: Session,
    options: {
      padId: number;
      limits?: BatchLimits;
      stored?: () => Promise<Readonly<Record<string, StoredName>>>;
      weightings?: readonly Weighting[] | undefined;
    },
  ) {
    this.#session = session;
    this.#padId = options.padId;
    this.#limits = options.limits ?? {};
    this.#stored = options.stored ?? (async () => ({}));
    this.#weightings = options.weightings;
  }

  /**
   * One vector per entry of `ids`, in order, of several means one after the other. Rejects with the signal's reason once
   * it is aborted.
   */
  async encode(ids: readonly Int32Array[], options: EncodeOptions = {}): Promise<Float32Array[]> {
    const { signal, onProgress } = options;
    signal?.throwIfAborted();
    if (ids.length === 0) return [];
    const stored = await this.#stored();
    const lengths = ids.map((entry) => entry.length);
    const plan = planBatches(lengths, this.#limits);
    const batches = plan.values();
    const vectors = new Array<Float32Array>(ids.length);
    let done = 0;
    let failed = false;
    const lane = async () => {
      try {
        for (const batch of batches) {
          if (failed) return;
          await this.#run(batch, ids, vectors, stored, signal);
          done += batch.positions.length;
          onProgress?.({ done, total: ids.length });
        }
      } catch (error) {
        failed = true;
        throw error;
      }
    };
    await Promise.all(Array.from({ length: Math.min(LANES, plan.length) }, lane));
    return vectors;
  }

  async #run(
    batch: MicroBatch,
    ids: readonly Int32Array[],
    vectors: Float32Array[],
    stored: Readonly<Record<string, StoredName>>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { positions } = batch;
    const padded = padBatch(batch, ids, this.#padId);
    const weightings = this.#weightings;
    const inputs = weightings ? { ...padded, weights: weighBatch(batch, ids, weightings) } : padded;
    const outputs = await this.#session.run(inputs, { stored, signal, transfer: true });
    const { data, shape: outputShape } = outputs.vectors ?? {};
    if (!(data instanceof Float32Array) || outputShape?.[0] !== positions.length)
      throw internal("a session without vectors");
    const width = data.length / positions.length;
    if (!data.every(Number.isFinite)) {
      throw new ModelError(
        "embed: the model gave vectors that aren't finite. Its weights hold NaN or Infinity, or are too large for their type.",
      );
    }
    positions.forEach((position, row) => {
      vectors[position] = data.slice(row * width, (row + 1) * width);
    });
  }
}

/** A function from texts to vectors that somebody else wrote: called in batches, and its answers checked. */
import { toUnitVector } from "../context/remap.js";
import { CdeError, InvalidInputError } from "../errors.js";
import type { EmbedProgress } from "./embedder.js";

/**
 * One vector a text, in order. Called with at most `batchSize` texts, for several batches at once; a model with prompts
 * tells queries from documents by `kind`. The signal aborts when the caller's does, or another batch has failed.
 */
export type EmbedFunction = (
  texts: readonly string[],
  options: { readonly kind: "query" | "document"; readonly signal: AbortSignal },
) => Promise<readonly ArrayLike<number>[]>;

/** The embed function failed, or gave what are no vectors of its texts. */
export class EmbedFunctionError extends CdeError {
  /** Position of the text, or of the first one of the batch. */
  readonly position: number;

  constructor(position: number, message: string, options?: ErrorOptions) {
    super("EMBED_FUNCTION", message, options);
    this.position = position;
  }
}

export interface BatchOptions {
  /** Texts of one call. @default 64 */
  readonly batchSize?: number;
  /** Calls at a time. @default 2 */
  readonly maxConcurrency?: number;
}

export interface EmbedCall extends BatchOptions {
  /** What the caller asked for, named in errors. */
  readonly operation: string;
  readonly kind: "query" | "document";
  /** Expected of every vector; that of the first one where absent. */
  readonly dimensions?: number | undefined;
  /** The caller's position of the text with this index. @default the index */
  readonly positionOf?: (index: number) => number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: EmbedProgress) => void) | undefined;
}

/**
 * The vectors of `texts`, each brought to unit length.
 *
 * @throws InvalidInputError for what is no text; EmbedFunctionError, with the position, where the function rejects or
 * gives too few or too many vectors, another dimension, numbers that aren't finite, or a zero vector
 */
export async function embedByFunction(
  embed: EmbedFunction,
  texts: readonly string[],
  call: EmbedCall,
): Promise<Float32Array[]> {
  const {
    operation,
    kind,
    signal,
    onProgress,
    batchSize = 64,
    maxConcurrency = 2,
    positionOf = (index) => index,
  } = call;
  for (const [name, value] of Object.entries({ batchSize, maxConcurrency })) {
    if (Number.isSafeInteger(value) && value > 0) continue;
    throw new InvalidInputError(`${operation}: ${name} must be an integer of at least 1, got ${value}.`);
  }
  const notText = texts.findIndex((text) => typeof text !== "string");
  if (notText >= 0) {
    const message = `${operation}: the text at position ${notText} is ${typeof texts[notText]}, expected a string.`;
    throw new InvalidInputError(message, { position: notText });
  }
  signal?.throwIfAborted();
  const stop = new AbortController();
  const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const vectors = new Array<Float32Array>(texts.length);
  let dimensions = call.dimensions;
  let done = 0;
  let next = 0;

  const runBatch = async (first: number, batch: readonly string[]): Promise<void> => {
    const position = positionOf(first);
    const range =
      batch.length === 1 ? `the text at position ${position}` : `${batch.length} texts from position ${position} on`;
    let rows: readonly ArrayLike<number>[];
    try {
      rows = await embed(batch, { kind, signal: both });
    } catch (cause) {
      both.throwIfAborted();
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new EmbedFunctionError(position, `${operation}: the embed function failed for ${range}: ${reason}`, {
        cause,
      });
    }
    both.throwIfAborted();
    if (!Array.isArray(rows) || rows.length !== batch.length) {
      const found = Array.isArray(rows) ? `${rows.length} vectors` : "no array of vectors";
      const message = `${operation}: the embed function gave ${found} for ${range}. It must give one a text, in order.`;
      throw new EmbedFunctionError(position, message);
    }
    for (const [i, row] of rows.entries()) {
      dimensions ??= (row as ArrayLike<number> | undefined)?.length || undefined;
      try {
        vectors[first + i] = toUnitVector(
          `${operation}: the embed function's answer`,
          row,
          dimensions ?? 1,
          positionOf(first + i),
        );
      } catch (cause) {
        if (!(cause instanceof InvalidInputError)) throw cause;
        throw new EmbedFunctionError(positionOf(first + i), cause.message, { cause });
      }
    }
    done += batch.length;
    onProgress?.({ done, total: texts.length });
  };

  const lane = async (): Promise<void> => {
    while (next < texts.length && !stop.signal.aborted) {
      const first = next;
      next += batchSize;
      await runBatch(first, texts.slice(first, first + batchSize));
    }
  };
  try {
    await Promise.all(
      Array.from({ length: maxConcurrency }, () =>
        lane().catch((error: unknown) => {
          // The other calls end too; the first failure is the one that is raised.
          if (!stop.signal.aborted) stop.abort(error);
          throw stop.signal.reason;
        }),
      ),
    );
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
  return vectors;
}

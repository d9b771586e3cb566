/** The interface of every nearest-neighbour index: vectors by label, cosine similarity. */
import { InvalidInputError } from "@cde-js/core";

/** One found row. */
export interface Neighbour {
  readonly label: number;
  /** Cosine similarity, from -1 to 1. */
  readonly score: number;
}

export interface NeighbourSearchOptions {
  /** Labels that may be found, as bits: label `n` is bit `n & 7` of byte `n >> 3` (see `labelSet`). All where absent. */
  readonly allowed?: Uint8Array;
  readonly signal?: AbortSignal;
}

/**
 * Rows by label. A label is an integer from 0 to 2^32 - 2 that the caller gives out, in the order of insertion: equal
 * scores are ranked by it. Every vector, row or query, has `dimensions` finite components and a length from 1e-12 to
 * 1e12; others raise InvalidInputError.
 */
export interface VectorIndex extends AsyncDisposable {
  readonly dimensions: number;
  /** Rows that a search sees. */
  readonly count: number;
  /** Adds rows or replaces them, all or none. `vectors` holds one row after another. */
  upsert(labels: Uint32Array, vectors: Float32Array): Promise<void>;
  /** Removes rows and says how many of the labels were there. */
  delete(labels: Uint32Array): Promise<number>;
  /** At most `k` rows, best first; fewer where fewer are there (or allowed). */
  search(query: Float32Array, k: number, options?: NeighbourSearchOptions): Promise<Neighbour[]>;
  close(): Promise<void>;
}

/** The bits of these labels, for `allowed`. */
export function labelSet(labels: Iterable<number>): Uint8Array {
  let bits = new Uint8Array(1024);
  for (const label of labels) {
    if (label >>> 3 >= bits.length) {
      const larger = new Uint8Array(Math.max(2 * bits.length, (label >>> 3) + 1));
      larger.set(bits);
      bits = larger;
    }
    bits[label >>> 3] = (bits[label >>> 3] as number) | (1 << (label & 7));
  }
  return bits;
}

/** Why this vector can't be a row or a query, or undefined where it can. */
export function vectorFault(vector: Float32Array, dimensions: number): string | undefined {
  if (vector.length !== dimensions) return `has ${vector.length} components, expected ${dimensions}`;
  let squares = 0;
  for (let i = 0; i < vector.length; i++) squares += (vector[i] as number) * (vector[i] as number);
  if (!Number.isFinite(squares)) {
    const at = vector.findIndex((x) => !Number.isFinite(x));
    return `has ${vector[at]} at component ${at}, expected finite numbers`;
  }
  if (squares === 0) return "is zero everywhere and has no direction";
  // Inside this range no float32 product of two vectors overflows or loses digits.
  const length = Math.sqrt(squares);
  return length < 1e-12 || length > 1e12 ? `has length ${length}, expected 1e-12 to 1e12` : undefined;
}

/** `k` as a count of results. */
export function checkK(k: number, operation: string): void {
  if (!Number.isSafeInteger(k) || k < 1) {
    throw new InvalidInputError(`${operation}: k must be an integer of at least 1, got ${String(k)}.`);
  }
}

/** A batch of rows as `upsert` takes it: distinct labels, sound vectors. */
export function checkRows(labels: Uint32Array, vectors: Float32Array, dimensions: number): void {
  if (vectors.length !== labels.length * dimensions) {
    throw new InvalidInputError(
      `upsert: ${labels.length} rows of ${dimensions} dimensions are ${labels.length * dimensions} numbers, ` +
        `got ${vectors.length}.`,
    );
  }
  const seen = new Set<number>();
  for (const [position, label] of labels.entries()) {
    if (seen.has(label)) {
      throw new InvalidInputError(`upsert: label ${label} comes twice in one batch, again at position ${position}.`, {
        position,
      });
    }
    seen.add(label);
    const fault = vectorFault(vectors.subarray(position * dimensions, (position + 1) * dimensions), dimensions);
    if (fault) {
      throw new InvalidInputError(`upsert: the vector at position ${position} ${fault}.`, { position });
    }
  }
}

/** Exact search of many queries at once over the vectors of a corpus: for evaluation, where no index is at hand. */
import { setImmediate as pause } from "node:timers/promises";
import { InvalidInputError } from "../errors.js";
import { ROW_BLOCK, simdRowProduct } from "../simd/product.js";

export interface ExactSearchOptions {
  /** Documents a query, at least 1. */
  readonly k: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { readonly done: number; readonly total: number }) => void) | undefined;
}

/** Positions of documents and their dot products with the query, best first; of equal ones the earlier document. */
export interface NearestDocuments {
  readonly positions: readonly number[];
  readonly scores: readonly number[];
}

/** Queries of one pass over the documents: 128 of 384 dimensions take 192 KiB, which stays in the second cache. */
const QUERY_BLOCK = 128;
/** Milliseconds of work after which the event loop gets a turn. */
const TURN = 15;

/**
 * The `k` documents of the largest dot product (cosine, of unit vectors) for each query. All vectors are of one
 * dimension; a score is the same whatever the other queries are.
 */
export async function exactSearch(
  queries: readonly Float32Array[],
  documents: readonly Float32Array[],
  { k, signal, onProgress }: ExactSearchOptions,
): Promise<NearestDocuments[]> {
  if (!Number.isSafeInteger(k) || k < 1)
    throw new InvalidInputError(`exactSearch: k should be an integer of at least 1, got ${k}.`);
  const dimensions = queries[0]?.length ?? documents[0]?.length ?? 0;
  for (const [name, vectors] of Object.entries({ query: queries, document: documents }))
    for (const [position, vector] of vectors.entries())
      if (vector.length !== dimensions || !vector.every(Number.isFinite))
        throw new InvalidInputError(
          `exactSearch: ${name} ${position} is no vector of ${dimensions} finite numbers, as the first query is.`,
          { position },
        );
  const found: NearestDocuments[] = [];
  let turn = performance.now();
  for (let first = 0; first < queries.length; first += QUERY_BLOCK) {
    const block = queries.slice(first, first + QUERY_BLOCK);
    const width = block.length;
    const matrix = new Float64Array(dimensions * width);
    block.forEach((query, q) => {
      for (let i = 0; i < dimensions; i++) matrix[i * width + q] = query[i]!;
    });
    const product = simdRowProduct(matrix, dimensions, width);
    const best = block.map(() => new Best(k));
    const rows = new Float32Array(ROW_BLOCK * dimensions);
    const scores = new Float32Array(ROW_BLOCK * width);
    for (let from = 0; from < documents.length; from += ROW_BLOCK) {
      const count = Math.min(ROW_BLOCK, documents.length - from);
      for (let r = 0; r < count; r++) rows.set(documents[from + r]!, r * dimensions);
      product(rows, count, scores);
      for (let r = 0; r < count; r++) {
        for (let q = 0; q < width; q++) best[q]!.offer(from + r, scores[r * width + q]!);
      }
      if (performance.now() - turn < TURN) continue;
      await pause();
      signal?.throwIfAborted();
      turn = performance.now();
    }
    found.push(...best.map((entries) => entries.sorted()));
    onProgress?.({ done: found.length, total: queries.length });
  }
  return found;
}

/** The k best of what was offered: collected up to twice k, then cut back, so that an offer costs next to nothing. */
class Best {
  readonly #k: number;
  #entries: { readonly position: number; readonly score: number }[] = [];
  /** What an offer has to exceed, once k are there: those offered later have larger positions, so ties lose. */
  #bar = Number.NEGATIVE_INFINITY;

  constructor(k: number) {
    this.#k = k;
  }

  offer(position: number, score: number): void {
    if (score <= this.#bar) return;
    this.#entries.push({ position, score });
    if (this.#entries.length >= 2 * this.#k) this.#cut();
  }

  sorted(): NearestDocuments {
    this.#cut();
    return {
      positions: this.#entries.map(({ position }) => position),
      scores: this.#entries.map(({ score }) => score),
    };
  }

  #cut(): void {
    this.#entries.sort((a, b) => b.score - a.score || a.position - b.position);
    this.#entries.length = Math.min(this.#entries.length, this.#k);
    if (this.#entries.length === this.#k) this.#bar = this.#entries.at(-1)!.score;
  }
}

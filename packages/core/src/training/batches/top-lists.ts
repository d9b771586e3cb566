/** The best rows of each query, gathered block by block. */

export interface Candidate {
  readonly row: number;
  readonly score: number;
}

/** Keeps the `size` best rows of each of `queries`; of equal scores the lower row. 12 bytes a place, two places a row. */
export class TopLists {
  readonly #size: number;
  readonly #room: number;
  readonly #rows: Uint32Array;
  readonly #scores: Float32Array;
  readonly #counts: Uint32Array;
  /** A score that no longer enters a list; NaN never stands here. */
  readonly #bars: Float32Array;

  constructor(queries: number, size: number) {
    this.#size = size;
    this.#room = 2 * size;
    this.#rows = new Uint32Array(queries * this.#room);
    this.#scores = new Float32Array(queries * this.#room);
    this.#counts = new Uint32Array(queries);
    this.#bars = new Float32Array(queries).fill(Number.NEGATIVE_INFINITY);
  }

  /** Products [rows, queries of this block] of the rows from `first` on, with the queries from `query` on. */
  add(products: Float32Array, first: number, query: number, queries: number): void {
    const rows = products.length / queries;
    for (let r = 0; r < rows; r++) {
      for (let q = 0; q < queries; q++) {
        const score = products[r * queries + q]!;
        if (score > this.#bars[query + q]!) this.#push(query + q, first + r, score);
      }
    }
  }

  /** The best of one query, best first. */
  list(query: number): Candidate[] {
    this.#prune(query);
    const at = query * this.#room;
    return Array.from({ length: this.#counts[query]! }, (_, i) => ({
      row: this.#rows[at + i]!,
      score: this.#scores[at + i]!,
    }));
  }

  #push(query: number, row: number, score: number): void {
    const at = query * this.#room + this.#counts[query]!;
    this.#rows[at] = row;
    this.#scores[at] = score;
    this.#counts[query]! += 1;
    if (this.#counts[query] === this.#room) this.#prune(query);
  }

  #prune(query: number): void {
    const at = query * this.#room;
    const count = this.#counts[query]!;
    const rows = this.#rows.slice(at, at + count);
    const scores = this.#scores.slice(at, at + count);
    const order = [...rows.keys()].sort((a, b) => scores[b]! - scores[a]! || rows[a]! - rows[b]!).slice(0, this.#size);
    for (const [i, from] of order.entries()) {
      this.#rows[at + i] = rows[from]!;
      this.#scores[at + i] = scores[from]!;
    }
    this.#counts[query] = order.length;
    // Rows come in ascending order, so an equal score that comes later is never better.
    if (order.length === this.#size) this.#bars[query] = this.#scores[at + this.#size - 1]!;
  }
}

/** The k best of a stream of scored rows, in memory for k. */

export interface ScoredRow {
  readonly row: number;
  readonly score: number;
}

/** A heap whose root is the worst kept. Higher scores are better; equal ones go to the smaller row. */
export class TopK {
  readonly #k: number;
  readonly #rows: number[] = [];
  readonly #scores: number[] = [];

  constructor(k: number) {
    this.#k = k;
  }

  /** True if this row would be kept: ask before doing anything costly about it. */
  admits(row: number, score: number): boolean {
    return this.#rows.length < this.#k || this.#worse(this.#scores[0]!, this.#rows[0]!, score, row);
  }

  push(row: number, score: number): void {
    if (!this.admits(row, score)) return;
    if (this.#rows.length < this.#k) this.#rise(row, score);
    else this.#sink(row, score);
  }

  /** The rows kept, best first. */
  sorted(): ScoredRow[] {
    return this.#rows
      .map((row, i) => ({ row, score: this.#scores[i]! }))
      .sort((a, b) => b.score - a.score || a.row - b.row);
  }

  #worse(scoreA: number, rowA: number, scoreB: number, rowB: number): boolean {
    return scoreA < scoreB || (scoreA === scoreB && rowA > rowB);
  }

  #rise(row: number, score: number): void {
    let at = this.#rows.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#worse(score, row, this.#scores[parent]!, this.#rows[parent]!)) break;
      this.#rows[at] = this.#rows[parent]!;
      this.#scores[at] = this.#scores[parent]!;
      at = parent;
    }
    this.#rows[at] = row;
    this.#scores[at] = score;
  }

  #sink(row: number, score: number): void {
    const size = this.#rows.length;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (
        child + 1 < size &&
        this.#worse(this.#scores[child + 1]!, this.#rows[child + 1]!, this.#scores[child]!, this.#rows[child]!)
      ) {
        child++;
      }
      if (!this.#worse(this.#scores[child]!, this.#rows[child]!, score, row)) break;
      this.#rows[at] = this.#rows[child]!;
      this.#scores[at] = this.#scores[child]!;
      at = child;
    }
    this.#rows[at] = row;
    this.#scores[at] = score;
  }
}

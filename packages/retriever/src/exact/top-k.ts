/** The k best of a stream of scores: a bounded binary heap with the worst one on top. */

export class TopK {
  readonly #labels: Uint32Array<ArrayBuffer>;
  readonly #scores: Float64Array<ArrayBuffer>;
  #size = 0;

  constructor(k: number) {
    this.#labels = new Uint32Array(k);
    this.#scores = new Float64Array(k);
  }

  /** A score below this can't enter. */
  get worst(): number {
    if (this.#size < this.#scores.length) return Number.NEGATIVE_INFINITY;
    return this.#scores[0] ?? Number.POSITIVE_INFINITY;
  }

  /** Takes the entry where it is among the k best so far; of equal scores the lower label wins. */
  offer(label: number, score: number): void {
    if (this.#size < this.#scores.length) {
      // A new leaf rises while it is worse than its parent.
      let at = this.#size++;
      this.#set(at, label, score);
      while (at > 0) {
        const parent = (at - 1) >> 1;
        if (!this.#worse(at, parent)) break;
        this.#swap(at, parent);
        at = parent;
      }
      return;
    }
    const worst = this.#scores[0];
    if (worst === undefined || score < worst || (score === worst && label > (this.#labels[0] as number))) return;
    this.#set(0, label, score);
    this.#sink();
  }

  /** All entries, best first. */
  ranking(): { labels: Uint32Array<ArrayBuffer>; scores: Float64Array<ArrayBuffer> } {
    const order = Array.from({ length: this.#size }, (_, i) => i).sort((a, b) => (this.#worse(a, b) ? 1 : -1));
    return {
      labels: Uint32Array.from(order, (i) => this.#labels[i] as number),
      scores: Float64Array.from(order, (i) => this.#scores[i] as number),
    };
  }

  #sink(): void {
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) return;
      if (child + 1 < this.#size && this.#worse(child + 1, child)) child++;
      if (!this.#worse(child, at)) return;
      this.#swap(at, child);
      at = child;
    }
  }

  #worse(a: number, b: number): boolean {
    const [x, y] = [this.#scores[a] as number, this.#scores[b] as number];
    return x < y || (x === y && (this.#labels[a] as number) > (this.#labels[b] as number));
  }

  #set(at: number, label: number, score: number): void {
    this.#labels[at] = label;
    this.#scores[at] = score;
  }

  #swap(a: number, b: number): void {
    const [label, score] = [this.#labels[a] as number, this.#scores[a] as number];
    this.#set(a, this.#labels[b] as number, this.#scores[b] as number);
    this.#set(b, label, score);
  }
}

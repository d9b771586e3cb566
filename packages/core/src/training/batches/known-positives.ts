/** All positives that a pair set names for a query text: each of them is right, whichever pair a batch has. */
import type { PairSet } from "../data/pair-set.js";

/** Finds them by binary search; 4 bytes a pair. */
export class KnownPositives {
  readonly #pairs: PairSet;
  readonly #byQuery: Uint32Array;

  constructor(pairs: PairSet) {
    this.#pairs = pairs;
    const keys = Float64Array.from({ length: pairs.size }, (_, position) => pairs.queryKey(position));
    this.#byQuery = Uint32Array.from(keys.keys()).sort((a, b) => keys[a]! - keys[b]! || a - b);
  }

  /** Document keys of the pairs with the same query text as the one at `position`, its own included. */
  of(position: number): number[] {
    const [pairs, order] = [this.#pairs, this.#byQuery];
    const key = pairs.queryKey(position);
    let [low, high] = [0, order.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pairs.queryKey(order[middle]!) < key) low = middle + 1;
      else high = middle;
    }
    const documents: number[] = [];
    for (; low < order.length && pairs.queryKey(order[low]!) === key; low++)
      documents.push(pairs.documentKey(order[low]!));
    return documents;
  }
}

/** Cuts a list of pairs into batches of one size in which no query text and no document comes twice. */

/** What may not come twice in a batch. */
export interface PairKeys {
  queryKey(position: number): number;
  documentKey(position: number): number;
}

export interface Packing {
  /** Positions, `size` each. */
  readonly batches: Uint32Array[];
  /** Positions that are in no batch, in the order of the list. */
  readonly leftOut: Uint32Array;
}

/**
 * Takes pairs in the order given. One whose query or document is in the batch already waits for the next one and goes
 * first there, so that it stays near its neighbours. Without repetitions these are the consecutive pieces of the list.
 * SPEC.md, section 4, step 4.
 */
export function packInOrder(order: ArrayLike<number>, size: number, keys: PairKeys): Packing {
  const batches: Uint32Array[] = [];
  let waiting: number[] = [];
  let next = 0;
  for (;;) {
    const batch: number[] = [];
    const [queries, documents] = [new Set<number>(), new Set<number>()];
    const still: number[] = [];
    const take = (position: number): void => {
      const [query, document] = [keys.queryKey(position), keys.documentKey(position)];
      if (batch.length === size || queries.has(query) || documents.has(document)) {
        still.push(position);
        return;
      }
      batch.push(position);
      queries.add(query);
      documents.add(document);
    };
    for (const position of waiting) take(position);
    while (batch.length < size && next < order.length) take(order[next++]!);
    if (batch.length < size) {
      const left = new Set([...batch, ...still]);
      return { batches, leftOut: Uint32Array.from(Array.from(order).filter((position) => left.has(position))) };
    }
    batches.push(Uint32Array.from(batch));
    waiting = still;
  }
}

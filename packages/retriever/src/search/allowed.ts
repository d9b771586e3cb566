/** Filters over documents as bits over passages, for both kinds of search. */
import { setImmediate as pause } from "node:timers/promises";
import type { JsonObject } from "../documents.js";
import type { FilterPoint } from "../filters/types.js";
import type { DocumentStore } from "../storage/document-store.js";

/** Documents looked at before the event loop gets a turn. */
const SLICE = 2000;

/** The passages that a filter allows. */
export interface AllowedPassages {
  /** Passage `n` is bit `n & 7` of byte `n >> 3`. */
  readonly bits: Uint8Array;
  readonly count: number;
}

/**
 * Ids and metadata of documents, decoded by the first filter that asks (about 1 s for 100,000 documents) and kept.
 * A document is the point that filters see, its metadata the payload: `{ key: "year" }` is `metadata.year`.
 */
export class FilterPoints {
  readonly #documents: DocumentStore;
  readonly #points: FilterPoint[] = [];

  constructor(documents: DocumentStore) {
    this.#documents = documents;
  }

  /** The document has other metadata now. */
  forget(number: number): void {
    delete this.#points[number];
  }

  /** The numbers of the documents that a filter accepts. */
  async matching(accepts: (point: FilterPoint) => boolean): Promise<number[]> {
    const numbers: number[] = [];
    for (const number of this.#documents.live()) {
      if (number % SLICE === SLICE - 1) await pause();
      if (this.#documents.isLive(number) && accepts(this.#point(number))) numbers.push(number);
    }
    return numbers;
  }

  /** Asks once a document. */
  async allowed(accepts: (point: FilterPoint) => boolean, signal?: AbortSignal): Promise<AllowedPassages> {
    const store = this.#documents;
    // As they are now: what is added while the filter runs is for the next search.
    const { documents } = store;
    const bits = new Uint8Array((store.passages + 7) >> 3);
    let count = 0;
    for (let number = 0; number < documents; number++) {
      if (number % SLICE === SLICE - 1) {
        await pause();
        signal?.throwIfAborted();
      }
      if (!store.isLive(number) || !accepts(this.#point(number))) continue;
      const end = store.firstPassage(number + 1);
      for (let passage = store.firstPassage(number); passage < end; passage++, count++) {
        bits[passage >> 3] = (bits[passage >> 3] as number) | (1 << (passage & 7));
      }
    }
    return { bits, count };
  }

  #point(number: number): FilterPoint {
    const known = this.#points[number];
    if (known) return known;
    const { id, metadata = NOTHING } = this.#documents.read(number).document;
    const point = { id, payload: metadata };
    this.#points[number] = point;
    return point;
  }
}

const NOTHING: JsonObject = {};

export function isAllowed({ bits }: AllowedPassages, passage: number): boolean {
  return ((bits[passage >> 3] ?? 0) & (1 << (passage & 7))) !== 0;
}

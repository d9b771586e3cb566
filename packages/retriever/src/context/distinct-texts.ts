/** A bounded random pool of a stream's different texts, in one pass: a bottom-k sketch. */
import { createHash } from "node:crypto";

/** A text of the pool and how often the stream had it. */
export interface PooledText<T> {
  /** Digest of seed and text: its rank in the random order. */
  readonly rank: string;
  document: T;
  text: string;
  readonly stratum: string | undefined;
  /** Times that it came, this one included. Exact for what is in the pool at the end. */
  copies: number;
}

/** The place of a text in the random order of a seed: 128 bits in hexadecimal, never the same for two texts. */
export function rankOf(seed: number, key: string): string {
  return createHash("sha256").update(`${seed}\n${key}`).digest("hex").slice(0, 32);
}

/**
 * Keeps the `capacity` texts of lowest rank: a uniform sample of the different texts, whatever their order and however
 * often each comes. A text below the last rank at the end was below it at all times, so none of its copies is missed.
 * From: Cohen & Kaplan 2007, "Summarizing data using bottom-k sketches".
 */
export class DistinctTexts<T> {
  readonly #capacity: number;
  readonly #kept: Map<string, PooledText<T>> = new Map();
  /** Ranks from here on are above those of `capacity` others. */
  #bar = "~";

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  offer(rank: string, text: string, document: T, stratum?: string): void {
    if (rank >= this.#bar) return;
    const known = this.#kept.get(rank);
    if (known) {
      known.copies++;
      // The same one of texts that differ in case or numbers, whichever came first.
      if (text < known.text) Object.assign(known, { text: copied(text), document: ownCopy(document) });
      return;
    }
    this.#kept.set(rank, { rank, text: copied(text), document: ownCopy(document), stratum, copies: 1 });
    if (this.#kept.size >= 2 * this.#capacity) this.#shrink();
  }

  /** By rank. */
  texts(): PooledText<T>[] {
    this.#shrink();
    return [...this.#kept.values()].sort((a, b) => (a.rank < b.rank ? -1 : 1));
  }

  #shrink(): void {
    const ranks = [...this.#kept.keys()].sort();
    const bar = ranks[this.#capacity];
    if (bar === undefined) return;
    this.#bar = bar;
    for (const rank of ranks.slice(this.#capacity)) this.#kept.delete(rank);
  }
}

function ownCopy<T>(document: T): T {
  return typeof document === "string" ? (copied(document) as T) : document;
}

/** A string of its own: V8 keeps a whole text alive for as long as a passage cut from it. */
function copied(text: string): string {
  return Buffer.from(text, "utf16le").toString("utf16le");
}

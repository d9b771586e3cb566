/**
 * Posting lists of all terms in one growing buffer: for each term the documents that hold it, and how often.
 *
 * A list is a chain of slices, each twice as large as the one before, so that a term of one document costs 24 bytes
 * and a long list is read almost in a row. A slice is `next: u32, used: u32, postings`; a posting is the distance to
 * the document before it and the count, as variable-length integers: the lowest bit says that the count is 1.
 */
import { internal } from "@cde-js/core";

const HEADER = 8;
const FIRST_CAPACITY = 16;
const LARGEST_CAPACITY = 65_536;

/** The arrays of a packed store: every list one slice, in the order of the terms. What a file holds. */
export interface PackedPostings {
  readonly pool: Uint8Array;
  readonly heads: Uint32Array;
  readonly lasts: Uint32Array;
  readonly counts: Uint32Array;
}

export class Postings {
  #pool: Uint8Array;
  #view: DataView;
  #end: number;
  #terms = 0;
  /** Per term: first slice, last slice, end of the last slice, last document + 1, number of postings. */
  #heads: Uint32Array;
  #tails: Uint32Array;
  #limits: Uint32Array;
  #lasts: Uint32Array;
  #counts: Uint32Array;
  #documents = new Uint32Array(1024);
  #frequencies = new Uint32Array(1024);

  /** An empty store, or one on packed arrays, which it takes over. */
  constructor(packed?: PackedPostings) {
    this.#pool = packed?.pool ?? new Uint8Array(65_536);
    this.#view = new DataView(this.#pool.buffer, this.#pool.byteOffset, this.#pool.byteLength);
    this.#end = packed?.pool.length ?? 0;
    this.#heads = packed?.heads ?? new Uint32Array(1024);
    this.#lasts = packed?.lasts ?? new Uint32Array(1024);
    this.#counts = packed?.counts ?? new Uint32Array(1024);
    this.#tails = this.#heads.slice();
    this.#limits = new Uint32Array(this.#heads.length);
    if (packed !== undefined) {
      this.#terms = packed.heads.length;
      for (let term = 0; term < this.#terms; term++) {
        const head = packed.heads[term]!;
        this.#limits[term] = head + HEADER + this.#view.getUint32(head + 4, true);
      }
    }
  }

  get terms(): number {
    return this.#terms;
  }

  get bytes(): number {
    return this.#pool.byteLength + 5 * this.#heads.byteLength + 2 * this.#documents.byteLength;
  }

  /** Number of postings of a term, deleted documents included. */
  count(term: number): number {
    return this.#counts[term]!;
  }

  /** A new term with an empty list; terms are numbered from 0. */
  addTerm(capacity: number = FIRST_CAPACITY): number {
    const term = this.#terms++;
    if (term >= this.#heads.length) {
      const longer = (array: Uint32Array): Uint32Array => resized(array, Math.max(1024, this.#heads.length * 2));
      [this.#tails, this.#limits, this.#lasts, this.#counts, this.#heads] = [
        longer(this.#tails),
        longer(this.#limits),
        longer(this.#lasts),
        longer(this.#counts),
        longer(this.#heads),
      ];
    }
    this.#heads[term] = this.#tails[term] = this.#end;
    this.#allocate(term, capacity);
    return term;
  }

  /** Appends a document, which must follow the term's last one. */
  append(term: number, document: number, frequency: number): void {
    const distance = document + 1 - this.#lasts[term]!;
    if (distance <= 0) throw internal(`postings out of order: document ${document} after ${this.#lasts[term]! - 1}`);
    let tail = this.#tails[term]!;
    let used = this.#view.getUint32(tail + 4, true);
    if (tail + HEADER + used + postingBytes(distance, frequency) > this.#limits[term]!) {
      const capacity = this.#limits[term]! - tail - HEADER;
      this.#view.setUint32(tail, this.#end, true);
      tail = this.#tails[term] = this.#end;
      used = 0;
      this.#allocate(term, Math.min(LARGEST_CAPACITY, Math.max(FIRST_CAPACITY, capacity * 2)));
    }
    const start = tail + HEADER + used;
    let at = this.#writeVarint(start, distance * 2 + (frequency === 1 ? 1 : 0));
    if (frequency !== 1) at = this.#writeVarint(at, frequency);
    this.#view.setUint32(tail + 4, used + at - start, true);
    this.#lasts[term] = document + 1;
    this.#counts[term]!++;
  }

  /** Reads a list. The arrays are the store's own, valid until the next call; entries from `count` on mean nothing. */
  read(term: number): { count: number; documents: Uint32Array; frequencies: Uint32Array } {
    const count = this.#counts[term]!;
    if (count > this.#documents.length) {
      this.#documents = new Uint32Array(count * 2);
      this.#frequencies = new Uint32Array(count * 2);
    }
    const [pool, view, documents, frequencies] = [this.#pool, this.#view, this.#documents, this.#frequencies];
    let slice = this.#heads[term]!;
    let document = -1;
    let i = 0;
    while (i < count) {
      let at = slice + HEADER;
      const end = at + view.getUint32(slice + 4, true);
      while (at < end) {
        let byte = pool[at++]!;
        let value = byte & 127;
        for (let shift = 7; byte > 127; shift += 7) {
          byte = pool[at++]!;
          value |= (byte & 127) << shift;
        }
        let frequency = 1;
        if ((value & 1) === 0) {
          byte = pool[at++]!;
          frequency = byte & 127;
          for (let shift = 7; byte > 127; shift += 7) {
            byte = pool[at++]!;
            frequency |= (byte & 127) << shift;
          }
        }
        document += value >>> 1;
        documents[i] = document;
        frequencies[i++] = frequency;
      }
      slice = view.getUint32(slice, true);
    }
    return { count: i, documents, frequencies };
  }

  /**
   * A store without the documents that `renumber` maps to -1 and without the terms left empty, the rest renumbered
   * (ascending), each list in one slice of its exact size. `keep` is told each kept term's number, old and new.
   */
  packed(renumber: Int32Array, keep: (before: number, after: number) => void): PackedPostings {
    const fresh = new Postings();
    for (let term = 0; term < this.#terms; term++) {
      const { count, documents, frequencies } = this.read(term);
      let bytes = 0;
      let previous = -1;
      for (let i = 0; i < count; i++) {
        const document = renumber[documents[i]!]!;
        if (document < 0) continue;
        bytes += postingBytes(document - previous, frequencies[i]!);
        previous = document;
      }
      if (previous < 0) continue;
      const kept = fresh.addTerm(bytes);
      for (let i = 0; i < count; i++) {
        const document = renumber[documents[i]!]!;
        if (document >= 0) fresh.append(kept, document, frequencies[i]!);
      }
      keep(term, kept);
    }
    const terms = fresh.#terms;
    return {
      pool: fresh.#pool.slice(0, fresh.#end),
      heads: fresh.#heads.slice(0, terms),
      lasts: fresh.#lasts.slice(0, terms),
      counts: fresh.#counts.slice(0, terms),
    };
  }

  #allocate(term: number, capacity: number): void {
    const end = this.#end + HEADER + capacity;
    if (end > 0xffffffff) throw internal("the postings of one index outgrew 4 GiB");
    if (end > this.#pool.length) {
      const larger = new Uint8Array(Math.min(0xffffffff, Math.max(end, Math.ceil(this.#pool.length * 1.5))));
      larger.set(this.#pool);
      this.#pool = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#view.setUint32(this.#end, 0, true);
    this.#view.setUint32(this.#end + 4, 0, true);
    this.#limits[term] = end;
    this.#end = end;
  }

  #writeVarint(at: number, value: number): number {
    let rest = value;
    while (rest > 127) {
      this.#pool[at++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    this.#pool[at++] = rest;
    return at;
  }
}

function postingBytes(distance: number, frequency: number): number {
  return varintBytes(distance * 2) + (frequency === 1 ? 0 : varintBytes(frequency));
}

function varintBytes(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x200000 ? 3 : value < 0x10000000 ? 4 : 5;
}

/** A copy with room for `length` entries, zeros after the old ones. */
export function resized(array: Uint32Array, length: number): Uint32Array {
  const larger = new Uint32Array(length);
  larger.set(array);
  return larger;
}

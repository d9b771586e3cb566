/** What a pair set keeps of each pair in memory: columns of numbers that grow while a set is made. */
import { internal } from "../../errors.js";

/** Bytes that a pair takes in memory: 8 of offset, 24 of keys, 4 of checksum, 2 of data set. */
export const BYTES_PER_PAIR = 38;

export interface PairColumns {
  readonly length: number;
  /** First byte of each record, and the end of the last one: one more than pairs. */
  readonly offsets: Float64Array;
  readonly queryKeys: Float64Array;
  readonly documentKeys: Float64Array;
  /** Key of the group's name; NaN where a pair has none. */
  readonly groupKeys: Float64Array;
  /** CRC-32 of each record. */
  readonly checksums: Uint32Array;
  /** Position in the list of data sets. */
  readonly datasets: Uint16Array;
}

/** One entry of each column. */
export interface PairEntry {
  readonly byteLength: number;
  readonly queryKey: number;
  readonly documentKey: number;
  readonly groupKey: number;
  readonly checksum: number;
  readonly dataset: number;
}

/** In the order in which they lie in the file, with the bytes of an entry; those of 8 first, so that all are aligned. */
export const COLUMNS: readonly { readonly name: Exclude<keyof PairColumns, "length">; readonly bytes: number }[] = [
  { name: "offsets", bytes: 8 },
  { name: "queryKeys", bytes: 8 },
  { name: "documentKeys", bytes: 8 },
  { name: "groupKeys", bytes: 8 },
  { name: "checksums", bytes: 4 },
  { name: "datasets", bytes: 2 },
];

export function emptyColumns(length: number): PairColumns {
  return {
    length,
    offsets: new Float64Array(length + 1),
    queryKeys: new Float64Array(length),
    documentKeys: new Float64Array(length),
    groupKeys: new Float64Array(length),
    checksums: new Uint32Array(length),
    datasets: new Uint16Array(length),
  };
}

/** Columns that grow, and a table that finds a pair of keys among them (open addressing, 4 bytes a slot). */
export class GrowingColumns {
  #columns: PairColumns = emptyColumns(1024);
  #slots = new Uint32Array(4096);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Whether a pair with both keys is there. 104 bits tell two pairs apart. */
  has(queryKey: number, documentKey: number): boolean {
    return this.#slots[this.#slotOf(queryKey, documentKey)] !== 0;
  }

  push(entry: PairEntry): void {
    if (this.#length === this.#columns.length) this.#grow();
    const at = this.#length++;
    const { offsets, queryKeys, documentKeys, groupKeys, checksums, datasets } = this.#columns;
    offsets[at + 1] = offsets[at]! + entry.byteLength;
    queryKeys[at] = entry.queryKey;
    documentKeys[at] = entry.documentKey;
    groupKeys[at] = entry.groupKey;
    checksums[at] = entry.checksum;
    datasets[at] = entry.dataset;
    this.#slots[this.#slotOf(entry.queryKey, entry.documentKey)] = at + 1;
  }

  /** The columns without the room to grow. */
  finish(): PairColumns {
    const n = this.#length;
    const { offsets, queryKeys, documentKeys, groupKeys, checksums, datasets } = this.#columns;
    return {
      length: n,
      offsets: offsets.subarray(0, n + 1),
      queryKeys: queryKeys.subarray(0, n),
      documentKeys: documentKeys.subarray(0, n),
      groupKeys: groupKeys.subarray(0, n),
      checksums: checksums.subarray(0, n),
      datasets: datasets.subarray(0, n),
    };
  }

  #slotOf(queryKey: number, documentKey: number): number {
    const mask = this.#slots.length - 1;
    const { queryKeys, documentKeys } = this.#columns;
    let slot = (Math.imul(queryKey % 2 ** 32, 0x9e3779b1) ^ (documentKey % 2 ** 32)) & mask;
    for (let tried = 0; tried <= mask; tried++, slot = (slot + 1) & mask) {
      const at = this.#slots[slot]! - 1;
      if (at < 0 || (queryKeys[at] === queryKey && documentKeys[at] === documentKey)) return slot;
    }
    throw internal("the table of pairs is full");
  }

  #grow(): void {
    const before = this.#columns;
    // By half: while it grows, both copies are there.
    const larger = emptyColumns(before.length + (before.length >> 1) + 1);
    for (const { name } of COLUMNS) (larger[name] as Float64Array).set(before[name] as Float64Array);
    this.#columns = larger;
    if (larger.length * 1.5 <= this.#slots.length) return;
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(larger.length * 1.5)));
    for (let at = 0; at < this.#length; at++) {
      this.#slots[this.#slotOf(larger.queryKeys[at]!, larger.documentKeys[at]!)] = at + 1;
    }
  }
}

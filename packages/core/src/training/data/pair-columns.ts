/** What a pair set keeps of each pair in memory: columns of numbers that grow while a set is made. */
import { KeyTable } from "./key-table.js";

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

/** Columns that grow, and that find a pair of keys among them. */
export class GrowingColumns {
  readonly #keys = new KeyTable();
  #others: Omit<PairColumns, "length" | "queryKeys" | "documentKeys"> = emptyColumns(1024);

  get length(): number {
    return this.#keys.length;
  }

  /** Whether a pair with both keys is there. 104 bits tell two pairs apart. */
  has(queryKey: number, documentKey: number): boolean {
    return this.#keys.find(queryKey, documentKey) >= 0;
  }

  push(entry: PairEntry): void {
    const at = this.#keys.length;
    if (at === this.#others.datasets.length) this.#grow();
    this.#keys.push(entry.queryKey, entry.documentKey);
    const { offsets, groupKeys, checksums, datasets } = this.#others;
    offsets[at + 1] = offsets[at]! + entry.byteLength;
    groupKeys[at] = entry.groupKey;
    checksums[at] = entry.checksum;
    datasets[at] = entry.dataset;
  }

  /** The columns without the room to grow. */
  finish(): PairColumns {
    const length = this.#keys.length;
    const { offsets, groupKeys, checksums, datasets } = this.#others;
    return {
      length,
      offsets: offsets.subarray(0, length + 1),
      queryKeys: this.#keys.first,
      documentKeys: this.#keys.second,
      groupKeys: groupKeys.subarray(0, length),
      checksums: checksums.subarray(0, length),
      datasets: datasets.subarray(0, length),
    };
  }

  #grow(): void {
    const { offsets, groupKeys, checksums, datasets } = this.#others;
    // By half: while it grows, both copies are there.
    const size = datasets.length + (datasets.length >> 1);
    this.#others = {
      offsets: enlarged(offsets, new Float64Array(size + 1)),
      groupKeys: enlarged(groupKeys, new Float64Array(size)),
      checksums: enlarged(checksums, new Uint32Array(size)),
      datasets: enlarged(datasets, new Uint16Array(size)),
    };
  }
}

function enlarged<T extends Float64Array | Uint32Array | Uint16Array>(values: T, larger: T): T {
  larger.set(values);
  return larger;
}

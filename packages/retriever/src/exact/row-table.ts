/** Vectors by label in WebAssembly memory, and the scan over all of them. Runs in the worker; knows no messages. */
import { CdeError, InvalidInputError } from "@cde-js/core/errors";
import { FLOAT_BLOCK, INT8_BLOCK, instantiateKernels } from "./kernel.js";
import { TopK } from "./top-k.js";

/** How rows are kept: 4 bytes a component, or 1 byte and a scale a row. */
export type RowType = "float32" | "int8";

/** Labels and cosine similarities, best first. */
export interface Ranking {
  readonly labels: Uint32Array<ArrayBuffer>;
  readonly scores: Float64Array<ArrayBuffer>;
}

/** Whether a label's bit is set; labels beyond the set are not in it. */
function hasLabel(set: Uint8Array, label: number): boolean {
  return ((set[label >>> 3] ?? 0) & (1 << (label & 7))) !== 0;
}

/** All memory, as the two kinds of components. */
interface Views {
  readonly floats: Float32Array;
  readonly bytes: Int8Array;
}

const PAGE = 65_536;
/** 4 GiB. */
const MOST_PAGES = 65_536;
/** Rows scored by one call of a kernel: their scores stay in the first-level cache. */
const SCAN_ROWS = 4096;
// An int16 query at this scale leaves room: 127 · 1023 · 16,384 dimensions < 2^31.
const QUERY_SCALE = 1023;
const MAX_DIMENSIONS = 16_384;

export class RowTable {
  readonly #type: RowType;
  readonly #dimensions: number;
  readonly #stride: number;
  readonly #kernels = instantiateKernels();
  // Memory: the query, the scores of one scan block, then the rows.
  readonly #scoresAt: number;
  readonly #rowsAt: number;
  #count = 0;
  #labels = new Uint32Array(1024);
  /** Turns a row's dot product into one with the row of length 1: 1/length, times the row's int8 scale. */
  #scales = new Float64Array(1024);
  readonly #rowOf = new Map<number, number>();

  constructor(dimensions: number, type: RowType) {
    if (dimensions > MAX_DIMENSIONS) {
      throw new InvalidInputError(`exact index: at most ${MAX_DIMENSIONS} dimensions, got ${dimensions}.`);
    }
    this.#type = type;
    this.#dimensions = dimensions;
    const block = type === "float32" ? FLOAT_BLOCK : INT8_BLOCK;
    this.#stride = Math.ceil((dimensions * (type === "float32" ? 4 : 1)) / block) * block;
    this.#scoresAt = type === "float32" ? this.#stride : 2 * this.#stride;
    this.#rowsAt = this.#scoresAt + 4 * SCAN_ROWS;
    this.#reserve(0);
  }

  get count(): number {
    return this.#count;
  }

  /** Adds rows, or replaces those whose label is known. `vectors` holds one row after another, checked by the caller. */
  upsert(labels: Uint32Array, vectors: Float32Array): void {
    // Room for all of them first: a batch that does not fit leaves the table as it was.
    let added = 0;
    for (const label of labels) if (!this.#rowOf.has(label)) added++;
    this.#reserve(this.#count + added);
    const dimensions = this.#dimensions;
    const views = this.#views();
    for (let i = 0; i < labels.length; i++) {
      const label = labels[i] as number;
      let row = this.#rowOf.get(label);
      if (row === undefined) {
        row = this.#count++;
        this.#rowOf.set(label, row);
        this.#labels[row] = label;
      }
      this.#write(views, row, vectors, i * dimensions);
    }
  }

  /** Removes the labels that are there and says how many were. The last row moves into each gap. */
  delete(labels: Uint32Array): number {
    const bytes = new Uint8Array(this.#kernels.memory.buffer);
    let removed = 0;
    for (const label of labels) {
      const row = this.#rowOf.get(label);
      if (row === undefined) continue;
      const last = --this.#count;
      const moved = this.#labels[last] as number;
      bytes.copyWithin(this.#at(row), this.#at(last), this.#at(last + 1));
      this.#labels[row] = moved;
      this.#scales[row] = this.#scales[last] as number;
      this.#rowOf.set(moved, row);
      this.#rowOf.delete(label);
      removed++;
    }
    return removed;
  }

  /** The float32 rows of these labels, bit for bit as they were given; undefined where a label is missing. */
  read(labels: Uint32Array): Float32Array<ArrayBuffer> | undefined {
    const found = new Float32Array(labels.length * this.#dimensions);
    for (const [i, label] of labels.entries()) {
      const row = this.#rowOf.get(label);
      if (row === undefined || this.#type !== "float32") return undefined;
      found.set(this.#floats(this.#at(row), this.#dimensions), i * this.#dimensions);
    }
    return found;
  }

  /** The `k` rows nearest to `query` by cosine; equal scores in the order of labels. */
  search(query: Float32Array, k: number, allowed?: Uint8Array): Ranking {
    const queryScale = this.#writeQuery(query);
    const top = new TopK(Math.min(k, this.#count));
    const [labels, scales] = [this.#labels, this.#scales];
    for (let start = 0; start < this.#count; start += SCAN_ROWS) {
      const rows = Math.min(SCAN_ROWS, this.#count - start);
      if (allowed && !this.#anyAllowed(start, rows, allowed)) continue;
      const dots = this.#dot(start, rows);
      let worst = top.worst;
      // Most rows are passed over by this loop, which therefore asks nothing else.
      for (let i = 0, row = start; i < rows; i++, row++) {
        const score = (dots[i] as number) * (scales[row] as number);
        if (score < worst) continue;
        const label = labels[row] as number;
        if (allowed && !hasLabel(allowed, label)) continue;
        top.offer(label, score);
        worst = top.worst;
      }
    }
    const ranking = top.ranking();
    // A vector with itself may come out at 1.0000001; -0 becomes 0.
    const scores = ranking.scores.map((score) => Math.max(-1, Math.min(1, score * queryScale)) + 0);
    return { labels: ranking.labels, scores };
  }

  #anyAllowed(start: number, rows: number, allowed: Uint8Array): boolean {
    for (let row = start; row < start + rows; row++) if (hasLabel(allowed, this.#labels[row] as number)) return true;
    return false;
  }

  #dot(start: number, rows: number): Float32Array | Int32Array {
    const { memory, dotFloat32, dotInt8 } = this.#kernels;
    const kernel = this.#type === "float32" ? dotFloat32 : dotInt8;
    kernel(0, this.#at(start), this.#stride, rows, this.#scoresAt);
    const view = this.#type === "float32" ? Float32Array : Int32Array;
    return new view(memory.buffer, this.#scoresAt, rows);
  }

  /** Writes the query at offset 0 and says by what a dot product with it has to be multiplied. */
  #writeQuery(query: Float32Array): number {
    const { length, largest } = measure(query);
    if (this.#type === "float32") {
      this.#floats(0, this.#dimensions).set(query);
      return 1 / length;
    }
    const view = new Int16Array(this.#kernels.memory.buffer, 0, this.#dimensions);
    for (const [i, x] of query.entries()) view[i] = Math.round((x / largest) * QUERY_SCALE);
    return largest / QUERY_SCALE / length;
  }

  /** One view of all memory for many rows: making one a row takes longer than filling it. Valid until memory grows. */
  #views(): Views {
    const { buffer } = this.#kernels.memory;
    return { floats: new Float32Array(buffer), bytes: new Int8Array(buffer) };
  }

  /** The vector that begins at `from` of `vectors`. */
  #write({ floats, bytes }: Views, row: number, vectors: Float32Array, from: number): void {
    const end = from + this.#dimensions;
    if (this.#type === "float32") {
      let squares = 0;
      for (let i = from, to = this.#at(row) >>> 2; i < end; i++, to++) {
        const x = vectors[i] as number;
        squares += x * x;
        floats[to] = x;
      }
      this.#scales[row] = 1 / Math.sqrt(squares);
      return;
    }
    const { length, largest } = measure(vectors, from, end);
    const scale = 127 / largest;
    for (let i = from, to = this.#at(row); i < end; i++, to++) {
      // Storing cuts the fraction off, so half is added first; Math.round takes several times as long.
      const x = (vectors[i] as number) * scale;
      bytes[to] = x < 0 ? x - 0.5 : x + 0.5;
    }
    this.#scales[row] = largest / 127 / length;
  }

  #at(row: number): number {
    return this.#rowsAt + row * this.#stride;
  }

  #floats(at: number, length: number): Float32Array {
    return new Float32Array(this.#kernels.memory.buffer, at, length);
  }

  /** Makes room for so many rows. */
  #reserve(rows: number): void {
    const { memory } = this.#kernels;
    const present = memory.buffer.byteLength / PAGE;
    const pages = Math.ceil(this.#at(rows) / PAGE) - present;
    if (pages > 0) {
      // Growing costs milliseconds, however little; pages that nobody has touched take no memory.
      const ample = Math.min(Math.ceil(present / 2), MOST_PAGES - present);
      try {
        if (ample <= pages || !grown(memory, ample)) memory.grow(pages);
      } catch (cause) {
        throw new CdeError(
          "INDEX_TOO_LARGE",
          `exact index: ${rows} rows of ${this.#stride} bytes do not fit into 4 GiB of memory. ` +
            (this.#type === "float32" ? 'Use rows: "int8", or several indexes.' : "Use several indexes."),
          { cause },
        );
      }
    }
    if (rows > this.#labels.length) {
      const capacity = Math.max(rows, 2 * this.#labels.length);
      const labels = new Uint32Array(capacity);
      labels.set(this.#labels);
      const scales = new Float64Array(capacity);
      scales.set(this.#scales);
      this.#labels = labels;
      this.#scales = scales;
    }
  }
}

/** Whether there was room. */
function grown(memory: { grow(pages: number): number }, pages: number): boolean {
  try {
    memory.grow(pages);
    return true;
  } catch {
    return false;
  }
}

function measure(vector: Float32Array, from = 0, end = vector.length): { length: number; largest: number } {
  let squares = 0;
  let largest = 0;
  for (let i = from; i < end; i++) {
    const x = vector[i] as number;
    squares += x * x;
    const size = x < 0 ? -x : x;
    if (size > largest) largest = size;
  }
  return { length: Math.sqrt(squares), largest };
}

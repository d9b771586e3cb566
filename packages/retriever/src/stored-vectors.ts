/**
 * Where the vectors lie that an index keeps: base vectors where the context is a map, otherwise those of the search.
 * They are held once: in memory, in files, or, where the rows of the search are they, only there.
 */
import { internal } from "@cde-js/core";
import type { BaseVectors, ExactIndex } from "./exact-index.js";
import type { OpenGeneration, RowFileKind } from "./storage/index-reader.js";
import type { LogReader } from "./storage/update-log.js";

/** The vectors of one update in a log, and where they begin in it. */
export interface LogRows {
  readonly log: LogReader;
  readonly position: number;
}

export interface StoredVectors extends BaseVectors {
  /** Takes the rows of the passages from `first` on, which follow those that are there. */
  add(first: number, rows: Float32Array, place?: LogRows): void;
  /** The passages from `first` on, which `add` has just taken, have not come after all. */
  truncate(first: number): void;
  /** The passages are gone; nobody reads them again. */
  remove(first: number, count: number): void;
  /** Vectors of these labels, ascending, in blocks; what lies in files is checked against its checksum. */
  blocks(labels: Uint32Array): AsyncGenerator<Float32Array>;
}

/** Rows moved at once. */
const BLOCK_ROWS = 4096;

async function* blocksOf(vectors: BaseVectors, labels: Uint32Array): AsyncGenerator<Float32Array> {
  for (let at = 0; at < labels.length; at += BLOCK_ROWS) yield await vectors.read(labels.slice(at, at + BLOCK_ROWS));
}

/** In memory: of an index that has no folder. */
export class MemoryVectors implements StoredVectors {
  readonly #dimensions: number;
  readonly #rows: (Float32Array | undefined)[] = [];

  constructor(dimensions: number) {
    this.#dimensions = dimensions;
  }

  add(first: number, rows: Float32Array): void {
    if (first !== this.#rows.length) throw internal(`vectors of passage ${first} after ${this.#rows.length}`);
    for (let at = 0; at < rows.length; at += this.#dimensions) {
      // Each its own array, so that a removed one frees its memory.
      this.#rows.push(rows.slice(at, at + this.#dimensions));
    }
  }

  truncate(first: number): void {
    this.#rows.length = first;
  }

  remove(first: number, count: number): void {
    this.#rows.fill(undefined, first, first + count);
  }

  async read(labels: Uint32Array): Promise<Float32Array> {
    const found = new Float32Array(labels.length * this.#dimensions);
    for (const [i, label] of labels.entries()) {
      const row = this.#rows[label];
      if (!row) throw internal(`no stored vector ${label}`);
      found.set(row, i * this.#dimensions);
    }
    return found;
  }

  blocks(labels: Uint32Array): AsyncGenerator<Float32Array> {
    return blocksOf(this, labels);
  }
}

/** The float32 rows of the exact search, bit for bit as they were given: nothing else has to keep them. */
export class SearchedVectors implements StoredVectors {
  readonly #index: ExactIndex;

  constructor(index: ExactIndex) {
    this.#index = index;
  }

  add(): void {}
  truncate(): void {}
  remove(): void {}

  read(labels: Uint32Array): Promise<Float32Array> {
    return this.#index.read(labels);
  }

  blocks(labels: Uint32Array): AsyncGenerator<Float32Array> {
    return blocksOf(this, labels);
  }
}

/**
 * In the files of a generation and, behind its last passage, in its logs; in memory, where an index that was read from
 * the folder doesn't write to it.
 */
export class FileVectors implements StoredVectors {
  readonly #generation: OpenGeneration;
  readonly #kind: RowFileKind;
  readonly #map: ((rows: Float32Array) => Float32Array) | undefined;
  readonly #dimensions: number;
  /** Passages from `first` up to the next one's lie one after another from `position` on. */
  readonly #runs: { readonly first: number; readonly rows: LogRows | Float32Array }[] = [];

  /** `map` is put between the rows of logs and the reader: logs hold base vectors, the file `rows` mapped ones. */
  constructor(generation: OpenGeneration, kind: RowFileKind = "vectors", map?: (rows: Float32Array) => Float32Array) {
    this.#generation = generation;
    this.#kind = kind;
    this.#map = map;
    this.#dimensions = generation.manifest.dimensions;
  }

  add(first: number, rows: Float32Array, place?: LogRows): void {
    this.#runs.push({ first, rows: place ?? rows.slice() });
  }

  truncate(first: number): void {
    if (this.#runs.at(-1)?.first === first) this.#runs.pop();
  }

  remove(): void {}

  async read(labels: Uint32Array): Promise<Float32Array> {
    const { passages } = this.#generation.manifest;
    const width = this.#dimensions;
    const inFile = labels.findIndex((label) => label >= passages);
    if (inFile < 0) return await this.#generation.vectorsOf(labels, this.#kind);
    const found = new Float32Array(labels.length * width);
    const own: number[] = [];
    await Promise.all(
      Array.from(labels, async (label, i) => {
        if (label < passages) {
          own.push(i);
          return;
        }
        const row = await this.#logged(label);
        found.set(this.#map ? this.#map(row) : row, i * width);
      }),
    );
    const rows = await this.#generation.vectorsOf(
      Uint32Array.from(own, (i) => labels[i] as number),
      this.#kind,
    );
    for (const [at, i] of own.entries()) found.set(rows.subarray(at * width, (at + 1) * width), i * width);
    return found;
  }

  /** Reads the whole file, since only then its checksum is known. */
  async *blocks(labels: Uint32Array): AsyncGenerator<Float32Array> {
    const width = this.#dimensions;
    const { passages } = this.#generation.manifest;
    let at = 0;
    for await (const { first, rows } of this.#generation.vectors(this.#kind)) {
      const end = first + rows.length / width;
      const start = at;
      while (at < labels.length && (labels[at] as number) < end) at++;
      if (at - start === end - first) yield rows;
      else if (at > start) {
        const some = new Float32Array((at - start) * width);
        for (let i = start; i < at; i++) {
          const from = ((labels[i] as number) - first) * width;
          some.set(rows.subarray(from, from + width), (i - start) * width);
        }
        yield some;
      }
    }
    if (at < labels.length && (labels[at] as number) < passages) throw internal("a passage that the file lacks");
    yield* blocksOf(this, labels.slice(at));
  }

  async #logged(label: number): Promise<Float32Array> {
    let [low, high] = [0, this.#runs.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.#runs[middle]?.first ?? 0) <= label) low = middle;
      else high = middle;
    }
    const run = this.#runs[low];
    if (!run || run.first > label) throw internal(`no stored vector ${label}`);
    const at = this.#dimensions * (label - run.first);
    if (run.rows instanceof Float32Array) return run.rows.subarray(at, at + this.#dimensions);
    const row = new Float32Array(this.#dimensions);
    await run.rows.log.read(new Uint8Array(row.buffer), run.rows.position + 4 * at);
    return row;
  }
}

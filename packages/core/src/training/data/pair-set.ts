/** Pairs on disk: records in one file, an index of numbers in another. Only the index is in memory. */
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { CorruptFileError, InvalidInputError, RuntimeFailureError } from "../../errors.js";
import type { TrainingPair } from "../batch.js";
import type { PairColumns } from "./pair-columns.js";
import { openPairFiles, type PairFiles } from "./pair-files.js";
import { type PairStatistics, statisticsOf } from "./statistics.js";

/** Bytes of records that are read with one call. */
const READ_BYTES = 1 << 20;
/** Bytes between two records over which one read goes on. */
const GAP_BYTES = 1 << 14;

/**
 * Pairs of one or more data sets. Immutable. A part of a set (`select`, `split`) reads the same files; closing any of
 * them closes all. `position` is a pair's place in this set, from 0.
 */
export class PairSet implements AsyncDisposable {
  readonly folder: string;
  readonly size: number;
  /** Names of the data sets, those without a pair in this part included. */
  readonly datasets: readonly string[];
  readonly #files: PairFiles;
  readonly #rows: Uint32Array | undefined;
  #digest: string | undefined;

  private constructor(files: PairFiles, rows?: Uint32Array) {
    this.#files = files;
    this.#rows = rows;
    this.folder = files.folder;
    this.datasets = files.datasets;
    this.size = rows?.length ?? files.columns.length;
  }

  /**
   * Opens what `createPairSet` wrote and checks the index against its digest; records are checked as they are read.
   * @throws MissingFileError, CorruptFileError
   */
  static async open(folder: string): Promise<PairSet> {
    return new PairSet(await openPairFiles(folder));
  }

  /** sha256 of the index, which holds a checksum of every record, and of the part: equal digests are equal pairs. */
  get digest(): string {
    if (!this.#rows) return this.#files.digest;
    this.#digest ??= createHash("sha256")
      .update(this.#files.digest)
      .update(new Uint8Array(this.#rows.buffer, this.#rows.byteOffset, this.#rows.byteLength))
      .digest("hex");
    return this.#digest;
  }

  /** The pairs at `positions`, in that order. @throws InvalidInputError for a position outside, CorruptFileError */
  async read(positions: ArrayLike<number>): Promise<TrainingPair[]> {
    const rows = Array.from(positions, (position) => this.#row(position));
    const order = [...rows.keys()].sort((a, b) => rows[a]! - rows[b]!);
    const pairs = new Array<TrainingPair>(rows.length);
    const { offsets } = this.#columns;
    for (let from = 0; from < order.length; ) {
      const start = offsets[rows[order[from]!]!]!;
      let to = from;
      let end = start;
      for (; to < order.length; to++) {
        const row = rows[order[to]!]!;
        const next = offsets[row + 1]!;
        if (to > from && (offsets[row]! - end > GAP_BYTES || next - start > READ_BYTES)) break;
        end = Math.max(end, next);
      }
      const bytes = await readBytes(this.#files.records, this.#files.recordsPath, start, end - start);
      for (const at of order.slice(from, to)) {
        const row = rows[at]!;
        pairs[at] = this.#parse(row, bytes.subarray(offsets[row]! - start, offsets[row + 1]! - start));
      }
      from = to;
    }
    return pairs;
  }

  /** All pairs in order, in bounded memory. */
  async *pairs(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<TrainingPair, void, undefined> {
    const slice = 512;
    for (let first = 0; first < this.size; first += slice) {
      options.signal?.throwIfAborted();
      yield* await this.read(Array.from({ length: Math.min(slice, this.size - first) }, (_, i) => first + i));
    }
  }

  /** Name of a pair's data set. */
  datasetOf(position: number): string {
    return this.datasets[this.#columns.datasets[this.#row(position)]!]!;
  }

  /** Positions of a data set's pairs, ascending. @throws InvalidInputError for a data set that isn't there */
  positionsOf(dataset: string): Uint32Array {
    const number = this.datasets.indexOf(dataset);
    if (number < 0) {
      throw new InvalidInputError(
        `PairSet.positionsOf: there is no data set ${JSON.stringify(dataset)}, only ${this.datasets.join(", ")}.`,
      );
    }
    const found = new Uint32Array(this.size);
    let count = 0;
    for (let position = 0; position < this.size; position++) {
      if (this.#columns.datasets[this.#row(position)] === number) found[count++] = position;
    }
    return found.slice(0, count);
  }

  /** Equal for queries of the same text, but for case, punctuation and white space. */
  queryKey(position: number): number {
    return this.#columns.queryKeys[this.#row(position)]!;
  }

  /** Equal for positives of the same text. */
  documentKey(position: number): number {
    return this.#columns.documentKeys[this.#row(position)]!;
  }

  /** Equal for pairs of the same group; NaN where a pair has none. */
  groupKey(position: number): number {
    return this.#columns.groupKeys[this.#row(position)]!;
  }

  /** A part of this set, in the order of `positions`. */
  select(positions: ArrayLike<number>): PairSet {
    return new PairSet(
      this.#files,
      Uint32Array.from({ length: positions.length }, (_, i) => this.#row(positions[i]!)),
    );
  }

  /** Counted afresh for this part; what was left out when the set was made is that of the whole. */
  statistics(): PairStatistics {
    return statisticsOf(this, this.#files.made);
  }

  async close(): Promise<void> {
    await this.#files.records.close().catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== "EBADF") throw cause; // closed through another part
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #columns(): PairColumns {
    return this.#files.columns;
  }

  #row(position: number): number {
    if (!Number.isInteger(position) || position < 0 || position >= this.size) {
      throw new InvalidInputError(`PairSet: there is no pair ${position}; positions go from 0 to ${this.size - 1}.`);
    }
    return this.#rows ? this.#rows[position]! : position;
  }

  #parse(row: number, bytes: Buffer): TrainingPair {
    const path = this.#files.recordsPath;
    if (crc32(bytes) !== this.#columns.checksums[row]) {
      throw new CorruptFileError(path, `PairSet: record ${row} of ${path} isn't what was written. Make the set again.`);
    }
    // A checksum tells damage, not malice.
    const damaged = (cause?: unknown): CorruptFileError =>
      new CorruptFileError(path, `PairSet: record ${row} of ${path} is no pair. Make the set again.`, { cause });
    let fields: unknown;
    try {
      fields = JSON.parse(bytes.toString("utf8"));
    } catch (cause) {
      throw damaged(cause);
    }
    const [id, query, positive, negatives = []] = Array.isArray(fields) ? (fields as unknown[]) : [];
    const texts = [id, query, positive, ...(Array.isArray(negatives) ? negatives : [undefined])];
    if (!texts.every((text) => typeof text === "string")) throw damaged();
    return { id: id as string, query: query as string, positive: positive as string, negatives: negatives as string[] };
  }
}

async function readBytes(file: FileHandle, path: string, start: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  try {
    for (let done = 0; done < length; ) {
      const { bytesRead } = await file.read(bytes, done, length - done, start + done);
      if (bytesRead === 0) throw new CorruptFileError(path, `PairSet: ${path} ends before its last record.`);
      done += bytesRead;
    }
  } catch (cause) {
    if (cause instanceof CorruptFileError) throw cause;
    throw new RuntimeFailureError(`PairSet: can't read ${path}: ${(cause as Error).message}`, { cause });
  }
  return bytes;
}

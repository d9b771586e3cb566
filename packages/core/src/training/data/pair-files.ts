/** The folder of a pair set: `records.jsonl`, the columns of `index.bin`, and `pairs.json`, which describes both. */
import { createHash, randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { CorruptFileError, RuntimeFailureError } from "../../errors.js";
import { isJsonObject, readJsonObject, unreadable } from "../../model/json-file.js";
import { COLUMNS, emptyColumns, type PairColumns } from "./pair-columns.js";
import type { PairFault } from "./pair-record.js";

const FORMAT = "cde-pairs-1";
const MANIFEST = "pairs.json";
const INDEX = "index.bin";
const RECORDS = "records.jsonl";
const WRITE_BYTES = 1 << 20;

/** What was left out while a set was made. */
export interface LeftOut {
  /** Pairs of the same query and positive as one before, but for case, punctuation and white space. */
  readonly duplicates: number;
  /** Pairs that were skipped, by fault. */
  readonly faults: Readonly<Partial<Record<PairFault, number>>>;
  /** Hard negatives named twice by one pair. */
  readonly repeatedNegatives: number;
}

/** Counts that only the making of a set sees. */
export interface Made {
  readonly leftOut: LeftOut;
  /** Of each data set, in their order. */
  readonly negatives: readonly number[];
}

export interface PairFiles {
  readonly folder: string;
  readonly digest: string;
  readonly datasets: readonly string[];
  readonly columns: PairColumns;
  readonly records: FileHandle;
  readonly recordsPath: string;
  readonly made: Made;
}

/** Writes a new folder beside the one wanted; `finish` puts it in place, wholly or not at all. */
export class PairFilesWriter {
  readonly #folder: string;
  readonly #temporary: string;
  readonly #records: FileHandle;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;

  private constructor(folder: string, temporary: string, records: FileHandle) {
    this.#folder = folder;
    this.#temporary = temporary;
    this.#records = records;
  }

  static async create(folder: string): Promise<PairFilesWriter> {
    const temporary = `${folder}.${process.pid}-${randomBytes(6).toString("hex")}.tmp`;
    return failure(folder, async () => {
      await mkdir(temporary, { recursive: true });
      return new PairFilesWriter(folder, temporary, await open(join(temporary, RECORDS), "wx"));
    });
  }

  async append(record: Uint8Array): Promise<void> {
    this.#pending.push(record);
    this.#pendingBytes += record.length;
    if (this.#pendingBytes >= WRITE_BYTES) await this.#flush();
  }

  async finish(columns: PairColumns, datasets: readonly string[], made: Made): Promise<void> {
    await this.#flush();
    await failure(this.#folder, async () => {
      await this.#records.sync();
      await this.#records.close();
      const hash = createHash("sha256");
      await using index = await open(join(this.#temporary, INDEX), "wx");
      for (const { name } of COLUMNS) {
        const { buffer, byteOffset, byteLength } = columns[name];
        const bytes = new Uint8Array(buffer, byteOffset, byteLength);
        hash.update(bytes);
        for (let at = 0; at < bytes.length; at += 2 ** 26) await index.writeFile(bytes.subarray(at, at + 2 ** 26));
      }
      await index.sync();
      const manifest = { format: FORMAT, pairs: columns.length, digest: hash.digest("hex"), datasets, made };
      await using described = await open(join(this.#temporary, MANIFEST), "wx");
      await described.writeFile(`${JSON.stringify(manifest, undefined, 2)}\n`);
      await described.sync();
      await rename(this.#temporary, this.#folder);
    });
  }

  async abandon(): Promise<void> {
    await this.#records.close().catch(() => {}); // the error that led here is the one to raise
    await rm(this.#temporary, { recursive: true, force: true });
  }

  async #flush(): Promise<void> {
    const bytes = Buffer.concat(this.#pending, this.#pendingBytes);
    this.#pending = [];
    this.#pendingBytes = 0;
    await failure(this.#folder, () => this.#records.appendFile(bytes));
  }
}

async function failure<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new RuntimeFailureError(`createPairSet: can't write ${folder}: ${reason}`, { cause });
  }
}

export async function openPairFiles(folder: string): Promise<PairFiles> {
  const operation = "PairSet.open";
  const path = join(folder, MANIFEST);
  const { format, pairs, digest, datasets, made } = await readJsonObject(operation, path);
  if (format !== FORMAT) {
    throw new CorruptFileError(
      path,
      `${operation}: ${path} has the format ${JSON.stringify(format)}, not "${FORMAT}".`,
    );
  }
  const names = Array.isArray(datasets) && datasets.every((name) => typeof name === "string") ? datasets : undefined;
  const { leftOut, negatives } = (isJsonObject(made) ? made : {}) as Partial<Made>;
  const counted = isJsonObject(leftOut) && isJsonObject(leftOut.faults) && Array.isArray(negatives);
  if (!Number.isSafeInteger(pairs) || (pairs as number) < 1 || !names || names.length > 2 ** 16 || !counted) {
    throw new CorruptFileError(path, `${operation}: ${path} doesn't describe a pair set. Make the set again.`);
  }
  const columns = await readColumns(operation, join(folder, INDEX), pairs as number, digest);
  checkColumns(operation, join(folder, INDEX), columns, names.length);
  const recordsPath = join(folder, RECORDS);
  let records: FileHandle;
  try {
    records = await open(recordsPath, "r");
  } catch (cause) {
    throw unreadable(operation, recordsPath, cause);
  }
  const { size } = await records.stat();
  if (size !== columns.offsets[columns.length]) {
    await records.close();
    throw new CorruptFileError(
      recordsPath,
      `${operation}: ${recordsPath} has ${size} bytes, the index counts ${columns.offsets[columns.length]}.`,
    );
  }
  return { folder, digest: digest as string, datasets: names, columns, records, recordsPath, made: made as Made };
}

async function readColumns(operation: string, path: string, pairs: number, digest: unknown): Promise<PairColumns> {
  // The size first: a wrong number of pairs must not make us reserve memory for them.
  const expected = COLUMNS.reduce((sum, { name, bytes }) => sum + bytes * lengthOf(name, pairs), 0);
  let file: FileHandle;
  try {
    const { size } = await stat(path);
    if (size !== expected) {
      throw new CorruptFileError(path, `${operation}: ${path} has ${size} bytes, expected ${expected}.`);
    }
    file = await open(path, "r");
  } catch (cause) {
    throw unreadable(operation, path, cause);
  }
  try {
    const columns = emptyColumns(pairs);
    const hash = createHash("sha256");
    let position = 0;
    for (const { name } of COLUMNS) {
      const { buffer, byteOffset, byteLength } = columns[name];
      const bytes = new Uint8Array(buffer, byteOffset, byteLength);
      for (let done = 0; done < byteLength; ) {
        const { bytesRead } = await file.read(bytes, done, Math.min(2 ** 26, byteLength - done), position + done);
        if (bytesRead === 0) throw new CorruptFileError(path, `${operation}: ${path} ended while it was read.`);
        done += bytesRead;
      }
      position += byteLength;
      hash.update(bytes);
    }
    if (hash.digest("hex") !== digest) {
      throw new CorruptFileError(path, `${operation}: ${path} isn't what was written. Make the set again.`);
    }
    return columns;
  } catch (cause) {
    throw unreadable(operation, path, cause);
  } finally {
    await file.close();
  }
}

function lengthOf(name: keyof PairColumns, pairs: number): number {
  return name === "offsets" ? pairs + 1 : pairs;
}

/** A digest tells damage, not malice: what is used as a place or a position is looked at. */
function checkColumns(operation: string, path: string, columns: PairColumns, datasets: number): void {
  const { offsets, datasets: numbers } = columns;
  const rising =
    offsets[0] === 0 &&
    offsets.every((offset, i) => Number.isSafeInteger(offset) && (i === 0 || offset > offsets[i - 1]!));
  if (!rising || numbers.some((number) => number >= datasets)) {
    throw new CorruptFileError(
      path,
      `${operation}: ${path} has places or data sets that can't be. Make the set again.`,
    );
  }
}

/** Whether something lies there already. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return false; // and whoever writes there says what is in the way
    throw cause;
  }
}

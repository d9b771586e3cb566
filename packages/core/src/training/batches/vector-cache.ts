/** Vectors of a surrogate on disk, by the texts that they are of; what is missing is embedded and added. */
import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { ModelChangedError } from "../../encoder/contextualize.js";
import { CdeError, CorruptFileError, FingerprintMismatchError, RuntimeFailureError } from "../../errors.js";
import { withLock } from "../../hub/lock.js";
import { readOptionalJsonObject } from "../../model/json-file.js";
import { KeyTable } from "../data/key-table.js";
import { rowKey } from "./row-key.js";
import type { Surrogate, TextKind } from "./surrogate.js";

const FORMAT = "cde-vectors-1";
const MANIFEST = "surrogate.json";
const KEYS = "keys.bin";
const VECTORS = "vectors.bin";
/** A key's two halves as float64. */
const KEY_BYTES = 16;
/** Before the numbers of a row: the CRC-32 of key and numbers, and four zeros that keep rows aligned. */
const HEAD_BYTES = 8;
/** Texts that are embedded before their vectors are written: an interruption costs no more. */
const SLICE = 1024;
/** One model on two machines agrees to five digits; another version of it is far below. */
const LEAST_PROBE_SIMILARITY = 0.999;
const PROBE_TEXT = "The tenant pays for flood damage. Der Vermieter repariert das Dach within 30 days.";

/** Vectors by text. */
export interface VectorSource extends AsyncDisposable {
  readonly surrogate: Surrogate;
  /** Known from the first vector on. */
  readonly dimensions: number;
  /** Embeds those of the texts that have no vector yet; the number of them. */
  ensure(texts: readonly string[], kind: TextKind, signal?: AbortSignal): Promise<number>;
  /** The vectors packed [texts, dimensions]; those that are missing are embedded first. */
  read(texts: readonly string[], kind: TextKind, signal?: AbortSignal): Promise<Float32Array>;
}

/**
 * The vectors of a surrogate, cached in a folder of its digest below `folder`. Processes may share it: a lock is held
 * while vectors are added. Rows carry a checksum, which is compared whenever one is read.
 *
 * @throws ModelChangedError where the surrogate's name is the same and its vector of a probe text isn't (cosine below
 * 0.999); CorruptFileError; FingerprintMismatchError for a folder of another surrogate
 */
export async function openVectors(
  folder: string,
  surrogate: Surrogate,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<VectorSource> {
  if (surrogate.stored) return openStored(surrogate, options.signal);
  const own = join(folder, surrogate.digest.slice(0, 16));
  const { signal } = options;
  const [probe] = await surrogate.embed([PROBE_TEXT], { kind: "document", signal });
  const dimensions = probe!.length;
  await checkSurrogate(own, surrogate, probe!);
  const flags = "a+";
  const files: FileHandle[] = [];
  try {
    for (const name of [KEYS, VECTORS]) {
      // Made where it isn't there; opened again for writing at a place, which "a" doesn't allow.
      await (await open(join(own, name), flags)).close();
      files.push(await open(join(own, name), "r+"));
    }
    const cache = new VectorCache(own, surrogate, dimensions, files[0]!, files[1]!);
    await cache.refresh();
    return cache;
  } catch (cause) {
    for (const file of files) await file.close();
    throw asFailure(own, cause);
  }
}

/** Writes what the cache is of, or compares. */
async function checkSurrogate(own: string, surrogate: Surrogate, probe: Float32Array): Promise<void> {
  const path = join(own, MANIFEST);
  const manifest = await readOptionalJsonObject("openVectors", path);
  if (manifest === undefined) {
    const content = {
      format: FORMAT,
      name: surrogate.name,
      digest: surrogate.digest,
      probe: { text: PROBE_TEXT, vector: [...probe] },
    };
    const temporary = `${path}.${process.pid}-${randomBytes(6).toString("hex")}.tmp`;
    try {
      await mkdir(own, { recursive: true });
      await using file = await open(temporary, "wx");
      await file.writeFile(`${JSON.stringify(content)}\n`);
      await file.sync();
      await rename(temporary, path);
    } catch (cause) {
      await rm(temporary, { force: true });
      throw asFailure(own, cause);
    }
    return;
  }
  const { format, digest, probe: then } = manifest;
  const vector = (then as { vector?: unknown } | undefined)?.vector;
  if (format !== FORMAT || !Array.isArray(vector) || !vector.every((value) => typeof value === "number")) {
    throw new CorruptFileError(path, `openVectors: ${path} doesn't describe a cache of vectors. Remove ${own}.`);
  }
  if (digest !== surrogate.digest) {
    throw new FingerprintMismatchError(
      surrogate.digest,
      String(digest),
      `openVectors: ${own} holds vectors of another surrogate (${String(digest).slice(0, 12)}, this one is ${surrogate.digest.slice(0, 12)}). Remove it, or choose another folder.`,
    );
  }
  const similarity =
    vector.length === probe.length
      ? probe.reduce((sum, value, i) => sum + value * (vector[i] as number), 0)
      : Number.NaN;
  if (similarity >= LEAST_PROBE_SIMILARITY) return;
  throw new ModelChangedError(
    surrogate.name,
    similarity,
    `openVectors: the surrogate ${surrogate.name} has changed since the vectors in ${own} were made: its vector of the probe text has ${probe.length} dimensions and a cosine of ${similarity.toFixed(4)} to the one kept (at least ${LEAST_PROBE_SIMILARITY} is expected). Remove ${own}, or give the surrogate another modelId.`,
  );
}

class VectorCache implements VectorSource {
  readonly surrogate: Surrogate;
  readonly dimensions: number;
  readonly #folder: string;
  readonly #keys: FileHandle;
  readonly #vectors: FileHandle;
  readonly #table = new KeyTable();
  readonly #rowBytes: number;
  /** Rows in the files; a text that two processes added at once has two. */
  readonly #rowOf: number[] = [];
  #rows = 0;

  constructor(folder: string, surrogate: Surrogate, dimensions: number, keys: FileHandle, vectors: FileHandle) {
    this.#folder = folder;
    this.surrogate = surrogate;
    this.dimensions = dimensions;
    this.#keys = keys;
    this.#vectors = vectors;
    this.#rowBytes = HEAD_BYTES + 4 * dimensions;
  }

  /** Reads the keys that were added since. A key that was cut off in writing counts as none. */
  async refresh(): Promise<void> {
    const rows = Math.floor((await this.#keys.stat()).size / KEY_BYTES);
    const { size } = await this.#vectors.stat();
    if (size < rows * this.#rowBytes || rows < this.#rows) {
      const path = join(this.#folder, VECTORS);
      throw new CorruptFileError(
        path,
        `vector cache: ${path} has ${size} bytes, ${rows} rows of ${this.#rowBytes} are expected. Remove ${this.#folder}.`,
      );
    }
    const slice = 1 << 16;
    while (this.#rows < rows) {
      const count = Math.min(slice, rows - this.#rows);
      const bytes = await this.#readAt(this.#keys, KEYS, this.#rows * KEY_BYTES, count * KEY_BYTES);
      const numbers = new Float64Array(bytes.buffer, bytes.byteOffset, 2 * count);
      for (let i = 0; i < count; i++) this.#know(numbers[2 * i]!, numbers[2 * i + 1]!);
    }
  }

  async ensure(texts: readonly string[], kind: TextKind, signal?: AbortSignal): Promise<number> {
    const missing = new Map<string, string>();
    for (const text of texts) {
      const { first, second } = rowKey(kind, text);
      if (this.#table.find(first, second) < 0) missing.set(`${first} ${second}`, text);
    }
    const left = [...missing.values()];
    for (let from = 0; from < left.length; from += SLICE) {
      const slice = left.slice(from, from + SLICE);
      const vectors = await this.surrogate.embed(slice, { kind, signal });
      await this.#append(slice, kind, vectors, signal);
    }
    return left.length;
  }

  async read(texts: readonly string[], kind: TextKind, signal?: AbortSignal): Promise<Float32Array> {
    await this.ensure(texts, kind, signal);
    const { dimensions } = this;
    const all = new Float32Array(texts.length * dimensions);
    const places = texts.map((text) => {
      const key = rowKey(kind, text);
      return { key, row: this.#rowOf[this.#table.find(key.first, key.second)]! };
    });
    const order = [...places.keys()].sort((a, b) => places[a]!.row - places[b]!.row);
    const most = Math.max(1, Math.floor(2 ** 20 / this.#rowBytes));
    for (let from = 0; from < order.length; ) {
      const first = places[order[from]!]!.row;
      let to = from + 1;
      while (to < order.length && places[order[to]!]!.row - places[order[to - 1]!]!.row <= 4) {
        if (places[order[to]!]!.row - first >= most) break;
        to++;
      }
      const count = places[order[to - 1]!]!.row - first + 1;
      const bytes = await this.#readAt(this.#vectors, VECTORS, first * this.#rowBytes, count * this.#rowBytes);
      for (const at of order.slice(from, to)) {
        const { key, row } = places[at]!;
        const start = (row - first) * this.#rowBytes;
        const numbers = bytes.subarray(start + HEAD_BYTES, start + this.#rowBytes);
        if (bytes.readUInt32LE(start) !== checksum(key.first, key.second, numbers)) {
          const path = join(this.#folder, VECTORS);
          throw new CorruptFileError(path, `vector cache: row ${row} of ${path} is damaged. Remove ${this.#folder}.`);
        }
        for (let i = 0; i < dimensions; i++) all[at * dimensions + i] = numbers.readFloatLE(4 * i);
      }
      from = to;
    }
    return all;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#keys.close();
    await this.#vectors.close();
  }

  #know(first: number, second: number): void {
    if (this.#table.find(first, second) < 0) {
      this.#table.push(first, second);
      this.#rowOf.push(this.#rows);
    }
    this.#rows++;
  }

  /** Vectors first and synced, then keys: a key is never there without its vector. */
  async #append(
    texts: readonly string[],
    kind: TextKind,
    vectors: readonly Float32Array[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const keys = Buffer.alloc(texts.length * KEY_BYTES);
    const rows = Buffer.alloc(texts.length * this.#rowBytes);
    for (const [i, text] of texts.entries()) {
      const vector = vectors[i];
      if (vector?.length !== this.dimensions) {
        throw new RuntimeFailureError(
          `surrogate ${this.surrogate.name}: a vector of ${vector?.length ?? "no"} dimensions, expected ${this.dimensions}.`,
        );
      }
      const { first, second } = rowKey(kind, text);
      keys.writeDoubleLE(first, i * KEY_BYTES);
      keys.writeDoubleLE(second, i * KEY_BYTES + 8);
      const start = i * this.#rowBytes;
      for (let d = 0; d < this.dimensions; d++) rows.writeFloatLE(vector[d]!, start + HEAD_BYTES + 4 * d);
      const numbers = rows.subarray(start + HEAD_BYTES, start + this.#rowBytes);
      rows.writeUInt32LE(checksum(first, second, numbers), start);
    }
    await withLock(join(this.#folder, "lock"), { signal }, async () => {
      await this.refresh();
      try {
        await writeAt(this.#vectors, rows, this.#rows * this.#rowBytes);
        await this.#vectors.datasync();
        await writeAt(this.#keys, keys, this.#rows * KEY_BYTES);
        await this.#keys.datasync();
      } catch (cause) {
        throw asFailure(this.#folder, cause);
      }
      await this.refresh();
    });
  }

  async #readAt(file: FileHandle, name: string, position: number, length: number): Promise<Buffer> {
    const bytes = Buffer.from(new ArrayBuffer(length));
    for (let done = 0; done < length; ) {
      const { bytesRead } = await file.read(bytes, done, length - done, position + done);
      if (bytesRead === 0) {
        const path = join(this.#folder, name);
        throw new CorruptFileError(path, `vector cache: ${path} ended while it was read. Remove ${this.#folder}.`);
      }
      done += bytesRead;
    }
    return bytes;
  }
}

function checksum(first: number, second: number, numbers: Uint8Array): number {
  const key = Buffer.alloc(KEY_BYTES);
  key.writeDoubleLE(first, 0);
  key.writeDoubleLE(second, 8);
  return crc32(numbers, crc32(key));
}

async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

/** A full disk and the like as an error of ours. */
function asFailure(folder: string, cause: unknown): unknown {
  if (cause instanceof CdeError || !(cause instanceof Error) || !("syscall" in cause)) return cause;
  return new RuntimeFailureError(`vector cache: can't write ${folder}: ${cause.message}`, { cause });
}

async function openStored(surrogate: Surrogate, signal: AbortSignal | undefined): Promise<VectorSource> {
  let dimensions = "dimensions" in surrogate ? (surrogate.dimensions as number) : 0;
  return {
    surrogate,
    get dimensions() {
      return dimensions;
    },
    ensure: async (texts, kind) => {
      await surrogate.embed(texts, { kind, signal });
      return 0;
    },
    async read(texts, kind, own) {
      const vectors = await surrogate.embed(texts, { kind, signal: own });
      dimensions ||= vectors[0]?.length ?? 0;
      const all = new Float32Array(texts.length * dimensions);
      for (const [i, vector] of vectors.entries()) all.set(vector, i * dimensions);
      return all;
    },
    async [Symbol.asyncDispose]() {},
  };
}

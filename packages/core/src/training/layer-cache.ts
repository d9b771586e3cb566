/**
 * The hidden states of frozen layers on disk, as float16, by text: later passes over the same texts touch the layers
 * above only. Every run writes a file of its own and reads those of others, so that two may run at once. A text of 128
 * tokens takes about 98 kB at a width of 384.
 */
import { createHash, randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { CdeError, CorruptFileError, InvalidInputError, internal, RuntimeFailureError } from "../errors.js";
import { float16ToFloat32, float32ToFloat16 } from "../model/half.js";

export interface LayerCacheOptions {
  /** sha256 (hex) of all that determines the states: the model's weights, its architecture, and how many layers. */
  readonly key: string;
  /** Numbers of one token's state. */
  readonly width: number;
  /** Largest size of all files of these layers together, in bytes. */
  readonly maxBytes: number;
}

/** The states of the next text would not fit into the limit that was set. */
export class LayerCacheFullError extends CdeError {
  readonly path: string;
  /** In bytes. */
  readonly limit: number;
  /** Texts that are in it. */
  readonly texts: number;

  constructor(path: string, limit: number, texts: number) {
    super(
      "LAYER_CACHE_FULL",
      `training: the cached states of ${texts} texts fill ${path}, whose limit is ${limit} bytes. Raise layerCache.maxBytes, shorten maxTokens, or leave layerCache out.`,
    );
    this.path = path;
    this.limit = limit;
    this.texts = texts;
  }
}

const MAGIC = "cde-states 1\n";
/** The magic line and the key. */
const FILE_HEAD = 128;
/** Digest of the ids, number of tokens, checksum of the data. */
const RECORD_HEAD = 32 + 4 + 4;
const MAX_TOKENS = 1 << 20;

interface Place {
  readonly file: FileHandle;
  readonly path: string;
  readonly start: number;
  readonly tokens: number;
  readonly checksum: number;
}

export class LayerCache implements AsyncDisposable {
  readonly directory: string;
  readonly width: number;
  readonly #options: LayerCacheOptions;
  readonly #files: FileHandle[];
  readonly #places: Map<string, Place>;
  #bytes: number;
  /** This run's own file, and where it ends. */
  #own: { readonly file: FileHandle; readonly path: string; end: number } | undefined;

  private constructor(directory: string, options: LayerCacheOptions, found: Scanned) {
    this.directory = directory;
    this.width = options.width;
    this.#options = options;
    this.#files = found.files;
    this.#places = found.places;
    this.#bytes = found.bytes;
  }

  /**
   * Opens all files of `key` in a directory. What a run that was killed wrote last and not wholly is passed over. Raises
   * CorruptFileError for a file that isn't such a cache.
   */
  static async open(directory: string, options: LayerCacheOptions): Promise<LayerCache> {
    if (!Number.isSafeInteger(options.maxBytes) || options.maxBytes < 1) {
      throw new InvalidInputError(
        `training: layerCache.maxBytes should be a whole number of bytes from 1, got ${options.maxBytes}.`,
      );
    }
    const found: Scanned = { files: [], places: new Map(), bytes: 0 };
    try {
      await mkdir(directory, { recursive: true });
      for (const name of (await readdir(directory)).sort()) {
        if (!name.startsWith(`${stem(options)}-`) || !name.endsWith(".states")) continue;
        const path = join(directory, name);
        const file = await open(path, "r");
        found.files.push(file);
        await scan(file, path, options, found);
      }
      return new LayerCache(directory, options, found);
    } catch (error) {
      for (const file of found.files) await file.close();
      throw error;
    }
  }

  /** Texts that it holds. */
  get size(): number {
    return this.#places.size;
  }

  /** Of all files of these layers. */
  get bytes(): number {
    return this.#bytes;
  }

  has(ids: Int32Array): boolean {
    return this.#places.has(keyOf(ids).toString("latin1"));
  }

  /** Adds the states of a text, [tokens, width]. Raises LayerCacheFullError, and RuntimeFailureError where the disk fails. */
  async add(ids: Int32Array, states: Float32Array): Promise<void> {
    const key = keyOf(ids);
    const name = key.toString("latin1");
    if (this.#places.has(name)) return; // the same text twice in one step
    const bits = float32ToFloat16(states);
    const data = new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
    const record = Buffer.alloc(RECORD_HEAD + data.length);
    key.copy(record);
    const tokens = states.length / this.width;
    const checksum = crc32(data);
    record.writeUInt32LE(tokens, 32);
    record.writeUInt32LE(checksum, 36);
    record.set(data, RECORD_HEAD);
    const { maxBytes } = this.#options;
    if (this.#bytes + record.length > maxBytes) {
      throw new LayerCacheFullError(this.directory, maxBytes, this.#places.size);
    }
    try {
      const own = this.#own ?? (await this.#begin());
      await writeAt(own.file, record, own.end);
      const { file, path, end } = own;
      this.#places.set(name, { file, path, start: end + RECORD_HEAD, tokens, checksum });
      own.end += record.length;
      this.#bytes += record.length;
    } catch (cause) {
      throw new RuntimeFailureError(`training: can't write to ${this.directory}: ${(cause as Error).message}`, {
        cause,
      });
    }
  }

  /** Writes a text's states into `target` from `offset` on. Raises CorruptFileError where the bytes have changed. */
  async read(ids: Int32Array, target: Float32Array, offset: number): Promise<void> {
    const place = this.#places.get(keyOf(ids).toString("latin1"));
    if (!place) throw internal("the states of a text are read that were never added");
    const bits = new Uint16Array(place.tokens * this.width);
    const bytes = new Uint8Array(bits.buffer);
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await place.file.read(bytes, done, bytes.length - done, place.start + done);
      if (bytesRead === 0) break; // the checksum says so
      done += bytesRead;
    }
    if (crc32(bytes) !== place.checksum) {
      throw new CorruptFileError(
        place.path,
        `training: the cached states at byte ${place.start} of ${place.path} were changed. Delete the file; it is made anew.`,
      );
    }
    float16ToFloat32(bits, target, offset);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#files) await file.close();
  }

  /** Of a random name: two runs never write the same file. */
  async #begin(): Promise<{ file: FileHandle; path: string; end: number }> {
    const path = join(this.directory, `${stem(this.#options)}-${randomBytes(6).toString("hex")}.states`);
    const file = await open(path, "wx+");
    this.#files.push(file);
    await writeAt(file, headOf(this.#options), 0);
    this.#own = { file, path, end: FILE_HEAD };
    this.#bytes += FILE_HEAD;
    return this.#own;
  }
}

interface Scanned {
  readonly files: FileHandle[];
  readonly places: Map<string, Place>;
  bytes: number;
}

function stem({ key }: LayerCacheOptions): string {
  return key.slice(0, 32);
}

function headOf({ key, width }: LayerCacheOptions): Buffer {
  const head = Buffer.alloc(FILE_HEAD, " ");
  head.write(`${MAGIC}${key} ${width}\n`);
  return head;
}

async function writeAt(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

/** The ids hold prompt, text and cut. */
function keyOf(ids: Int32Array): Buffer {
  return createHash("sha256")
    .update(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength))
    .digest();
}

/** Adds a file's records, up to the first that isn't whole: another run may be writing it. */
async function scan(file: FileHandle, path: string, options: LayerCacheOptions, found: Scanned): Promise<void> {
  const { size } = await file.stat();
  found.bytes += size;
  if (size < FILE_HEAD) return; // a run was killed while it began
  const head = Buffer.alloc(FILE_HEAD);
  await file.read(head, 0, FILE_HEAD, 0);
  if (!head.equals(headOf(options))) {
    throw new CorruptFileError(path, `training: ${path} isn't the cache of these layers. Delete it.`);
  }
  const record = Buffer.alloc(RECORD_HEAD);
  for (let end = FILE_HEAD; end + RECORD_HEAD <= size; ) {
    await file.read(record, 0, RECORD_HEAD, end);
    const tokens = record.readUInt32LE(32);
    const next = end + RECORD_HEAD + tokens * options.width * 2;
    if (tokens === 0 || tokens > MAX_TOKENS || next > size) return;
    const place: Place = { file, path, start: end + RECORD_HEAD, tokens, checksum: record.readUInt32LE(36) };
    found.places.set(record.toString("latin1", 0, 32), place);
    end = next;
  }
}

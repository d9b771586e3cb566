/**
 * The hidden states of frozen layers on disk, as float16, by text: later passes over the same texts touch the layers
 * above only. One file for each set of frozen layers; a text of 128 tokens takes about 98 kB at a width of 384.
 */
import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { CdeError, CorruptFileError, InvalidInputError, RuntimeFailureError } from "../errors.js";
import { float16ToFloat32, float32ToFloat16 } from "../model/half.js";

export interface LayerCacheOptions {
  /** sha256 (hex) of all that determines the states: the model's weights, its architecture, and how many layers. */
  readonly key: string;
  /** Numbers of one token's state. */
  readonly width: number;
  /** Largest size of the file in bytes. */
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
  readonly start: number;
  readonly tokens: number;
  readonly checksum: number;
}

export class LayerCache implements AsyncDisposable {
  readonly path: string;
  readonly width: number;
  readonly #file: FileHandle;
  readonly #maxBytes: number;
  readonly #places: Map<string, Place>;
  #end: number;

  private constructor(
    path: string,
    file: FileHandle,
    { width, maxBytes }: LayerCacheOptions,
    found: { places: Map<string, Place>; end: number },
  ) {
    this.path = path;
    this.width = width;
    this.#file = file;
    this.#maxBytes = maxBytes;
    this.#places = found.places;
    this.#end = found.end;
  }

  /**
   * Opens the file of `key` in a directory, or begins one. What a run that was killed wrote last and not wholly is cut
   * off. Raises CorruptFileError for a file that isn't such a cache.
   */
  static async open(directory: string, options: LayerCacheOptions): Promise<LayerCache> {
    if (!Number.isSafeInteger(options.maxBytes) || options.maxBytes < 1) {
      throw new InvalidInputError(
        `training: layerCache.maxBytes should be a whole number of bytes from 1, got ${options.maxBytes}.`,
      );
    }
    await mkdir(directory, { recursive: true });
    const path = join(directory, `${options.key.slice(0, 32)}.states`);
    const file = await open(path, "a+").then(
      // "a+" makes it where it is missing; writing at a place needs "r+".
      async (made) => {
        await made.close();
        return open(path, "r+");
      },
    );
    try {
      const head = Buffer.alloc(FILE_HEAD, " ");
      head.write(`${MAGIC}${options.key} ${options.width}\n`);
      const { size } = await file.stat();
      if (size < FILE_HEAD) await file.write(head, 0, FILE_HEAD, 0);
      else {
        const found = Buffer.alloc(FILE_HEAD);
        await file.read(found, 0, FILE_HEAD, 0);
        if (!found.equals(head)) {
          throw new CorruptFileError(path, `training: ${path} isn't the cache of these layers. Delete it.`);
        }
      }
      const found = await scan(file, Math.max(size, FILE_HEAD), options.width);
      await file.truncate(found.end);
      return new LayerCache(path, file, options, found);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get size(): number {
    return this.#places.size;
  }

  /** Of the file, in bytes. */
  get bytes(): number {
    return this.#end;
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
    if (this.#end + record.length > this.#maxBytes) {
      throw new LayerCacheFullError(this.path, this.#maxBytes, this.#places.size);
    }
    const place: Place = { start: this.#end + RECORD_HEAD, tokens, checksum };
    const at = this.#end;
    this.#end += record.length; // before waiting: two adds must not share a place
    try {
      for (let done = 0; done < record.length; ) {
        const { bytesWritten } = await this.#file.write(record, done, record.length - done, at + done);
        done += bytesWritten;
      }
    } catch (cause) {
      throw new RuntimeFailureError(`training: can't write ${this.path}: ${(cause as Error).message}`, { cause });
    }
    this.#places.set(name, place);
  }

  /** Writes a text's states into `target` from `offset` on. Raises CorruptFileError where the bytes have changed. */
  async read(ids: Int32Array, target: Float32Array, offset: number): Promise<void> {
    const place = this.#places.get(keyOf(ids).toString("latin1"));
    if (!place) throw new CorruptFileError(this.path, `training: ${this.path} lacks the states of a text.`);
    const bits = new Uint16Array(place.tokens * this.width);
    const bytes = new Uint8Array(bits.buffer);
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await this.#file.read(bytes, done, bytes.length - done, place.start + done);
      if (bytesRead === 0) break; // the checksum says so
      done += bytesRead;
    }
    if (crc32(bytes) !== place.checksum) {
      throw new CorruptFileError(
        this.path,
        `training: the cached states at byte ${place.start} of ${this.path} were changed. Delete the file; it is made anew.`,
      );
    }
    float16ToFloat32(bits, target, offset);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

/** The ids hold prompt, text and cut. */
function keyOf(ids: Int32Array): Buffer {
  return createHash("sha256")
    .update(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength))
    .digest();
}

/** Records up to the first that isn't whole. */
async function scan(
  file: FileHandle,
  size: number,
  width: number,
): Promise<{ places: Map<string, Place>; end: number }> {
  const places = new Map<string, Place>();
  const head = Buffer.alloc(RECORD_HEAD);
  let end = FILE_HEAD;
  while (end + RECORD_HEAD <= size) {
    await file.read(head, 0, RECORD_HEAD, end);
    const tokens = head.readUInt32LE(32);
    const next = end + RECORD_HEAD + tokens * width * 2;
    if (tokens === 0 || tokens > MAX_TOKENS || next > size) break;
    places.set(head.toString("latin1", 0, 32), {
      start: end + RECORD_HEAD,
      tokens,
      checksum: head.readUInt32LE(36),
    });
    end = next;
  }
  return { places, end };
}

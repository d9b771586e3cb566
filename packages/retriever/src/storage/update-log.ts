/**
 * The log of updates: checksummed records, each synced before its update is acknowledged. It knows nothing of what they
 * say (see `updates.ts`).
 *
 * A record: u32 magic, u32 kind, u32 payload bytes, u32 sequence, u32 CRC-32 of the payload, u32 CRC-32 of these twenty
 * bytes, payload. The first of a file says in JSON what the log belongs to. No file is ever appended to by a second
 * session: each begins its own, which says after which update it goes on. So a record that was written and not
 * acknowledged, or torn by a crash, is void as soon as another session has written.
 */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { CorruptFileError, InvalidInputError, internal } from "@cde-js/core";
import type { FileSystem, ReadableFile, WritableFile } from "./file-system.js";
import { asStorageErrors } from "./storage-errors.js";

const MAGIC = 0x4c454443; // "CDEL"
const MAGIC_BYTES = Buffer.from("CDEL");
const HEADER = 24;
const MAX_PAYLOAD = 2 ** 31 - 1;
/** Bytes read at once. */
const BLOCK = 4 * 2 ** 20;
const HEAD = 0;
const END = 1;
/** Kinds of the caller's begin here. */
export const FIRST_KIND = 16;

/** What a log belongs to. */
export type LogHead = Readonly<Record<string, unknown>>;

export interface LogRecord {
  readonly kind: number;
  /** Numbers all records of a log from 1, through its files. */
  readonly sequence: number;
  readonly payload: Buffer<ArrayBuffer>;
  /** Where the payload begins in its file. */
  readonly position: number;
}

/** One session's file. After a failed write it takes no more. */
export class LogWriter {
  readonly #file: WritableFile;
  readonly #directory: string;
  #sequence: number;
  #position = 0;
  #state: "open" | "failed" | "closed" = "open";

  private constructor(file: WritableFile, directory: string, sequence: number) {
    this.#file = file;
    this.#directory = directory;
    this.#sequence = sequence;
  }

  /** Begins a file that goes on after the record `sequence`. */
  static async create(
    fileSystem: FileSystem,
    directory: string,
    name: string,
    { head, sequence }: { readonly head: LogHead; readonly sequence: number },
  ): Promise<LogWriter> {
    return await asStorageErrors(directory, async () => {
      const file = await fileSystem.create(join(directory, name));
      const writer = new LogWriter(file, directory, sequence);
      try {
        await writer.#write(HEAD, sequence, [Buffer.from(JSON.stringify(head))]);
        await fileSystem.syncDirectory(directory);
      } catch (error) {
        await file.close();
        // Whatever of it is there says nothing yet.
        await fileSystem.remove(join(directory, name)).catch(() => {});
        throw error;
      }
      return writer;
    });
  }

  /** Number of the last record. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Bytes so far. */
  get size(): number {
    return this.#position;
  }

  get usable(): boolean {
    return this.#state === "open";
  }

  /** When it returns, a power cut doesn't undo it. Gives the place of the payload in the file. */
  async append(kind: number, parts: readonly Uint8Array[]): Promise<number> {
    if (this.#state !== "open") throw internal("a closed log");
    await asStorageErrors(this.#directory, () => this.#write(kind, this.#sequence + 1, parts));
    this.#sequence++;
    return this.#position - parts.reduce((sum, part) => sum + part.length, 0);
  }

  /** `finished` says that no record was lost: then a damaged last one is told from a torn one. */
  async close(finished: boolean): Promise<void> {
    if (this.#state === "closed") return;
    const sound = this.#state === "open" && finished;
    if (sound) await this.#write(END, this.#sequence, []).catch(() => {});
    this.#state = "closed";
    await this.#file.close();
  }

  async #write(kind: number, sequence: number, parts: readonly Uint8Array[]): Promise<void> {
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (length > MAX_PAYLOAD) {
      throw new InvalidInputError(`an update takes ${length} bytes, at most ${MAX_PAYLOAD} are allowed. Part it.`);
    }
    const header = Buffer.alloc(HEADER);
    const checksum = parts.reduce((sum, part) => crc32(part, sum), 0);
    for (const [i, word] of [MAGIC, kind, length, sequence >>> 0, checksum].entries())
      header.writeUInt32LE(word, 4 * i);
    header.writeUInt32LE(crc32(header.subarray(0, 20)), 20);
    try {
      // Small records in one write, so that a full disk tears as few as can be.
      if (length < 2 ** 20) await this.#file.write(Buffer.concat([header, ...parts]));
      else for (const part of [header, ...parts]) await this.#file.write(part);
      await this.#file.sync();
    } catch (error) {
      this.#state = "failed";
      throw error;
    }
    this.#position += HEADER + length;
  }
}

/** A log file that is read; its records may be read again by their place. */
export class LogReader {
  readonly path: string;
  readonly head: LogHead;
  /** The record that it goes on after. */
  readonly sequence: number;
  readonly #file: ReadableFile;
  readonly #start: number;

  private constructor(path: string, file: ReadableFile, head: LogRecord) {
    this.path = path;
    this.#file = file;
    this.sequence = head.sequence;
    this.#start = head.position + head.payload.length;
    try {
      this.head = Object(JSON.parse(head.payload.toString("utf8"))) as LogHead;
    } catch (cause) {
      throw new CorruptFileError(path, `${path} does not say what it belongs to.`, { cause });
    }
  }

  /** Undefined for a file that was torn before it said anything: no update was acknowledged in it. */
  static async open(fileSystem: FileSystem, directory: string, name: string): Promise<LogReader | undefined> {
    const path = join(directory, name);
    const file = await fileSystem.open(path);
    try {
      const head = await readRecord(file, 0);
      if (head?.kind === HEAD) return new LogReader(path, file, head);
      if (await recordAfter(file, 0)) throw new CorruptFileError(path, `${path}: its first record is damaged.`);
      await file.close();
      return undefined;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get size(): number {
    return this.#file.size;
  }

  /**
   * The records of the updates before `until`, in order. A last one that a crash has torn is passed over.
   *
   * @throws CorruptFileError for damage in the middle: whole records follow it.
   */
  async *records(until: number = Number.POSITIVE_INFINITY): AsyncGenerator<LogRecord> {
    let position = this.#start;
    for (let sequence = this.sequence + 1; sequence < until; sequence++) {
      const record = await readRecord(this.#file, position);
      if (record?.kind === END && record.sequence === sequence - 1) return;
      if (!record || record.kind < FIRST_KIND || record.sequence !== sequence >>> 0) {
        if (record || (await recordAfter(this.#file, position))) {
          throw new CorruptFileError(
            this.path,
            `${this.path}: the record of update ${sequence} is damaged, and others follow it. Restore the folder from a copy.`,
          );
        }
        return;
      }
      yield record;
      position = record.position + record.payload.length;
    }
  }

  /** Bytes of a payload that was read before, from its place on. */
  read(target: Uint8Array, position: number): Promise<void> {
    return this.#file.read(target, position);
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** The record at a place, or undefined where no whole one with right checksums is. */
async function readRecord(file: ReadableFile, at: number): Promise<LogRecord | undefined> {
  const header = await bytesAt(file, at, HEADER);
  if (!header) return undefined;
  const [magic, kind, length, sequence, checksum, own] = new Uint32Array(header.buffer, 0, 6) as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  if (magic !== MAGIC || crc32(header.subarray(0, 20)) !== own) return undefined;
  const payload = await bytesAt(file, at + HEADER, length);
  if (!payload || crc32(payload) !== checksum) return undefined;
  return { kind, sequence, payload, position: at + HEADER };
}

/** Whether a whole record stands anywhere behind a place. */
async function recordAfter(file: ReadableFile, at: number): Promise<boolean> {
  for (let from = at + 1; from < file.size; from += BLOCK) {
    // A little more than the step, so that no header lies across two blocks.
    const block = await bytesAt(file, from, Math.min(BLOCK + MAGIC_BYTES.length - 1, file.size - from));
    for (let i = block?.indexOf(MAGIC_BYTES) ?? -1; i >= 0 && i < BLOCK; i = block?.indexOf(MAGIC_BYTES, i + 1) ?? -1) {
      if (await readRecord(file, from + i)) return true;
    }
  }
  return false;
}

async function bytesAt(file: ReadableFile, at: number, length: number): Promise<Buffer<ArrayBuffer> | undefined> {
  if (at + length > file.size) return undefined;
  // Its own memory, so that what stands in it is aligned.
  const bytes = Buffer.allocUnsafeSlow(length) as Buffer<ArrayBuffer>;
  await file.read(bytes, at);
  return bytes;
}

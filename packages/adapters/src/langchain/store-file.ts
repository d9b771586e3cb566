/** One checked file that holds a vector store: header, documents, vectors, and the sha256 of all of it. */
import { createHash, randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { CdeError, CorruptFileError, MissingFileError } from "@cde-js/core";
import { StorageError } from "@cde-js/retriever";
import { fromLittleEndian, littleEndian } from "./little-endian.js";

export interface StoreHeader {
  readonly format: "cde-langchain-store/1";
  readonly modelId: string;
  readonly fingerprint: string;
  readonly dimensions: number;
  readonly count: number;
}

export interface StoredEntry {
  readonly id: string;
  readonly pageContent: string;
  readonly metadata: Record<string, unknown>;
}

/** Entries with their vectors, one row after another. */
export interface StoreBlock {
  readonly entries: readonly StoredEntry[];
  readonly vectors: Float32Array;
}

const FILE = "store.cde";
const DIGEST_BYTES = 32;
/** A header or block longer than this is damage, not data: it would be read into memory before its digest is known. */
const MAX_PART = 2 ** 31;

/**
 * Writes the file beside the one that is there and puts it in its place when all is on disk, so that whoever loads
 * finds either all of the old store or all of the new one.
 *
 * @throws StorageError (disk full, read-only, ...)
 */
export async function writeStore(
  directory: string,
  header: StoreHeader,
  blocks: AsyncIterable<StoreBlock>,
): Promise<void> {
  const temporary = join(directory, `${FILE}.${randomUUID()}.tmp`);
  try {
    await mkdir(directory, { recursive: true });
    {
      await using file = await open(temporary, "wx");
      const hash = createHash("sha256");
      const write = async (bytes: Uint8Array): Promise<void> => {
        hash.update(bytes);
        await file.appendFile(bytes);
      };
      const part = async (bytes: Uint8Array): Promise<void> => {
        const length = Buffer.alloc(4);
        length.writeUInt32LE(bytes.length);
        await write(length);
        await write(bytes);
      };
      await part(Buffer.from(JSON.stringify(header)));
      for await (const { entries, vectors } of blocks) {
        await part(Buffer.from(JSON.stringify(entries)));
        await write(littleEndian(vectors));
      }
      await file.appendFile(hash.digest());
      await file.sync();
    }
    await rename(temporary, join(directory, FILE));
    // Not every system can open or sync a folder; the rename is atomic either way.
    const folder = await open(directory).catch(() => undefined);
    await folder?.sync().catch(() => {});
    await folder?.close();
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw cause instanceof CdeError ? cause : storageError("save", directory, cause);
  }
}

/**
 * Reads a store block by block. `accept` sees the header first and may throw. The digest is checked last: what was
 * given out before is to be thrown away where this throws.
 *
 * @throws MissingFileError, CorruptFileError
 */
export async function readStore(
  directory: string,
  accept: (header: StoreHeader) => void,
  onBlock: (block: StoreBlock) => Promise<void>,
): Promise<void> {
  const path = join(directory, FILE);
  const corrupt = (reason: string, cause?: unknown): CorruptFileError =>
    new CorruptFileError(path, `load: ${path} ${reason}. Save the store again.`, { cause });
  await using file = await openFile(path);
  const hash = createHash("sha256");
  const end = (await file.stat()).size - DIGEST_BYTES;
  let at = 0;
  const read = async (length: number, upTo: number): Promise<Buffer<ArrayBuffer>> => {
    if (length > MAX_PART || at + length > upTo) throw corrupt("is shorter than it says; it was cut or altered");
    const bytes = Buffer.alloc(length);
    for (let filled = 0; filled < length; ) {
      const { bytesRead } = await file.read(bytes, filled, length - filled, at + filled);
      if (bytesRead === 0) throw corrupt("was cut while it was read");
      filled += bytesRead;
    }
    at += length;
    return bytes;
  };
  const next = async (length: number): Promise<Buffer<ArrayBuffer>> => {
    const bytes = await read(length, end);
    hash.update(bytes);
    return bytes;
  };
  const json = async (): Promise<unknown> => {
    const bytes = await next((await next(4)).readUInt32LE());
    try {
      return JSON.parse(bytes.toString("utf8"));
    } catch (cause) {
      throw corrupt("holds a part that isn't JSON", cause);
    }
  };
  const header = await json();
  if (!isHeader(header)) throw corrupt(`doesn't begin with the header of a "cde-langchain-store/1"`);
  accept(header);
  let count = 0;
  while (at < end) {
    const entries = await json();
    if (!isEntries(entries)) throw corrupt("holds documents that are none");
    const bytes = await next(entries.length * header.dimensions * Float32Array.BYTES_PER_ELEMENT);
    count += entries.length;
    await onBlock({ entries, vectors: fromLittleEndian(bytes) });
  }
  if (count !== header.count) throw corrupt(`says ${header.count} documents and holds ${count}`);
  if (!(await read(DIGEST_BYTES, end + DIGEST_BYTES)).equals(hash.digest())) {
    throw corrupt("does not match its checksum: it was altered after it was saved");
  }
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "ENOTDIR") throw storageError("load", path, cause);
    throw new MissingFileError(path, `load: there is no saved store ${path}.`, { cause });
  }
}

function storageError(operation: string, path: string, cause: unknown): StorageError {
  const { code, message } = cause as NodeJS.ErrnoException;
  return new StorageError(path, `${operation}: ${path}: ${message}. What was saved before is whole.`, {
    cause,
    errno: code,
  });
}

function isHeader(value: unknown): value is StoreHeader {
  const { format, modelId, fingerprint, dimensions, count } = (value ?? {}) as Partial<Record<string, unknown>>;
  return (
    format === "cde-langchain-store/1" &&
    typeof modelId === "string" &&
    typeof fingerprint === "string" &&
    Number.isSafeInteger(dimensions) &&
    (dimensions as number) > 0 &&
    Number.isSafeInteger(count)
  );
}

function isEntries(value: unknown): value is StoredEntry[] {
  return (
    Array.isArray(value) &&
    value.every((entry: Partial<Record<string, unknown>> | null) => {
      const { id, pageContent, metadata } = entry ?? {};
      return (
        typeof id === "string" &&
        typeof pageContent === "string" &&
        typeof metadata === "object" &&
        metadata !== null &&
        !Array.isArray(metadata)
      );
    })
  );
}

/** Reads the index that a folder's manifest names, with every size, checksum, count and number checked. */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { CorruptFileError, internal, MissingFileError } from "@cde-js/core";
import { vectorFault } from "../vector-index.js";
import { DocumentStore } from "./document-store.js";
import type { FileSystem, ReadableFile } from "./file-system.js";
import {
  type DataFileKind,
  FILE_KINDS,
  type FileEntry,
  type Manifest,
  parseLogName,
  readManifest,
  requireLittleEndian,
} from "./manifest.js";
import { asStorageErrors } from "./storage-errors.js";
import { LogReader, type LogRecord } from "./update-log.js";

/** Bytes read at once. */
const BLOCK = 4 * 2 ** 20;
/** A writer may replace the generation between the manifest and its files; this often in a row is no accident. */
const ATTEMPTS = 20;

type OpenFiles = { [Kind in DataFileKind]?: ReadableFile };

/** The logs of a generation by name, in order. */
interface OpenLog {
  readonly name: string;
  /** Undefined for one that was torn before its first update. */
  readonly reader: LogReader | undefined;
}

/** A generation whose files are open: a later save can't take them away. */
export class OpenGeneration {
  readonly manifest: Manifest;
  readonly #directory: string;
  readonly #files: OpenFiles;
  readonly #logs: readonly OpenLog[];

  private constructor(directory: string, manifest: Manifest, files: OpenFiles, logs: readonly OpenLog[]) {
    this.#directory = directory;
    this.manifest = manifest;
    this.#files = files;
    this.#logs = logs;
  }

  /** @throws MissingFileError, CorruptFileError, StorageError */
  static async open(fileSystem: FileSystem, directory: string): Promise<OpenGeneration> {
    requireLittleEndian();
    return await asStorageErrors(directory, async () => {
      for (let attempt = 1; ; attempt++) {
        const manifest = await readManifest(fileSystem, directory);
        const isLast = attempt === ATTEMPTS;
        const replaced = async () =>
          (await readManifest(fileSystem, directory)).generation !== manifest.generation && !isLast;
        let found: OpenGeneration | undefined;
        try {
          found = await OpenGeneration.ofManifest(fileSystem, directory, manifest);
          // A writer that replaces the generation takes its logs away: those found are all only if it is still there.
          if (!(await replaced())) return found;
          await found.close();
        } catch (error) {
          await found?.close();
          if (!(error instanceof MissingFileError) || !(await replaced())) throw error;
        }
      }
    });
  }

  /** The generation of a manifest that may not be the folder's yet. */
  static async ofManifest(fileSystem: FileSystem, directory: string, manifest: Manifest): Promise<OpenGeneration> {
    return await asStorageErrors(directory, async () => {
      const files = await openFiles(fileSystem, directory, manifest);
      try {
        const logs = await openLogs(fileSystem, directory, manifest);
        return new OpenGeneration(directory, manifest, files, logs);
      } catch (error) {
        for (const file of Object.values(files)) await file.close();
        throw error;
      }
    });
  }

  /** Name and size of the last log, to see whether another writer has come since. */
  get lastLog(): { readonly number: number; readonly size: number } {
    const last = this.#logs.at(-1);
    return last
      ? { number: parseLogName(last.name)?.number ?? 0, size: last.reader?.size ?? 0 }
      : { number: 0, size: 0 };
  }

  /**
   * The updates since the generation was written, in order, with the log that each stands in.
   *
   * @throws CorruptFileError where one is damaged or missing.
   */
  async *updates(): AsyncGenerator<{ readonly record: LogRecord; readonly log: LogReader }> {
    let { sequence } = this.manifest;
    const logs = this.#logs.flatMap(({ reader }) => reader ?? []);
    for (const [i, log] of logs.entries()) {
      const gap = (expected: number): CorruptFileError =>
        new CorruptFileError(log.path, `${log.path}: update ${expected} is missing before it. Restore the folder.`);
      if (log.head.vectorFingerprint !== this.manifest.vectorFingerprint) {
        throw new CorruptFileError(log.path, `${log.path} is the log of another index. Restore the folder.`);
      }
      if (log.sequence !== sequence >>> 0) throw gap(sequence + 1);
      const next = logs[i + 1];
      for await (const record of log.records(next ? next.sequence + 1 : undefined)) {
        sequence = record.sequence;
        yield { record, log };
      }
    }
  }

  /** The documents, all of them checked but for their JSON, which is checked when it is read. */
  async documents(): Promise<DocumentStore> {
    const [{ name, size, crc32: expected }, path] = this.#entry("documents");
    const store = new DocumentStore(path);
    let checksum = 0;
    for (let [at, wanted] = [0, BLOCK]; at < size; ) {
      const buffer = await this.#read("documents", at, Math.min(wanted, size - at));
      const taken = store.adopt(buffer);
      checksum = crc32(buffer.subarray(0, taken), checksum);
      at += taken;
      if (taken > 0) wanted = BLOCK;
      else {
        // A record larger than the block, or one that the file doesn't hold.
        const length = buffer.length < 8 ? Number.POSITIVE_INFINITY : DocumentStore.recordLength(buffer);
        if (length > size - at) throw new CorruptFileError(path, `${path}: record ${store.documents} is cut short.`);
        wanted = length;
      }
    }
    if (checksum !== expected) throw new CorruptFileError(path, `${path} does not match the checksum of its manifest.`);
    const { documents, passages } = this.manifest;
    if (store.documents !== documents || store.passages !== passages) {
      throw new CorruptFileError(
        path,
        `${name} holds ${store.documents} documents and ${store.passages} passages, ` +
          `the manifest says ${documents} and ${passages}.`,
      );
    }
    return store;
  }

  /** The vectors of a file from the first passage on, in blocks of whole rows. The checksum is known after the last. */
  async *vectors(
    kind: RowFileKind = "vectors",
  ): AsyncGenerator<{ readonly first: number; readonly rows: Float32Array<ArrayBuffer> }> {
    const [{ size, crc32: expected }, path] = this.#entry(kind);
    const { dimensions } = this.manifest;
    const block = Math.max(1, Math.floor(BLOCK / (4 * dimensions))) * 4 * dimensions;
    let checksum = 0;
    for (let at = 0; at < size; at += block) {
      const buffer = await this.#read(kind, at, Math.min(block, size - at));
      checksum = crc32(buffer, checksum);
      const rows = new Float32Array(buffer.buffer, buffer.byteOffset, buffer.length / 4);
      const first = at / (4 * dimensions);
      for (let i = 0; i < rows.length; i += dimensions) {
        const fault = vectorFault(rows.subarray(i, i + dimensions), dimensions);
        if (fault) throw new CorruptFileError(path, `${path}: row ${first + i / dimensions} ${fault}.`);
      }
      yield { first, rows };
    }
    if (checksum !== expected) throw new CorruptFileError(path, `${path} does not match the checksum of its manifest.`);
  }

  /** All of a small file, of the right checksum, and the path to name in errors; undefined where there is none. */
  async bytes(
    kind: "lexical" | "context" | "formerContext",
  ): Promise<{ readonly bytes: Uint8Array; readonly path: string } | undefined> {
    if (!this.manifest.files[kind]) return undefined;
    const [{ size, crc32: expected }, path] = this.#entry(kind);
    const bytes = await this.#read(kind, 0, size);
    if (crc32(bytes) === expected) return { bytes, path };
    throw new CorruptFileError(path, `${path} does not match the checksum of its manifest.`);
  }

  /** Single rows of a file, one after another; neighbours are read at once. */
  async vectorsOf(passages: Uint32Array, kind: RowFileKind = "vectors"): Promise<Float32Array<ArrayBuffer>> {
    const length = 4 * this.manifest.dimensions;
    const rows = new Float32Array(passages.length * this.manifest.dimensions);
    const bytes = new Uint8Array(rows.buffer);
    const reads: Promise<void>[] = [];
    for (let from = 0, to = 1; from < passages.length; from = to, to++) {
      const first = passages[from] as number;
      while (to < passages.length && passages[to] === first + to - from) to++;
      reads.push(this.#file(kind).read(bytes.subarray(from * length, to * length), first * length));
    }
    await asStorageErrors(this.#directory, () => Promise.all(reads));
    return rows;
  }

  async close(): Promise<void> {
    for (const file of Object.values(this.#files)) await file.close();
    for (const { reader } of this.#logs) await reader?.close();
  }

  #entry(kind: DataFileKind): [FileEntry, string] {
    const entry = this.manifest.files[kind];
    if (!entry) throw internal(`this generation has no ${kind}`);
    return [entry, join(this.#directory, entry.name)];
  }

  #file(kind: DataFileKind): ReadableFile {
    const file = this.#files[kind];
    if (!file) throw internal(`this generation has no open ${kind}`);
    return file;
  }

  async #read(kind: DataFileKind, at: number, length: number): Promise<Buffer<ArrayBuffer>> {
    // Its own memory, so that rows are aligned and no pooled buffer is kept alive.
    const buffer = Buffer.allocUnsafeSlow(length) as Buffer<ArrayBuffer>;
    await asStorageErrors(this.#directory, () => this.#file(kind).read(buffer, at));
    return buffer;
  }
}

/** Files that hold a row a passage. */
export type RowFileKind = "vectors" | "rows" | "formerVectors";

async function openLogs(fileSystem: FileSystem, directory: string, { generation }: Manifest): Promise<OpenLog[]> {
  const found = (await fileSystem.list(directory)).flatMap((name) => {
    const parsed = parseLogName(name);
    return parsed?.kind === "log" && parsed.generation === generation ? [{ name, number: parsed.number }] : [];
  });
  const open: OpenLog[] = [];
  try {
    for (const { name } of found.sort((a, b) => a.number - b.number)) {
      open.push({ name, reader: await LogReader.open(fileSystem, directory, name) });
    }
    return open;
  } catch (error) {
    for (const { reader } of open) await reader?.close();
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new MissingFileError(directory, `${directory}: a log was taken away while it was opened.`, { cause: error });
  }
}

async function openFiles(fileSystem: FileSystem, directory: string, { files }: Manifest): Promise<OpenFiles> {
  const open: OpenFiles = {};
  try {
    for (const kind of FILE_KINDS) {
      const entry = files[kind];
      if (entry) open[kind] = await openFile(fileSystem, directory, entry);
    }
    return open;
  } catch (error) {
    for (const file of Object.values(open)) await file.close();
    throw error;
  }
}

async function openFile(fileSystem: FileSystem, directory: string, { name, size }: FileEntry): Promise<ReadableFile> {
  const path = join(directory, name);
  const file = await fileSystem.open(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT") throw cause;
    throw new MissingFileError(path, `${path} is missing. Restore it from a copy, or build the index again.`, {
      cause,
    });
  });
  if (file.size === size) return file;
  await file.close();
  throw new CorruptFileError(path, `${path} has ${file.size} bytes, the manifest says ${size}.`);
}

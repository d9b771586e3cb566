/**
 * Writes one generation of an index beside the one that is there, and makes it the index by renaming its manifest.
 *
 * The order is the whole point: data files, fsync each; the new manifest under another name, fsync; fsync the folder;
 * rename; fsync the folder; only then remove the old files. A crash at any moment leaves one whole generation.
 *
 * Room for updates (a later version): a file `log-<generation>.bin` of the records of `DocumentStore`, each with its
 * checksum, appended and synced before a write is acknowledged; `open` replays it up to the first damaged record; the
 * manifest names it, and compaction is a new generation written by this class.
 */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { CdeError, CorruptFileError, InvalidInputError, internal, MissingFileError } from "@cde-js/core";
import { StorageError } from "../errors.js";
import type { DocumentStore } from "./document-store.js";
import type { FileSystem, WritableFile } from "./file-system.js";
import { lockDirectory } from "./lock.js";
import {
  type DataFileKind,
  dataFile,
  encodeManifest,
  type FileEntry,
  FORMAT_VERSION,
  generationOf,
  type IndexIdentity,
  MANIFEST,
  readManifest,
  requireLittleEndian,
} from "./manifest.js";

export class IndexWriter {
  readonly #fileSystem: FileSystem;
  readonly #directory: string;
  readonly #generation: number;
  readonly #unlock: () => Promise<void>;
  readonly #vectors: ChecksummedFile;
  #state: "open" | "renaming" | "ended" = "open";

  private constructor(
    fileSystem: FileSystem,
    directory: string,
    generation: number,
    unlock: () => Promise<void>,
    vectors: ChecksummedFile,
  ) {
    this.#fileSystem = fileSystem;
    this.#directory = directory;
    this.#generation = generation;
    this.#unlock = unlock;
    this.#vectors = vectors;
  }

  /**
   * Makes the folder where it is missing, locks it and starts the next generation.
   *
   * @throws IndexLockedError, StorageError, InvalidInputError where the folder holds something else's manifest.
   */
  static async begin(fileSystem: FileSystem, directory: string): Promise<IndexWriter> {
    requireLittleEndian();
    return await asStorageErrors(directory, async () => {
      await fileSystem.makeDirectory(directory);
      const unlock = await lockDirectory(fileSystem, directory);
      try {
        const current = await currentGeneration(fileSystem, directory);
        const names = await fileSystem.list(directory);
        const generation = Math.max(current ?? 0, ...names.map((name) => generationOf(name) ?? 0)) + 1;
        const name = dataFile("vectors", generation);
        if (generationOf(name) !== generation) {
          throw new CorruptFileError(
            directory,
            `${directory} holds files of generation ${generation - 1}; none can follow.`,
          );
        }
        const vectors = await ChecksummedFile.create(fileSystem, directory, name);
        return new IndexWriter(fileSystem, directory, generation, unlock, vectors);
      } catch (error) {
        await unlock();
        throw error;
      }
    });
  }

  get vectorsPath(): string {
    return join(this.#directory, dataFile("vectors", this.#generation));
  }

  /** Appends rows of float32 components, one row after another. */
  async addVectors(rows: Float32Array): Promise<void> {
    await asStorageErrors(this.#directory, () =>
      this.#vectors.write(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength)),
    );
  }

  /** Makes this generation the index. When it returns, a power cut doesn't undo it. */
  async commit(identity: IndexIdentity, documents: DocumentStore, lexical?: Uint8Array): Promise<void> {
    const [fileSystem, directory] = [this.#fileSystem, this.#directory];
    if (this.#vectors.size !== 4 * identity.dimensions * documents.passages) {
      throw internal(`${this.#vectors.size} bytes of vectors for ${documents.passages} passages`);
    }
    await asStorageErrors(directory, async () => {
      const vectors = await this.#vectors.finish();
      const files = {
        documents: await this.#write(this.#name("documents"), documents.bytes()),
        vectors,
        ...(lexical ? { lexical: await this.#write(this.#name("lexical"), [lexical]) } : {}),
      };
      const manifest = encodeManifest({
        format: "cde-index",
        version: FORMAT_VERSION,
        generation: this.#generation,
        modelId: identity.modelId,
        fingerprint: identity.fingerprint,
        dimensions: identity.dimensions,
        documents: documents.documents,
        passages: documents.passages,
        files,
      });
      await this.#write(this.#temporary, [manifest]);
      await fileSystem.syncDirectory(directory);
      // From here to the end of the sync nobody knows which manifest a crash would leave: both generations stay.
      this.#state = "renaming";
      await fileSystem.rename(join(directory, this.#temporary), join(directory, MANIFEST));
      await fileSystem.syncDirectory(directory);
      this.#state = "ended";
      await this.#removeFiles((generation) => generation !== this.#generation);
      await this.#unlock();
    });
  }

  /** Gives up this generation and the lock. Does nothing after a commit. */
  async abort(): Promise<void> {
    if (this.#state === "ended") return;
    const renaming = this.#state === "renaming";
    this.#state = "ended";
    await this.#vectors.close();
    if (!renaming) await this.#removeFiles((generation) => generation === this.#generation);
    await this.#unlock();
  }

  get #temporary(): string {
    return `manifest-${String(this.#generation).padStart(6, "0")}.tmp`;
  }

  #name(kind: DataFileKind): string {
    return dataFile(kind, this.#generation);
  }

  /** A whole file, synced. */
  async #write(name: string, parts: Iterable<Uint8Array>): Promise<FileEntry> {
    const file = await ChecksummedFile.create(this.#fileSystem, this.#directory, name);
    try {
      for (const part of parts) await file.write(part);
      return await file.finish();
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Best effort: a file that can't be removed now (open in another process, on Windows) goes with the next save. */
  async #removeFiles(which: (generation: number) => boolean): Promise<void> {
    const names = await this.#fileSystem.list(this.#directory).catch(() => []);
    for (const name of names) {
      const generation = generationOf(name);
      if (generation === undefined || !which(generation)) continue;
      await this.#fileSystem.remove(join(this.#directory, name)).catch(() => {});
    }
  }
}

const PART = 4 * 2 ** 20;

/** A new file that counts its bytes and their CRC-32. */
class ChecksummedFile {
  readonly #file: WritableFile;
  readonly #name: string;
  #crc32 = 0;
  #open = true;
  size = 0;

  private constructor(file: WritableFile, name: string) {
    this.#file = file;
    this.#name = name;
  }

  static async create(fileSystem: FileSystem, directory: string, name: string): Promise<ChecksummedFile> {
    return new ChecksummedFile(await fileSystem.create(join(directory, name)), name);
  }

  async write(bytes: Uint8Array): Promise<void> {
    // In parts, so that no checksum holds up the event loop.
    for (let at = 0; at < bytes.length; at += PART) {
      const part = bytes.subarray(at, at + PART);
      await this.#file.write(part);
      this.#crc32 = crc32(part, this.#crc32);
      this.size += part.length;
    }
  }

  async finish(): Promise<FileEntry> {
    await this.#file.sync();
    await this.close();
    return { name: this.#name, size: this.size, crc32: this.#crc32 };
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
  }
}

/** The generation of the index that is there; undefined where none is, or one that can't be read and may be replaced. */
async function currentGeneration(fileSystem: FileSystem, directory: string): Promise<number | undefined> {
  try {
    return (await readManifest(fileSystem, directory)).generation;
  } catch (error) {
    if (error instanceof MissingFileError) return undefined;
    if (!(error instanceof CorruptFileError)) throw error;
    const ours = (await fileSystem.list(directory)).some((name) => generationOf(name) !== undefined);
    if (ours) return undefined;
    throw new InvalidInputError(
      `save: ${directory} holds a ${MANIFEST} that is not an index's. Choose another folder.`,
      {
        cause: error,
      },
    );
  }
}

/** Failures of the system as StorageError; our own errors as they are. */
export async function asStorageErrors<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code;
    if (cause instanceof CdeError || typeof (cause as NodeJS.ErrnoException).syscall !== "string") throw cause;
    const reasons: Record<string, string> = {
      ENOSPC: "the disk is full",
      EDQUOT: "the disk quota is used up",
      EROFS: "the file system is read-only",
      EACCES: "permission denied",
      EPERM: "not permitted",
    };
    const reason = (errno && reasons[errno]) ?? (cause as Error).message;
    throw new StorageError(path, `${path}: ${reason}. What was saved there before is untouched.`, { cause, errno });
  }
}

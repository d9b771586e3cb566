/**
 * Writes one generation of an index beside the one that is there, and makes it the index by renaming its manifest.
 *
 * The order is the whole point: data files, fsync each; the new manifest under another name, fsync; fsync the folder;
 * rename; fsync the folder; only then remove the old files. A crash at any moment leaves one whole generation.
 *
 * Between `prepare` and `publish` the caller may read back what was written; it isn't the index yet.
 */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { CorruptFileError, InvalidInputError, internal, MissingFileError } from "@cde-js/core";
import type { AutoFusion } from "../fusion/auto-fusion.js";
import type { DocumentStore } from "./document-store.js";
import type { FileSystem, WritableFile } from "./file-system.js";
import { lockDirectory } from "./lock.js";
import {
  type DataFileKind,
  dataFile,
  encodeManifest,
  type FileEntry,
  FORMAT_VERSION,
  type GenerationState,
  generationOf,
  MANIFEST,
  type Manifest,
  parseLogName,
  readManifest,
  requireLittleEndian,
} from "./manifest.js";
import { asStorageErrors } from "./storage-errors.js";

/** What a generation holds beside its vectors. */
export interface GenerationContents {
  /** Those that are there become the documents, numbered anew. */
  readonly documents: DocumentStore;
  readonly lexical?: Uint8Array | undefined;
  readonly context?: Uint8Array | undefined;
  readonly formerContext?: Uint8Array | undefined;
}

export class IndexWriter {
  readonly generation: number;
  /** Whether this generation holds all that an unfinished build has embedded, whose logs then go. */
  finishesBuild = false;
  readonly #fileSystem: FileSystem;
  readonly #directory: string;
  readonly #unlock: () => Promise<void>;
  /** Files of rows, made when the first row comes. */
  readonly #rowFiles = new Map<RowFile, ChecksummedFile>();
  #prepared: Manifest | undefined;
  #state: "open" | "renaming" | "ended" = "open";

  private constructor(fileSystem: FileSystem, directory: string, generation: number, unlock: () => Promise<void>) {
    this.#fileSystem = fileSystem;
    this.#directory = directory;
    this.generation = generation;
    this.#unlock = unlock;
  }

  /**
   * Makes the folder where it is missing, locks it (unless the caller holds the lock) and starts the next generation.
   *
   * @throws IndexLockedError, StorageError, InvalidInputError where the folder holds something else's manifest.
   */
  static async begin(fileSystem: FileSystem, directory: string, locked = false): Promise<IndexWriter> {
    requireLittleEndian();
    return await asStorageErrors(directory, async () => {
      await fileSystem.makeDirectory(directory);
      const unlock = locked ? async () => {} : await lockDirectory(fileSystem, directory);
      try {
        const current = await currentGeneration(fileSystem, directory);
        const names = await fileSystem.list(directory);
        const generation = Math.max(current ?? 0, ...names.map((name) => generationOf(name) ?? 0)) + 1;
        if (generationOf(dataFile("vectors", generation)) !== generation) {
          throw new CorruptFileError(
            directory,
            `${directory} holds files of generation ${generation - 1}; none can follow.`,
          );
        }
        return new IndexWriter(fileSystem, directory, generation, unlock);
      } catch (error) {
        await unlock();
        throw error;
      }
    });
  }

  /** Appends rows of float32 components, one row after another. */
  async addVectors(rows: Float32Array, file: RowFile = "vectors"): Promise<void> {
    await asStorageErrors(this.#directory, async () => {
      const target = await this.#rowFile(file);
      await target.write(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength));
    });
  }

  /** Writes all of the generation, durably. It isn't the index yet. */
  async prepare(state: GenerationState, contents: GenerationContents): Promise<Manifest> {
    const { documents } = contents;
    return await asStorageErrors(this.#directory, async () => {
      const vectors = await this.#rowFile("vectors");
      if (vectors.size !== 4 * state.dimensions * documents.livePassages) {
        throw internal(`${vectors.size} bytes of vectors for ${documents.livePassages} passages`);
      }
      const files: { -readonly [K in DataFileKind]?: FileEntry } = {};
      for (const [kind, file] of this.#rowFiles) files[kind] = await file.finish();
      files.documents = await this.#write(dataFile("documents", this.generation), documents.bytes());
      for (const kind of ["lexical", "context", "formerContext"] as const) {
        const bytes = contents[kind];
        if (bytes) files[kind] = await this.#write(dataFile(kind, this.generation), [bytes]);
      }
      const { modelId, fingerprint, dimensions, vectorFingerprint, split, sequence, settled, notes, former, fusion } =
        state;
      const manifest: Manifest = {
        format: "cde-index",
        version: FORMAT_VERSION,
        generation: this.generation,
        modelId,
        fingerprint,
        dimensions,
        vectorFingerprint,
        split,
        sequence,
        settled,
        notes,
        former,
        ...(fusion && { fusion }),
        documents: documents.liveDocuments,
        passages: documents.livePassages,
        files: files as Manifest["files"],
      };
      await this.#writeManifest(manifest);
      return manifest;
    });
  }

  /** Adds to a prepared generation what could only be found out by reading it back. */
  async addFusion(fusion: AutoFusion): Promise<void> {
    const prepared = this.#prepared;
    if (!prepared) throw internal("addFusion before prepare");
    await asStorageErrors(this.#directory, async () => {
      // Nobody reads it before it is renamed: a crash in between leaves the old index, as without this.
      await this.#fileSystem.remove(join(this.#directory, this.#temporary));
      await this.#writeManifest({ ...prepared, fusion });
    });
  }

  /** Makes the prepared generation the index. When it returns, a power cut doesn't undo it. */
  async publish(): Promise<void> {
    const [fileSystem, directory] = [this.#fileSystem, this.#directory];
    if (!this.#prepared) throw internal("publish before prepare");
    await asStorageErrors(directory, async () => {
      // From here to the end of the sync nobody knows which manifest a crash would leave: both generations stay.
      this.#state = "renaming";
      await fileSystem.rename(join(directory, this.#temporary), join(directory, MANIFEST));
      await fileSystem.syncDirectory(directory);
      this.#state = "ended";
      await this.#removeFiles((generation, name) => {
        if (parseLogName(name)?.kind === "build") return this.finishesBuild;
        return generation !== this.generation;
      });
      await this.#unlock();
    });
  }

  /** Whether a failed `publish` left it open which generation the folder has. */
  get isUndecided(): boolean {
    return this.#state === "renaming";
  }

  /** Gives up this generation and the lock; what an unfinished build has embedded stays. Does nothing after a commit. */
  async abort(): Promise<void> {
    if (this.#state === "ended") return;
    const renaming = this.#state === "renaming";
    this.#state = "ended";
    for (const file of this.#rowFiles.values()) await file.close();
    if (!renaming) {
      await this.#removeFiles((generation, name) => generation === this.generation && !parseLogName(name));
    }
    await this.#unlock();
  }

  get #temporary(): string {
    return `manifest-${String(this.generation).padStart(6, "0")}.tmp`;
  }

  async #writeManifest(manifest: Manifest): Promise<void> {
    await this.#write(this.#temporary, [encodeManifest(manifest)]);
    await this.#fileSystem.syncDirectory(this.#directory);
    this.#prepared = manifest;
  }

  async #rowFile(kind: RowFile): Promise<ChecksummedFile> {
    const known = this.#rowFiles.get(kind);
    if (known) return known;
    const name = dataFile(kind, this.generation);
    const file = await ChecksummedFile.create(this.#fileSystem, this.#directory, name);
    this.#rowFiles.set(kind, file);
    return file;
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
  async #removeFiles(which: (generation: number, name: string) => boolean): Promise<void> {
    const names = await this.#fileSystem.list(this.#directory).catch(() => []);
    for (const name of names) {
      const generation = generationOf(name);
      if (generation === undefined || !which(generation, name)) continue;
      await this.#fileSystem.remove(join(this.#directory, name)).catch(() => {});
    }
  }
}

/** The files that hold a row a passage. */
type RowFile = "vectors" | "rows" | "formerVectors";

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

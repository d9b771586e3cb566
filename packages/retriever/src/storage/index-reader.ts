/** Reads the index that a folder's manifest names, with every size, checksum, count and number checked. */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { CorruptFileError, internal, MissingFileError } from "@cde-js/core";
import { vectorFault } from "../vector-index.js";
import { DocumentStore } from "./document-store.js";
import type { FileSystem, ReadableFile } from "./file-system.js";
import { asStorageErrors } from "./index-writer.js";
import { type DataFileKind, type FileEntry, type Manifest, readManifest, requireLittleEndian } from "./manifest.js";

/** Bytes read at once. */
const BLOCK = 4 * 2 ** 20;
/** A writer may replace the generation between the manifest and its files; this often in a row is no accident. */
const ATTEMPTS = 20;

type OpenFiles = { [Kind in DataFileKind]?: ReadableFile };

/** A generation whose files are open: a later save can't take them away. */
export class OpenGeneration {
  readonly manifest: Manifest;
  readonly #directory: string;
  readonly #files: OpenFiles;

  private constructor(directory: string, manifest: Manifest, files: OpenFiles) {
    this.#directory = directory;
    this.manifest = manifest;
    this.#files = files;
  }

  /** @throws MissingFileError, CorruptFileError, StorageError */
  static async open(fileSystem: FileSystem, directory: string): Promise<OpenGeneration> {
    requireLittleEndian();
    return await asStorageErrors(directory, async () => {
      for (let attempt = 1; ; attempt++) {
        const manifest = await readManifest(fileSystem, directory);
        try {
          return new OpenGeneration(directory, manifest, await openFiles(fileSystem, directory, manifest));
        } catch (error) {
          if (!(error instanceof MissingFileError) || attempt === ATTEMPTS) throw error;
          if ((await readManifest(fileSystem, directory)).generation === manifest.generation) throw error;
        }
      }
    });
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

  /** The base vectors from the first passage on, in blocks of whole rows. The checksum is known after the last block. */
  async *vectors(): AsyncGenerator<{ readonly first: number; readonly rows: Float32Array<ArrayBuffer> }> {
    const [{ size, crc32: expected }, path] = this.#entry("vectors");
    const { dimensions } = this.manifest;
    const block = Math.max(1, Math.floor(BLOCK / (4 * dimensions))) * 4 * dimensions;
    let checksum = 0;
    for (let at = 0; at < size; at += block) {
      const buffer = await this.#read("vectors", at, Math.min(block, size - at));
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

  /** The lexical part's bytes, of the right checksum, and the path to name in errors; undefined where there is none. */
  async lexical(): Promise<{ readonly bytes: Uint8Array; readonly path: string } | undefined> {
    if (!this.manifest.files.lexical) return undefined;
    const [{ size, crc32: expected }, path] = this.#entry("lexical");
    const bytes = await this.#read("lexical", 0, size);
    if (crc32(bytes) === expected) return { bytes, path };
    throw new CorruptFileError(path, `${path} does not match the checksum of its manifest.`);
  }

  /** Single rows of the base vectors, one after another; neighbours are read at once. */
  async vectorsOf(passages: Uint32Array): Promise<Float32Array> {
    const length = 4 * this.manifest.dimensions;
    const rows = new Float32Array(passages.length * this.manifest.dimensions);
    const bytes = new Uint8Array(rows.buffer);
    const reads: Promise<void>[] = [];
    for (let from = 0, to = 1; from < passages.length; from = to, to++) {
      const first = passages[from] as number;
      while (to < passages.length && passages[to] === first + to - from) to++;
      reads.push(this.#file("vectors").read(bytes.subarray(from * length, to * length), first * length));
    }
    await asStorageErrors(this.#directory, () => Promise.all(reads));
    return rows;
  }

  async close(): Promise<void> {
    for (const file of Object.values(this.#files)) await file.close();
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

async function openFiles(fileSystem: FileSystem, directory: string, { files }: Manifest): Promise<OpenFiles> {
  const open: OpenFiles = {};
  try {
    for (const kind of ["documents", "vectors", "lexical"] as const) {
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

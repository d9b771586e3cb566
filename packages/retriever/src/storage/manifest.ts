/** The manifest of an index folder: which files are the index, and for which embedder. It is read with distrust. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { CorruptFileError, MissingFileError, RuntimeFailureError } from "@cde-js/core";
import type { FileSystem } from "./file-system.js";

export const MANIFEST = "manifest.json";
/** Version 1 is the same without a lexical part, and is still read. */
export const FORMAT_VERSION = 2;
const READABLE: readonly unknown[] = [1, FORMAT_VERSION];
const MAX_BYTES = 2 ** 20;

export interface FileEntry {
  /** A name in the index folder: see `dataFile`. */
  readonly name: string;
  readonly size: number;
  readonly crc32: number;
}

/** What vectors belong to: the embedder they were made by. */
export interface IndexIdentity {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly dimensions: number;
}

export interface Manifest extends IndexIdentity {
  readonly format: "cde-index";
  readonly version: number;
  /** Grows by one with every save. */
  readonly generation: number;
  readonly documents: number;
  readonly passages: number;
  readonly files: {
    /** Records of `DocumentStore`. */
    readonly documents: FileEntry;
    /** The base vectors: float32, little-endian, one row a passage, as the embedder gave them. */
    readonly vectors: FileEntry;
    /** A `LexicalPart`; an index without it is searched by meaning only. */
    readonly lexical?: FileEntry;
  };
}

export type DataFileKind = keyof Manifest["files"];
const suffixes: Record<DataFileKind, string> = { documents: "bin", vectors: "f32", lexical: "bm25" };

/** The name of a generation's file. */
export function dataFile(kind: DataFileKind, generation: number): string {
  return `${kind}-${String(generation).padStart(6, "0")}.${suffixes[kind]}`;
}

/** The generation that a file of this name belongs to; undefined for a name that is not ours. */
export function generationOf(name: string): number | undefined {
  const match = /^(?:documents-\d+\.bin|vectors-\d+\.f32|lexical-\d+\.bm25|manifest-\d+\.tmp)$/.exec(name);
  const digits = match && /-(\d{6,15})\./.exec(name)?.[1];
  return digits ? Number(digits) : undefined;
}

/** The manifest as a file: JSON with a checksum of itself. */
export function encodeManifest(manifest: Manifest): Buffer {
  return Buffer.from(`${JSON.stringify({ ...manifest, checksum: checksum(manifest) }, null, 2)}\n`);
}

/** Damage to any digit shows, also where the JSON still parses. It is no signature. */
function checksum(manifest: object): string {
  return createHash("sha256").update(JSON.stringify(manifest)).digest("hex");
}

/**
 * @throws MissingFileError where there is none, CorruptFileError where it is not a whole manifest of this version.
 */
export async function readManifest(fileSystem: FileSystem, directory: string): Promise<Manifest> {
  const path = join(directory, MANIFEST);
  const file = await fileSystem.open(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT" && cause.code !== "ENOTDIR") throw cause;
    throw new MissingFileError(path, `${directory} holds no index: ${MANIFEST} is missing.`, { cause });
  });
  try {
    if (file.size > MAX_BYTES)
      throw new CorruptFileError(path, `${path} has ${file.size} bytes, at most ${MAX_BYTES}.`);
    const bytes = Buffer.alloc(file.size);
    await file.read(bytes, 0);
    return parseManifest(bytes.toString("utf8"), path);
  } finally {
    await file.close();
  }
}

function parseManifest(text: string, path: string): Manifest {
  const corrupt = (what: string, cause?: unknown): CorruptFileError =>
    new CorruptFileError(path, `${path}: ${what}. Restore the folder from a copy, or build the index again.`, {
      cause,
    });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw corrupt("is not JSON", cause);
  }
  if (!isRecord(value) || value.format !== "cde-index") throw corrupt("is not the manifest of an index");
  if (!READABLE.includes(value.version)) {
    throw corrupt(`has format version ${String(value.version)}, this program reads ${READABLE.join(" and ")}`);
  }
  const { checksum: stated, ...manifest } = value;
  if (stated !== checksum(manifest)) throw corrupt("does not match its own checksum");
  const { modelId, fingerprint, files } = manifest;
  if (typeof modelId !== "string" || typeof fingerprint !== "string" || fingerprint === "") {
    throw corrupt("does not name its embedder");
  }
  for (const field of ["generation", "dimensions", "documents", "passages"]) {
    if (!isCount(manifest[field])) throw corrupt(`${field} is not a count`);
  }
  const kinds = ["documents", "vectors", ...(isRecord(files) && files.lexical !== undefined ? ["lexical"] : [])];
  if (!isRecord(files) || !kinds.every((kind) => isFileEntry(files[kind], kind as DataFileKind))) {
    throw corrupt("does not name its files");
  }
  const checked = manifest as unknown as Manifest;
  const { dimensions, passages } = checked;
  if (dimensions < 1 || checked.files.vectors.size !== 4 * dimensions * passages) {
    throw corrupt(`${passages} rows of ${dimensions} dimensions do not take ${checked.files.vectors.size} bytes`);
  }
  return checked;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Our own kind of name, so that no path leads out of the folder. */
function isFileEntry(value: unknown, kind: DataFileKind): boolean {
  if (!isRecord(value) || typeof value.name !== "string") return false;
  const generation = generationOf(value.name);
  return (
    generation !== undefined && dataFile(kind, generation) === value.name && isCount(value.size) && isCount(value.crc32)
  );
}

/** The files are little-endian and read without conversion. */
export function requireLittleEndian(): void {
  if (new Uint8Array(Uint16Array.of(1).buffer)[0] !== 1) {
    throw new RuntimeFailureError(
      "index files are little-endian; this processor is not, and can't read or write them.",
    );
  }
}

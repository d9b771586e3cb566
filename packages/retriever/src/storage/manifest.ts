/** The manifest of an index folder: which files are the index, and for which embedder. It is read with distrust. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { CorruptFileError, MissingFileError, RuntimeFailureError } from "@cde-js/core";
import type { JsonObject } from "../documents.js";
import { type AutoFusion, fusionFault } from "../fusion/auto-fusion.js";
import type { FileSystem } from "./file-system.js";

export const MANIFEST = "manifest.json";
/**
 * Version 1 has no lexical part. Versions 1 and 2 keep the vectors of the search where version 3 keeps base vectors, and
 * no context. All are still read.
 */
export const FORMAT_VERSION = 3;
const READABLE: readonly unknown[] = [1, 2, FORMAT_VERSION];
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

/** How texts were split: limits of our own splitter, a splitter of the caller's, not at all; null is not known. */
export type SplitIdentity = { readonly maxTokens: number; readonly overlap: number } | "own" | false | null;

/** What `rollback` returns to: the context before the last `recontext`. */
export interface FormerContext {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly vectorFingerprint: string;
  /** Passages at the head whose vectors are kept; 0 where the context is a map of the base vectors that are there. */
  readonly passages: number;
  /** Documents at the head that were there when that context was chosen. */
  readonly settled: number;
  /** Frozen average length of the lexical part; null without one. */
  readonly averageLength: number | null;
}

/** All that is fixed for a generation, beside its files. */
export interface GenerationState extends IndexIdentity {
  /**
   * Of the embedder that gave the vectors in the file. It is another one than that of the index where a context maps
   * them: then they are base vectors.
   */
  readonly vectorFingerprint: string;
  readonly split: SplitIdentity;
  /** Number of the last update that is in these files; those of the log follow it. */
  readonly sequence: number;
  /** Documents at the head that were there when the context was chosen. */
  readonly settled: number;
  /** What a program keeps with the index. */
  readonly notes: JsonObject | null;
  readonly former: FormerContext | null;
  /** What the weights of mixes are chosen by; absent where nothing was chosen. */
  readonly fusion?: AutoFusion | undefined;
}

export interface Manifest extends GenerationState {
  readonly format: "cde-index";
  readonly version: number;
  /** Grows by one with every save. */
  readonly generation: number;
  readonly documents: number;
  readonly passages: number;
  readonly files: {
    /** Records of `DocumentStore`. */
    readonly documents: FileEntry;
    /** The base vectors: float32, little-endian, one row a passage, as the embedder (or its `base`) gave them. */
    readonly vectors: FileEntry;
    /** Where a context maps the base vectors: the mapped ones, which a search compares. */
    readonly rows?: FileEntry;
    /** A `LexicalPart`; an index without it is searched by meaning only. */
    readonly lexical?: FileEntry;
    /** The context, as `CorpusContext.save` writes it. */
    readonly context?: FileEntry;
    readonly formerContext?: FileEntry;
    /** Vectors under the former context, where no map gives them. */
    readonly formerVectors?: FileEntry;
  };
}

export type DataFileKind = keyof Manifest["files"];

const files: Record<DataFileKind, { readonly stem: string; readonly suffix: string }> = {
  documents: { stem: "documents", suffix: "bin" },
  vectors: { stem: "vectors", suffix: "f32" },
  rows: { stem: "rows", suffix: "f32" },
  lexical: { stem: "lexical", suffix: "bm25" },
  context: { stem: "context", suffix: "safetensors" },
  formerContext: { stem: "former-context", suffix: "safetensors" },
  formerVectors: { stem: "former-vectors", suffix: "f32" },
};
export const FILE_KINDS = Object.keys(files) as readonly DataFileKind[];
const OPTIONAL = FILE_KINDS.filter((kind) => kind !== "documents" && kind !== "vectors");

/** The name of a generation's file. */
export function dataFile(kind: DataFileKind, generation: number): string {
  return `${files[kind].stem}-${digits(generation)}.${files[kind].suffix}`;
}

/** "log" holds acknowledged updates of a generation, "build" what an unfinished one has embedded so far. */
export type LogKind = "log" | "build";

/** The name of a log: every session of writing begins one, numbered from 1. */
export function logFile(kind: LogKind, generation: number, number: number): string {
  return `${kind}-${digits(generation)}-${digits(number)}.bin`;
}

/** What a log's name says; undefined for a name that is no log's. */
export function parseLogName(name: string): { kind: LogKind; generation: number; number: number } | undefined {
  const match = /^(log|build)-(\d{6,15})-(\d{6,15})\.bin$/.exec(name);
  return match ? { kind: match[1] as LogKind, generation: Number(match[2]), number: Number(match[3]) } : undefined;
}

const digits = (number: number): string => String(number).padStart(6, "0");
const OURS = new RegExp(
  `^(?:${Object.values(files)
    .map(({ stem, suffix }) => `${stem}-(\\d{6,15})\\.${suffix}`)
    .join("|")}|manifest-(\\d{6,15})\\.tmp)$`,
);

/** The generation that a file of this name belongs to; undefined for a name that is not ours. */
export function generationOf(name: string): number | undefined {
  const generation = OURS.exec(name)?.slice(1).find(Boolean);
  return generation ? Number(generation) : parseLogName(name)?.generation;
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
    throw corrupt(`has format version ${String(value.version)}, this program reads ${READABLE.join(", ")}`);
  }
  const { checksum: stated, ...manifest } = value;
  if (stated !== checksum(manifest)) throw corrupt("does not match its own checksum");
  const { modelId, fingerprint } = manifest;
  if (typeof modelId !== "string" || typeof fingerprint !== "string" || fingerprint === "") {
    throw corrupt("does not name its embedder");
  }
  for (const field of ["generation", "dimensions", "documents", "passages"]) {
    if (!isCount(manifest[field])) throw corrupt(`${field} is not a count`);
  }
  const entries = manifest.files;
  const there = isRecord(entries) ? OPTIONAL.filter((kind) => entries[kind] !== undefined) : [];
  if (!isRecord(entries) || ![...there, "documents", "vectors"].every((kind) => isFileEntry(entries[kind], kind))) {
    throw corrupt("does not name its files");
  }
  const whole = { ...stateOfVersion2(manifest), ...manifest };
  const fault = stateFault(whole);
  if (fault) throw corrupt(fault);
  const checked = whole as unknown as Manifest;
  const { dimensions, passages, former } = checked;
  const rows: [DataFileKind, number][] = [
    ["vectors", passages],
    ["rows", passages],
    ["formerVectors", former?.passages ?? 0],
  ];
  for (const [kind, count] of rows) {
    const entry = checked.files[kind];
    if (!entry || (dimensions > 0 && entry.size === 4 * dimensions * count)) continue;
    throw corrupt(`${count} rows of ${dimensions} dimensions do not take ${entry.size} bytes`);
  }
  if ((checked.files.rows !== undefined) !== (checked.vectorFingerprint !== checked.fingerprint)) {
    throw corrupt("keeps base vectors and no mapped ones, or the other way round");
  }
  return checked;
}

/** What older versions don't say. */
function stateOfVersion2({ fingerprint, documents }: Record<string, unknown>): Record<string, unknown> {
  return { vectorFingerprint: fingerprint, split: null, sequence: 0, settled: documents, notes: null, former: null };
}

function stateFault(manifest: Record<string, unknown>): string | undefined {
  const { vectorFingerprint, split, sequence, settled, notes, former, fusion } = manifest;
  if (typeof vectorFingerprint !== "string" || vectorFingerprint === "") return "does not name what gave its vectors";
  if (!isCount(sequence) || !isCount(settled)) return "sequence or settled is not a count";
  const limits = isRecord(split) && isCount(split.maxTokens) && isCount(split.overlap);
  if (split !== null && split !== false && split !== "own" && !limits) return "does not say how texts were split";
  if (notes !== null && !isRecord(notes)) return "has notes that are no object";
  const ofFusion = fusion === undefined ? undefined : fusionFault(fusion);
  if (ofFusion || former === null) return ofFusion;
  const names = ["modelId", "fingerprint", "vectorFingerprint"];
  const sound =
    isRecord(former) &&
    names.every((name) => typeof former[name] === "string") &&
    isCount(former.passages) &&
    isCount(former.settled) &&
    (former.averageLength === null || (typeof former.averageLength === "number" && former.averageLength > 0));
  return sound ? undefined : "describes a former context that is none";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Our own kind of name, so that no path leads out of the folder. */
function isFileEntry(value: unknown, kind: string): boolean {
  if (!isRecord(value) || typeof value.name !== "string") return false;
  const generation = generationOf(value.name);
  const named = generation !== undefined && dataFile(kind as DataFileKind, generation) === value.name;
  return named && isCount(value.size) && isCount(value.crc32);
}

/** The files are little-endian and read without conversion. */
export function requireLittleEndian(): void {
  if (new Uint8Array(Uint16Array.of(1).buffer)[0] !== 1) {
    throw new RuntimeFailureError(
      "index files are little-endian; this processor is not, and can't read or write them.",
    );
  }
}

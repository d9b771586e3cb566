/** What the records of a log say: documents with their vectors, ids that are gone, and new metadata. */
import { CorruptFileError } from "@cde-js/core";
import type { EmbeddedDocument } from "../build-index.js";
import type { JsonObject } from "../documents.js";
import type { LogRows } from "../stored-vectors.js";
import { encodeRecord } from "./document-store.js";
import { FIRST_KIND, type LogRecord } from "./update-log.js";

export type Update =
  | {
      readonly kind: "upsert";
      /** Records of `DocumentStore`, one after another. */
      readonly records: Buffer;
      /** The vectors of their passages, as the index keeps them. */
      readonly rows: Float32Array;
      /** Where these begin in the log. */
      readonly position: number;
      /** One byte a document: see `flagsOf`. */
      readonly flags: Uint8Array;
      /** Of other documents, together with these. */
      readonly changes: readonly MetadataChange[];
      /** What `records` say, where that is at hand. */
      readonly documents?: readonly EmbeddedDocument[];
    }
  | { readonly kind: "delete"; readonly ids: readonly string[] }
  | { readonly kind: "metadata"; readonly changes: readonly MetadataChange[] };

/** A document's id and all of its metadata from now on; null for none. */
export type MetadataChange = readonly [id: string, metadata: JsonObject | null];

const [UPSERT, DELETE, METADATA] = [FIRST_KIND, FIRST_KIND + 1, FIRST_KIND + 2];
/** Bytes before the vectors: u32 documents, bytes of their records, bytes of the changes. Then come these, flags first. */
const ROWS_AT = 12;

export interface EncodedUpdate {
  readonly kind: number;
  readonly parts: readonly Uint8Array[];
}

/** Documents with their vectors, as one record: all of them are there after a crash, or none. */
export function encodeUpsert(
  documents: readonly EmbeddedDocument[],
  changes: readonly MetadataChange[] = [],
  encoded: readonly Buffer[] = documents.map(({ document, passages }) => encodeRecord(document, passages)),
): EncodedUpdate & { readonly update: Update } {
  // A document may be large; alone it is not copied.
  const records = encoded.length === 1 ? (encoded[0] as Buffer) : Buffer.concat(encoded);
  const head = Buffer.alloc(ROWS_AT);
  head.writeUInt32LE(documents.length, 0);
  head.writeUInt32LE(records.length, 4);
  const json = Buffer.from(changes.length === 0 ? "" : JSON.stringify(changes));
  head.writeUInt32LE(json.length, 8);
  const flags = Uint8Array.from(documents, flagsOf);
  const rows = new Float32Array(documents.reduce((sum, document) => sum + document.rows.length, 0));
  let at = 0;
  for (const document of documents) {
    rows.set(document.rows, at);
    at += document.rows.length;
  }
  return {
    kind: UPSERT,
    parts: [head, new Uint8Array(rows.buffer), flags, records, json],
    update: { kind: "upsert", records, rows, position: 0, flags, changes, documents },
  };
}

/** Where an update's vectors begin, by the place of its payload. */
export function decodedPlace({ log, position }: LogRows): LogRows {
  return { log, position: position + ROWS_AT };
}

export function encodeDelete(ids: readonly string[]): EncodedUpdate {
  return { kind: DELETE, parts: [Buffer.from(JSON.stringify(ids))] };
}

export function encodeMetadata(changes: readonly MetadataChange[]): EncodedUpdate {
  return { kind: METADATA, parts: [Buffer.from(JSON.stringify(changes))] };
}

/** @throws CorruptFileError for a record that says nothing an index could follow */
export function decodeUpdate({ kind, payload, position, sequence }: LogRecord, path: string): Update {
  const corrupt = (what: string, cause?: unknown): CorruptFileError =>
    new CorruptFileError(path, `${path}: update ${sequence} ${what}.`, { cause });
  const json = (bytes: Buffer): unknown => {
    try {
      return JSON.parse(bytes.toString("utf8"));
    } catch (cause) {
      throw corrupt("is not JSON", cause);
    }
  };
  switch (kind) {
    case UPSERT: {
      if (payload.length < ROWS_AT) throw corrupt("is shorter than its parts");
      const [documents, bytes, changeBytes] = [0, 4, 8].map((at) => payload.readUInt32LE(at)) as [
        number,
        number,
        number,
      ];
      const changesAt = payload.length - changeBytes;
      const recordsAt = changesAt - bytes;
      const rowBytes = recordsAt - documents - ROWS_AT;
      if (rowBytes < 0 || rowBytes % 4 !== 0) throw corrupt("is shorter than its parts");
      const changes = changeBytes === 0 ? [] : json(payload.subarray(changesAt));
      if (!Array.isArray(changes) || !changes.every(isChange))
        throw corrupt("does not say which documents it is about");
      return {
        kind: "upsert",
        records: payload.subarray(recordsAt, changesAt),
        rows: new Float32Array(payload.buffer, payload.byteOffset + ROWS_AT, rowBytes / 4),
        position: position + ROWS_AT,
        flags: payload.subarray(recordsAt - documents, recordsAt),
        changes: changes as MetadataChange[],
      };
    }
    case DELETE:
    case METADATA: {
      const value = json(payload);
      if (kind === DELETE && Array.isArray(value) && value.every((id) => typeof id === "string")) {
        return { kind: "delete", ids: value };
      }
      if (kind === METADATA && Array.isArray(value) && value.every(isChange)) {
        return { kind: "metadata", changes: value as MetadataChange[] };
      }
      throw corrupt("does not say which documents it is about");
    }
    default:
      throw corrupt(`is of kind ${kind}, which this program doesn't know`);
  }
}

function isChange(value: unknown): boolean {
  if (!Array.isArray(value) || value.length !== 2 || typeof value[0] !== "string") return false;
  return typeof value[1] === "object" && !Array.isArray(value[1]);
}

function flagsOf({ titleLeftOut, truncated }: EmbeddedDocument): number {
  return (titleLeftOut ? 1 : 0) | (truncated ? 2 : 0);
}

/** What a byte of `flags` says. */
export function readFlags(byte: number): { readonly titleLeftOut: boolean; readonly truncated: boolean } {
  return { titleLeftOut: (byte & 1) !== 0, truncated: (byte & 2) !== 0 };
}

/** A passage as a Qdrant point: its id, its payload, its numbers as JSON, and points in batches that a server takes. */
import { createHash } from "node:crypto";
import { InvalidInputError } from "@cde-js/core";
import type { CorpusDocument, JsonObject, SparseVector } from "@cde-js/retriever";
import type { PointAnswer } from "./answers.js";
import { Unsound } from "./connection.js";
import { QdrantError } from "./errors.js";

/** The key of the payload that is ours. All others are the document's metadata. */
export const RESERVED = "cde";
/** Of UUIDs made here: a random one, and never another. */
const NAMESPACE = Buffer.from("6f0d3a1c5b7e4c52a9f45de1c0b8e217", "hex");

export interface Point {
  readonly id: string;
  readonly vector: Readonly<Record<string, readonly number[] | SparseVector>>;
  readonly payload: JsonObject;
}

/** Halvings of the corpus from which a passage says that it is left: a corpus that is asked at all is large enough for two. */
export const LEAST_LEVEL = 2;

/** What the reserved key holds. */
export interface PassagePayload {
  /** Of the document. */
  readonly id: string;
  /** Number of the passage in its document. */
  readonly n: number;
  /** Passages of the document; 0 for one without any, which has a point all the same. */
  readonly of: number;
  readonly start: number;
  readonly end: number;
  readonly text: string;
  readonly title?: string;
  readonly tenant?: string;
  /** True where the title is too long to be embedded before the text. */
  readonly bare?: boolean;
  /** Of those that may be drawn: by how many halvings of the corpus it is left, 2 or more. */
  readonly draw?: number;
  /** Of the first passage: digest of text and title. It is written last, so it says that all passages are there. */
  readonly hash?: string;
  /** Of the first passage: the document's whole text, where it isn't that of the passage. */
  readonly document?: string;
}

/** UUIDv5 (RFC 9562) of collection, tenant, document and passage: the same on every machine. */
export function pointId(collection: string, tenant: string | undefined, document: string, passage: number): string {
  const name = JSON.stringify([collection, tenant ?? null, document, passage]);
  const bytes = createHash("sha1").update(NAMESPACE).update(name).digest().subarray(0, 16);
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x50, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Digest of all that is embedded and counted of a document. */
export function textHash({ text, title }: CorpusDocument): string {
  return createHash("sha256")
    .update(JSON.stringify([title ?? null, text]))
    .digest("hex");
}

/** Nine digits tell every float32 from its neighbours and take a third less space than JSON's own seventeen. */
export function jsonNumbers(vector: Float32Array): number[] {
  return Array.from(vector, (x) => Number(x.toPrecision(9)));
}

/** @throws InvalidInputError for metadata with our key */
export function checkMetadata(operation: string, id: string, metadata: JsonObject | undefined): void {
  if (metadata === undefined || !Object.hasOwn(metadata, RESERVED)) return;
  throw new InvalidInputError(
    `${operation}: the metadata of document ${JSON.stringify(id)} has the key "${RESERVED}", which is reserved in Qdrant. ` +
      "Rename it.",
  );
}

/** @throws Unsound for a point that we didn't write */
export function readPassage({ payload }: PointAnswer): PassagePayload {
  const found = payload[RESERVED] as Partial<PassagePayload> | undefined;
  const whole = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
  const isText = (value: unknown, optional: boolean): boolean =>
    typeof value === "string" || (optional && value === undefined);
  if (
    typeof found !== "object" ||
    found === null ||
    !isText(found.id, false) ||
    !isText(found.text, false) ||
    !isText(found.title, true) ||
    !isText(found.hash, true) ||
    !isText(found.document, true) ||
    ![found.n, found.of, found.start, found.end].every(whole)
  ) {
    // Stored so by somebody else: it would be so the next time.
    throw new Unsound(`a point has no passage under the payload key "${RESERVED}"`, { lasting: true });
  }
  return found as PassagePayload;
}

/** The document of a first passage. */
export function readDocument(point: PointAnswer): CorpusDocument {
  const { id, text, title, document } = readPassage(point);
  const metadata = metadataOf(point.payload);
  return {
    id,
    text: document ?? text,
    ...(title === undefined ? {} : { title }),
    ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
  };
}

export function metadataOf(payload: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(payload).filter(([key]) => key !== RESERVED));
}

/** A server refuses larger requests: 32 MiB, less what stands around the points. */
const LARGEST_POINT = 33_554_432 - 4096;
const BATCH_BYTES = 8 * 2 ** 20;
const BATCH_POINTS = 256;

/**
 * Points in their order, at most 8 MiB and `most` of them together; one that is larger alone.
 *
 * @throws QdrantError for a point that no request can hold
 */
export function batches<P extends { readonly id: string }>(points: readonly P[], most: number = BATCH_POINTS): P[][] {
  const found: P[][] = [];
  let batch: P[] = [];
  let bytes = 0;
  for (const point of points) {
    const size = Buffer.byteLength(JSON.stringify(point));
    if (size > LARGEST_POINT) {
      throw new QdrantError(
        "QDRANT_LIMIT",
        `upsert: the point ${point.id} takes ${size} bytes as JSON, and a request holds ${LARGEST_POINT}. Split the ` +
          "document, or leave part of its text or metadata elsewhere.",
      );
    }
    if (batch.length > 0 && (bytes + size > BATCH_BYTES || batch.length >= Math.min(most, BATCH_POINTS))) {
      found.push(batch);
      [batch, bytes] = [[], 0];
    }
    batch.push(point);
    bytes += size;
  }
  if (batch.length > 0) found.push(batch);
  return found;
}

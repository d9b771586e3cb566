/** Documents whose vectors were made elsewhere: checked, a passage each, and written as one update. */
import { setImmediate as pause } from "node:timers/promises";
import { InvalidInputError } from "@cde-js/core";
import { type EmbeddedDocument, refuseRepeated } from "./build-index.js";
import { type CorpusDocument, checkDocument } from "./documents.js";
import type { IndexState } from "./index-state.js";
import { requireFingerprint } from "./search/options.js";
import type { GivenVectorsOptions } from "./search-index.js";
import { encodeRecord } from "./storage/document-store.js";
import { encodeUpsert } from "./storage/update-records.js";
import type { UpsertReport, Write } from "./updates.js";
import { vectorFault } from "./vector-index.js";

/** Milliseconds of checking vectors after which the event loop gets a turn. */
const TURN = 15;

/** @throws InvalidInputError, FingerprintMismatchError */
export async function upsertVectorsInto(
  state: IndexState,
  documents: readonly CorpusDocument[],
  vectors: readonly Float32Array[],
  write: Write,
  { fingerprint, signal }: GivenVectorsOptions,
): Promise<UpsertReport> {
  if (state.isMapped) {
    throw new InvalidInputError(
      "upsertVectors: this index keeps base vectors, which can't be had from these. Use upsert.",
    );
  }
  requireFingerprint("upsertVectors", "the vectors", vectors, fingerprint, state.embedder.fingerprint);
  const embedded: EmbeddedDocument[] = [];
  const records: Buffer[] = [];
  let turn = performance.now();
  for (const given of checkGiven(documents, vectors, state.embedder.dimensions)) {
    embedded.push(given);
    records.push(encodeRecord(given.document, given.passages));
    if (performance.now() - turn < TURN) continue;
    await pause();
    turn = performance.now();
  }
  signal?.throwIfAborted();
  const replaced = embedded.filter(({ document: { id } }) => state.documents.numberOf(id) !== undefined).length;
  if (embedded.length > 0) {
    const encoded = encodeUpsert(embedded, [], records);
    await write(encoded.update, encoded);
  }
  const counts = { added: embedded.length - replaced, replaced, metadataChanged: 0, unchanged: 0, embedded: 0 };
  return { ...counts, withoutPassages: [], titlesLeftOut: [], truncated: [] };
}

/**
 * Documents and their vectors, copied, each with one passage: all of its text, blank or not.
 *
 * @throws InvalidInputError for lists of two lengths, a bad document or vector, or an id that comes twice, with the position
 */
export function* checkGiven(
  documents: readonly CorpusDocument[],
  vectors: readonly Float32Array[],
  dimensions: number,
): Generator<EmbeddedDocument> {
  const operation = "upsertVectors";
  if (!Array.isArray(documents) || !Array.isArray(vectors)) {
    throw new InvalidInputError(`${operation}: documents and vectors must be arrays.`);
  }
  if (vectors.length !== documents.length) {
    throw new InvalidInputError(`${operation}: ${documents.length} documents and ${vectors.length} vectors.`);
  }
  const positions = new Map<string, number>();
  for (const [position, vector] of (vectors as readonly Float32Array[]).entries()) {
    const document = checkDocument(documents[position], position, operation);
    refuseRepeated(document.id, position, positions, operation);
    const fault = vector instanceof Float32Array ? vectorFault(vector, dimensions) : "is no Float32Array";
    if (fault) throw new InvalidInputError(`${operation}: the vector at position ${position} ${fault}.`, { position });
    const passages = [{ start: 0, end: document.text.length }];
    yield { document, passages, rows: vector.slice(), titleLeftOut: false, truncated: false };
  }
}

/** What an update does to an index: which documents it is about, and what has to be embedded. */
import { InvalidInputError } from "@cde-js/core";
import {
  type BuildProgress,
  embedDocuments,
  ReportLists,
  refuseRepeated,
  requireIterable,
  splitIdentity,
} from "./build-index.js";
import { type CorpusDocument, checkDocument, checkMetadata, type JsonObject, type JsonValue } from "./documents.js";
import { compileFilter } from "./filters/compile.js";
import type { Filter } from "./filters/types.js";
import type { IndexState } from "./index-state.js";
import { samePassages } from "./storage/build-checkpoint.js";
import {
  type EncodedUpdate,
  encodeMetadata,
  encodeUpsert,
  type MetadataChange,
  type Update,
} from "./storage/update-records.js";

/** Documents by id, or by a filter over their metadata. */
export type Selection = { readonly ids: readonly string[] } | { readonly filter: Filter };

/** Fields that get another value; those that are undefined are removed. */
export type MetadataPatch = { readonly [field: string]: JsonValue | undefined };

export interface UpsertReport {
  /** Documents that were not there before. */
  readonly added: number;
  /** Documents whose text or title is another now. */
  readonly replaced: number;
  /** Documents of which only the metadata is another now; nothing was embedded. */
  readonly metadataChanged: number;
  readonly unchanged: number;
  /** Passages that were embedded. */
  readonly embedded: number;
  readonly withoutPassages: readonly string[];
  readonly titlesLeftOut: readonly string[];
  readonly truncated: readonly string[];
}

export interface UpsertOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: BuildProgress) => void;
}

/** Makes an update durable, then follows it. */
export type Write = (update: Update, encoded: EncodedUpdate) => Promise<void>;

/** Passages of one record of the log: few enough that following it doesn't hold up searches. */
const SLICE = 512;
/** Changes of metadata in one record. */
const CHANGES = 1000;

export async function upsertInto(
  state: IndexState,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  write: Write,
  { signal, onProgress }: UpsertOptions,
): Promise<UpsertReport> {
  requireIterable(documents, "upsert");
  const split = state.splitOption("upsert");
  refuseRepeatedIds(documents, "upsert");
  const counts = { added: 0, replaced: 0, metadataChanged: 0, unchanged: 0, embedded: 0 };
  const lists = new ReportLists();
  let changes: MetadataChange[] = [];
  const writeChanges = async (): Promise<void> => {
    if (changes.length > 0) await write({ kind: "metadata", changes }, encodeMetadata(changes));
    changes = [];
  };
  /** Those that have to be embedded. */
  async function* changed(): AsyncGenerator<CorpusDocument> {
    const positions = new Map<string, number>();
    let position = 0;
    for await (const value of documents) {
      const document = checkDocument(value, position, "upsert");
      refuseRepeated(document.id, position, positions, "upsert");
      position++;
      const known = await knownAs(state, document, split);
      if (known === "new") {
        yield document;
        continue;
      }
      counts[known]++;
      if (known === "unchanged") continue;
      changes.push([document.id, document.metadata ?? null]);
      if (changes.length >= CHANGES) await writeChanges();
    }
  }
  const slices = embedDocuments(state.storing, changed(), {
    operation: "upsert",
    split,
    slice: SLICE,
    signal,
    onProgress,
    ...(Array.isArray(documents) ? { total: documents.length } : {}),
  });
  for await (const slice of slices) {
    if (slice.length === 0) continue;
    const encoded = encodeUpsert(slice, changes);
    changes = [];
    for (const embedded of slice) {
      counts[state.documents.numberOf(embedded.document.id) === undefined ? "added" : "replaced"]++;
      counts.embedded += embedded.passages.length;
      lists.add(embedded);
    }
    await write(encoded.update, encoded);
    signal?.throwIfAborted();
  }
  await writeChanges();
  return { ...counts, ...lists };
}

/** Of an array, before anything is written. @throws InvalidInputError for a bad document or an id that comes twice */
export function refuseRepeatedIds(documents: unknown, operation: string): void {
  if (!Array.isArray(documents)) return;
  const positions = new Map<string, number>();
  for (const [i, value] of documents.entries()) {
    refuseRepeated(checkDocument(value, i, operation).id, i, positions, operation);
  }
}

async function knownAs(
  state: IndexState,
  document: CorpusDocument,
  split: ReturnType<IndexState["splitOption"]>,
): Promise<"new" | "metadataChanged" | "unchanged"> {
  const number = state.documents.numberOf(document.id);
  if (number === undefined) return "new";
  const stored = state.documents.read(number);
  if (stored.document.text !== document.text || stored.document.title !== document.title) return "new";
  // A splitter of the caller's may cut the same text otherwise today.
  if (typeof split === "function") {
    const passages = await split(document);
    const blank = passages.length === 0 && stored.passages.every(({ end }) => end === 0);
    if (!blank && !samePassages(passages, stored.passages)) return "new";
  } else if (JSON.stringify(state.split) !== JSON.stringify(splitIdentity(state.storing, split))) return "new";
  const same = JSON.stringify(stored.document.metadata) === JSON.stringify(document.metadata);
  return same ? "unchanged" : "metadataChanged";
}

/** The ids of documents that are there, each once. */
export async function selected(
  state: IndexState,
  asked: string | readonly string[] | Selection,
  operation: string,
): Promise<string[]> {
  const which = selection(asked, operation);
  if ("ids" in which) return [...new Set(which.ids)].filter((id) => state.documents.numberOf(id) !== undefined);
  const numbers = await state.points.matching(compileFilter(which.filter));
  return numbers.map((number) => state.documents.read(number).document.id);
}

export async function changedMetadata(
  state: IndexState,
  which: string | readonly string[] | Selection,
  patch: MetadataPatch,
): Promise<MetadataChange[]> {
  const operation = "updateMetadata";
  const { values, gone } = checkPatch(patch, operation);
  const found = await selected(state, which, operation);
  const missing = namedIds(which)?.find((id) => state.documents.numberOf(id) === undefined);
  if (missing !== undefined) throw noDocument(operation, missing);
  return found.map((id) => {
    const { metadata } = state.documents.read(state.documents.numberOf(id) as number).document;
    const next: Record<string, JsonValue> = { ...metadata, ...values };
    for (const field of gone) delete next[field];
    return [id, next as JsonObject];
  });
}

/** Documents as they may be named, checked. @throws InvalidInputError */
export function selection(which: string | readonly string[] | Selection, operation: string): Selection {
  const named = namedIds(which);
  if (named) return { ids: checkIds(named, operation) };
  if (typeof which !== "object" || which === null || "ids" in which === "filter" in which) {
    throw new InvalidInputError(`${operation}: say which documents by { ids } or by { filter }, one of them.`);
  }
  if (!("ids" in which)) return which as Selection;
  return { ids: checkIds(which.ids, operation) };
}

/** Ids that were given by themselves; undefined for `{ ids }` and `{ filter }`. */
export function namedIds(which: string | readonly string[] | Selection): readonly string[] | undefined {
  if (typeof which === "string") return [which];
  return Array.isArray(which) ? (which as readonly string[]) : undefined;
}

/** What a patch sets and what it removes. @throws InvalidInputError for one that JSON can't carry */
export function checkPatch(
  patch: MetadataPatch,
  operation: string,
): { readonly values: JsonObject; readonly gone: readonly string[] } {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) {
    throw new InvalidInputError(`${operation}: the patch must be an object of fields.`);
  }
  const given = Object.entries(patch);
  const values = checkMetadata(Object.fromEntries(given.filter(([, value]) => value !== undefined)), operation);
  return { values, gone: given.flatMap(([field, value]) => (value === undefined ? [field] : [])) };
}

export function noDocument(operation: string, id: string): InvalidInputError {
  return new InvalidInputError(`${operation}: there is no document with the id ${JSON.stringify(id)}.`);
}

function checkIds(ids: unknown, operation: string): readonly string[] {
  if (Array.isArray(ids) && ids.every((id) => typeof id === "string")) return ids;
  throw new InvalidInputError(`${operation}: ids must be an array of strings.`);
}

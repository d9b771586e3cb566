/** All that one generation of an index has in memory, and how updates change it, read from a log or just made. */
import { setImmediate as pause } from "node:timers/promises";
import { CorpusContext, CorruptFileError, type Embedder, InvalidInputError, internal } from "@cde-js/core";
import type { EmbeddedDocument, SplitOptions, Splitter } from "./build-index.js";
import type { JsonObject } from "./documents.js";
import type { RowType } from "./exact/row-table.js";
import { type BaseVectors, ExactIndex } from "./exact-index.js";
import { ASKED, type AutoFusion, chooseFusion, mustChoose } from "./fusion/auto-fusion.js";
import { drawPassages } from "./fusion/draw.js";
import type { StagedRow } from "./lexical/bm25-index.js";
import { LexicalPart } from "./lexical/lexical-part.js";
import { FilterPoints } from "./search/allowed.js";
import type { Searchable } from "./search/search.js";
import { DocumentStore, type StoredDocument } from "./storage/document-store.js";
import type { OpenGeneration } from "./storage/index-reader.js";
import type { FormerContext, GenerationState, SplitIdentity } from "./storage/manifest.js";
import { decodeUpdate, encodeUpsert, type MetadataChange, type Update } from "./storage/update-records.js";
import { FileVectors, type LogRows, MemoryVectors, SearchedVectors, type StoredVectors } from "./stored-vectors.js";
import type { VectorIndex } from "./vector-index.js";

/** Makes an empty index of vectors. `base` holds the float32 vectors of all labels, whenever it is asked. */
export type VectorIndexFactory = (dimensions: number, base: BaseVectors) => VectorIndex | Promise<VectorIndex>;

export interface RowOptions {
  /** How `ExactIndex` keeps vectors in memory for the search: see `ExactIndexOptions.rows`. @default "float32" */
  readonly rows?: RowType | undefined;
  /** Another index of vectors, in place of `ExactIndex`. The corpus index closes it. */
  readonly vectorIndex?: VectorIndexFactory | undefined;
}

/** What a state is made of beside its files. */
export interface StateOptions extends RowOptions {
  /** Of an index that was built with one. */
  readonly splitter?: Splitter | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Vectors mapped between two turns of the event loop: about 5 ms of 384 dimensions. */
const TURN = 256;

type Upsert = Extract<Update, { kind: "upsert" }>;

interface Parts {
  readonly embedder: Embedder;
  readonly documents: DocumentStore;
  readonly lexical: LexicalPart | undefined;
  readonly vectors: VectorIndex;
  readonly base: BaseVectors;
  readonly stored: StoredVectors;
  readonly split: SplitIdentity;
  readonly splitter: Splitter | undefined;
  readonly settled: number;
  readonly notes: JsonObject | null;
  readonly former: FormerContext | null;
  readonly formerContext?: Uint8Array | undefined;
  readonly generation?: OpenGeneration | undefined;
}

export class IndexState implements Searchable {
  readonly embedder: Embedder;
  readonly documents: DocumentStore;
  readonly points: FilterPoints;
  readonly lexical: LexicalPart | undefined;
  readonly vectors: VectorIndex;
  /** The float32 vectors of the search. */
  readonly base: BaseVectors;
  /** The vectors that are kept: what the embedder or, where there is one, its `base` gave. */
  readonly stored: StoredVectors;
  readonly split: SplitIdentity;
  readonly splitter: Splitter | undefined;
  /** Documents of lower numbers were there when the context was chosen. */
  settled: number;
  readonly notes: JsonObject | null;
  readonly former: FormerContext | null;
  readonly formerContext: Uint8Array | undefined;
  /** The files that it was read from; undefined for one in memory. */
  readonly generation: OpenGeneration | undefined;
  /** Number of the last update that was read from the log. */
  sequence: number;
  /** Undefined until it is chosen. */
  #fusion: AutoFusion | undefined;
  /** Passages that there were when it was last chosen, or found to be nothing. */
  #chosenOf: number | undefined;
  #choosing: Promise<AutoFusion | undefined> | undefined;
  /** Searches that run on it; it is closed behind the last one. */
  #users = 0;
  /** Passages from this number on have rows in the index of vectors, and aren't there yet. */
  #arriving: number | undefined;
  #retired = false;
  #searchClosed = false;

  private constructor(parts: Parts) {
    this.embedder = parts.embedder;
    this.documents = parts.documents;
    this.points = new FilterPoints(parts.documents);
    this.lexical = parts.lexical;
    this.vectors = parts.vectors;
    this.base = parts.base;
    this.stored = parts.stored;
    this.split = parts.split;
    this.splitter = parts.splitter;
    this.settled = parts.settled;
    this.notes = parts.notes;
    this.former = parts.former;
    this.formerContext = parts.formerContext;
    this.generation = parts.generation;
    this.sequence = parts.generation?.manifest.sequence ?? 0;
    this.#fusion = parts.generation?.manifest.fusion;
    this.#chosenOf = this.#fusion?.passages;
  }

  /** An empty one in memory. */
  static async empty(
    embedder: Embedder,
    options: StateOptions & {
      readonly lexical: LexicalPart | undefined;
      readonly split: SplitIdentity;
      readonly notes?: JsonObject | null;
      readonly former?: FormerContext | null;
      readonly formerContext?: Uint8Array | undefined;
    },
  ): Promise<IndexState> {
    const { lexical, split, splitter, notes = null, former = null, formerContext } = options;
    const map = mapOf(embedder);
    const memory = new MemoryVectors(embedder.dimensions);
    const mapped: BaseVectors = map ? { read: async (labels) => map.applyRows(await memory.read(labels)) } : memory;
    const { vectors, searched } = await vectorIndexOf(embedder.dimensions, mapped, options);
    const base = searched ?? mapped;
    const stored = map || !searched ? memory : searched;
    const documents = new DocumentStore();
    const state = { embedder, documents, lexical, vectors, base, stored, split, splitter, notes, former };
    return new IndexState({ ...state, settled: 0, formerContext });
  }

  /**
   * Reads a generation and the updates since. It closes the generation's files when it is closed itself.
   *
   * @throws CorruptFileError
   */
  static async read(generation: OpenGeneration, embedder: Embedder, options: StateOptions): Promise<IndexState> {
    const { manifest } = generation;
    const map = manifest.files.rows ? mapOf(embedder) : undefined;
    if (manifest.files.rows && !map) throw internal("mapped rows and an embedder without a map");
    const kept = new FileVectors(generation);
    const mapped = map ? new FileVectors(generation, "rows", (rows) => map.applyRows(rows)) : kept;
    let opened: VectorIndex | undefined;
    try {
      const { vectors, searched } = await vectorIndexOf(embedder.dimensions, mapped, options);
      opened = vectors;
      const documents = await generation.documents();
      const lexicalFile = await generation.bytes("lexical");
      const lexical = lexicalFile && LexicalPart.fromBytes(lexicalFile.bytes, lexicalFile.path, documents.passages);
      await fill(vectors, generation, options.signal);
      const state = new IndexState({
        embedder,
        documents,
        lexical,
        vectors,
        base: searched ?? mapped,
        stored: map || !searched ? kept : searched,
        split: manifest.split,
        splitter: options.splitter,
        settled: manifest.settled,
        notes: manifest.notes,
        former: manifest.former,
        formerContext: (await generation.bytes("formerContext"))?.bytes,
        generation,
      });
      for await (const { record, log } of generation.updates()) {
        options.signal?.throwIfAborted();
        const update = decodeUpdate(record, log.path);
        const place = update.kind === "upsert" ? { log, position: update.position } : undefined;
        await state.apply(update, place, log.path).catch((cause: unknown) => {
          if (!(cause instanceof InvalidInputError)) throw cause;
          const what = `${log.path}: update ${record.sequence} can't be followed: ${cause.message}`;
          throw new CorruptFileError(log.path, what, { cause });
        });
        state.sequence = record.sequence;
      }
      return state;
    } catch (error) {
      await opened?.close();
      await generation.close();
      throw error;
    }
  }

  /** Between the vectors that are kept and those of the search. */
  async mapped(rows: Float32Array): Promise<Float32Array> {
    const map = this.isMapped ? mapOf(this.embedder) : undefined;
    return map ? await mapRows(rows, map) : rows;
  }

  /** Whether base vectors are kept, and mapped by the context for the search. */
  get isMapped(): boolean {
    return this.generation ? this.generation.manifest.files.rows !== undefined : mapOf(this.embedder) !== undefined;
  }

  /** Of the embedder that gave the vectors that are kept. */
  get vectorFingerprint(): string {
    return this.generation?.manifest.vectorFingerprint ?? storingEmbedder(this.embedder).fingerprint;
  }

  /** What gives the vectors that are kept. */
  get storing(): Embedder {
    return this.isMapped ? storingEmbedder(this.embedder) : this.embedder;
  }

  /** How further documents are split. @throws InvalidInputError where that takes a splitter that isn't at hand */
  splitOption(operation: string): SplitOptions | Splitter | false | undefined {
    if (this.splitter) return this.splitter;
    if (this.split !== "own") return this.split ?? undefined;
    throw new InvalidInputError(
      `${operation}: this index was built with a splitter of its own. Open it with the same one, { split: yourSplitter }.`,
    );
  }

  visible(): Uint8Array | undefined {
    return this.#arriving === undefined ? undefined : firstBits(this.#arriving);
  }

  /**
   * Follows an update. What is of one update is seen by a search all at once. Where the index of vectors takes none of its
   * rows, nothing has changed.
   */
  async apply(update: Update, place?: LogRows, path = "memory"): Promise<void> {
    switch (update.kind) {
      case "upsert":
        return await this.#upsert(update, place, path);
      case "delete":
        return await this.#delete(update.ids);
      case "metadata":
        for (const change of update.changes) this.#setMetadata(change);
    }
  }

  /** Documents that were embedded, without a log. */
  async add(documents: readonly EmbeddedDocument[]): Promise<void> {
    if (documents.length === 0) return;
    await this.apply(encodeUpsert(documents).update);
  }

  /** What was chosen for mixes, without choosing. */
  get fusion(): AutoFusion | undefined {
    return this.#fusion;
  }

  /** Chosen when the index is built or as soon as it is large enough, and anew when it has doubled; it encodes nothing. */
  async autoFusion(): Promise<AutoFusion | undefined> {
    if (!this.lexical || !mustChoose(this.documents.livePassages, this.#chosenOf)) return this.#fusion;
    this.#choosing ??= this.#choose();
    try {
      return await this.#choosing;
    } finally {
      // Where it failed, since a passage was deleted meanwhile, the next search tries again.
      this.#choosing = undefined;
    }
  }

  async #choose(): Promise<AutoFusion | undefined> {
    const { documents, vectors, base } = this;
    const passages = documents.livePassages;
    this.#fusion = await chooseFusion(vectors, base, await drawPassages(documents, ASKED), passages);
    this.#chosenOf = passages;
    return this.#fusion;
  }

  /** Everything that stands fixed in the generation that is written from it. */
  frozen(sequence: number): GenerationState {
    const { modelId, fingerprint, dimensions } = this.embedder;
    const settled = this.liveBefore(this.settled);
    const { vectorFingerprint, split, notes } = this;
    const former = this.former && { ...this.former, settled: this.liveBefore(this.former.settled) };
    const { fusion } = this;
    return { modelId, fingerprint, dimensions, vectorFingerprint, split, sequence, settled, notes, former, fusion };
  }

  /** How many documents below a number are there: the number that it becomes in the next generation. */
  liveBefore(number: number): number {
    let count = 0;
    for (const live of this.documents.live()) if (live < number) count++;
    return count;
  }

  /** Runs a search that the state outlives. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    this.#users++;
    try {
      return await work();
    } finally {
      this.#users--;
      if (this.#retired && this.#users === 0) await this.close();
    }
  }

  /** Another state has taken its place. */
  async retire(): Promise<void> {
    this.#retired = true;
    if (this.#users === 0) await this.close();
  }

  /** Ends the searches that run, and lets no other begin. */
  async closeSearch(): Promise<void> {
    if (this.#searchClosed) return;
    this.#searchClosed = true;
    await this.vectors.close();
  }

  async close(): Promise<void> {
    await this.closeSearch();
    await this.generation?.close();
  }

  async #upsert(update: Upsert, place: LogRows | undefined, path: string): Promise<void> {
    const { documents, lexical, embedder } = this;
    const { records, rows, changes } = update;
    const mapped = await this.mapped(rows);
    const first = documents.passages;
    const staged = lexical ? await stagedTerms(lexical, first, update, path) : [];
    const count = rows.length / embedder.dimensions;
    if (count > 0) await this.#addRows(first, rows, mapped, place);
    const gone: number[] = [];
    // From here to the end nothing is awaited: no search runs in between.
    const taken = documents.adopt(records, (passages) => {
      this.stored.remove(passages.first, passages.count);
      for (let i = 0; i < passages.count; i++) gone.push(passages.first + i);
    });
    if (taken !== records.length || documents.passages - first !== count) {
      throw new CorruptFileError(path, `${path}: an update has other vectors than passages.`);
    }
    lexical?.index.admit(staged);
    for (const label of gone) lexical?.remove(label);
    for (const change of changes) this.#setMetadata(change);
    if (gone.length > 0) await this.vectors.delete(Uint32Array.from(gone));
  }

  /**
   * Vectors of passages that are about to come. Searches don't see them yet, so that a refused update leaves nothing, and
   * one that is followed is seen by its whole.
   */
  async #addRows(first: number, rows: Float32Array, mapped: Float32Array, place: LogRows | undefined): Promise<void> {
    const kept =
      this.base instanceof FileVectors && this.base !== this.stored ? [this.stored, this.base] : [this.stored];
    // Before the index knows their labels: it may read them to score candidates anew.
    for (const vectors of kept) vectors.add(first, rows, place);
    this.#arriving = first;
    try {
      await this.vectors.upsert(labelsFrom(first, mapped.length / this.embedder.dimensions), mapped);
    } catch (error) {
      for (const vectors of kept) vectors.truncate(first);
      throw error;
    } finally {
      this.#arriving = undefined;
    }
  }

  async #delete(ids: readonly string[]): Promise<void> {
    const gone: number[] = [];
    for (const id of ids) {
      const number = this.documents.numberOf(id);
      if (number === undefined) continue;
      const { first, count } = this.documents.remove(number);
      this.stored.remove(first, count);
      for (let label = first; label < first + count; label++) {
        this.lexical?.remove(label);
        gone.push(label);
      }
    }
    if (gone.length > 0) await this.vectors.delete(Uint32Array.from(gone));
  }

  #setMetadata([id, metadata]: MetadataChange): void {
    const number = this.documents.numberOf(id);
    if (number === undefined) return;
    const { document, passages } = this.documents.read(number);
    const { metadata: _, ...rest } = document;
    this.documents.replace(number, metadata === null ? rest : { ...rest, metadata }, passages);
    this.points.forget(number);
  }
}

/** Milliseconds of counting words after which the event loop gets a turn. */
const WORDS_TURN = 15;

/** The terms of all passages of these records, in their order, ready to be admitted. */
async function stagedTerms(lexical: LexicalPart, first: number, update: Upsert, path: string): Promise<StagedRow[]> {
  const staged: StagedRow[] = [];
  let turn = performance.now();
  for (const { document, passages } of update.documents ?? decoded(update.records, path)) {
    for (const { start, end } of passages) {
      const counts = lexical.count(document.title, document.text.slice(start, end));
      staged.push(lexical.index.stageTerms(first + staged.length, counts));
      if (performance.now() - turn < WORDS_TURN) continue;
      await pause();
      turn = performance.now();
    }
  }
  return staged;
}

function* decoded(records: Buffer, path: string): Generator<StoredDocument> {
  const incoming = new DocumentStore(path);
  incoming.adopt(records, () => {});
  for (let number = 0; number < incoming.documents; number++) yield incoming.read(number);
}

/** What gives the vectors that an index of this embedder keeps. */
export function storingEmbedder(embedder: Embedder): Embedder {
  return mapOf(embedder) ? (embedder.base as Embedder) : embedder;
}

/** The map of the embedder's context, where base vectors can be had beside it. */
export function mapOf({ base, context }: Embedder): CorpusContext["map"] {
  return base ? context?.map : undefined;
}

/** Rows through a map, leaving the event loop its turns. */
export async function mapRows(
  rows: Float32Array,
  map: NonNullable<CorpusContext["map"]>,
  signal?: AbortSignal,
): Promise<Float32Array> {
  const out = new Float32Array(rows.length);
  const step = TURN * map.dimensions;
  for (let at = 0; at < rows.length; at += step) {
    if (at > 0) await pause();
    signal?.throwIfAborted();
    out.set(map.applyRows(rows.subarray(at, at + step)), at);
  }
  return out;
}

/** Blocks of rows as one. */
export function joined(blocks: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    all.set(block, at);
    at += block.length;
  }
  return all;
}

/** Bits of the labels below `count`. */
function firstBits(count: number): Uint8Array {
  const bits = new Uint8Array((count + 7) >> 3).fill(0xff);
  if (count % 8 > 0) bits[bits.length - 1] = (1 << (count % 8)) - 1;
  return bits;
}

function labelsFrom(first: number, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => first + i);
}

/** The rows of a generation into an empty index of vectors. */
async function fill(vectors: VectorIndex, generation: OpenGeneration, signal: AbortSignal | undefined): Promise<void> {
  const { manifest } = generation;
  // The worker takes one block while the next is read and checked.
  let adopting: Promise<void> = Promise.resolve();
  for await (const { first, rows } of generation.vectors(manifest.files.rows ? "rows" : "vectors")) {
    signal?.throwIfAborted();
    await adopting;
    const labels = labelsFrom(first, rows.length / manifest.dimensions);
    adopting = vectors instanceof ExactIndex ? vectors.adopt(labels, rows) : vectors.upsert(labels, rows);
    // Awaited above or below; this only keeps a failure in between from counting as unhandled.
    adopting.catch(() => {});
  }
  await adopting;
}

async function vectorIndexOf(
  dimensions: number,
  base: BaseVectors,
  { rows, vectorIndex }: RowOptions,
): Promise<{ readonly vectors: VectorIndex; readonly searched: SearchedVectors | undefined }> {
  if (vectorIndex && rows !== undefined) {
    throw new InvalidInputError(
      `rows: "${rows}" is for the exact index, but vectorIndex gives another. Leave one out.`,
    );
  }
  if (vectorIndex) {
    const vectors = await vectorIndex(dimensions, base);
    if (vectors.dimensions === dimensions) return { vectors, searched: undefined };
    await vectors.close();
    throw new InvalidInputError(
      `vectorIndex made an index of ${vectors.dimensions} dimensions, the embedder has ${dimensions}. Use the dimensions ` +
        "that it is given.",
    );
  }
  const vectors = new ExactIndex(dimensions, { rows: rows ?? "float32", base });
  return { vectors, searched: vectors.rows === "float32" ? new SearchedVectors(vectors) : undefined };
}

/** @throws CorruptFileError */
export async function contextOf(generation: OpenGeneration): Promise<CorpusContext | undefined> {
  const file = await generation.bytes("context");
  return file && (await CorpusContext.fromBytes(file.bytes, file.path));
}

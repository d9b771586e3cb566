/** A corpus ready to be searched: documents, their passages and vectors, bound to the embedder that made them. */
import { type CorpusContext, type Embedder, FingerprintMismatchError, InvalidInputError } from "@cde-js/core";
import { MemoryVectors } from "./base-vectors.js";
import { type BuildProgress, type BuildReport, ingest, type SplitOptions, type Splitter } from "./build-index.js";
import {
  type ContextEncoder,
  type ContextPassage,
  type CorpusContextOptions,
  contextFromCorpus,
  type DocumentSource,
} from "./context/from-corpus.js";
import type { ContextChoice } from "./context/select-context.js";
import { type CorpusDocument, wellFormedFault } from "./documents.js";
import { IndexClosedError } from "./errors.js";
import type { RowType } from "./exact/row-table.js";
import { type BaseVectors, ExactIndex } from "./exact-index.js";
import type { AnalyzerOptions } from "./lexical/analyzer.js";
import { LexicalPart } from "./lexical/lexical-part.js";
import { FilterPoints } from "./search/allowed.js";
import { type Hit, planSearch, type SearchOptions } from "./search/options.js";
import { type Searchable, searchPassages } from "./search/search.js";
import { DocumentStore } from "./storage/document-store.js";
import { nodeFileSystem } from "./storage/file-system.js";
import { OpenGeneration } from "./storage/index-reader.js";
import { IndexWriter } from "./storage/index-writer.js";
import type { IndexIdentity } from "./storage/manifest.js";
import type { VectorIndex } from "./vector-index.js";

/** Makes an empty index of vectors. `base` holds the float32 vectors of all labels, whenever it is asked. */
export type VectorIndexFactory = (dimensions: number, base: BaseVectors) => VectorIndex | Promise<VectorIndex>;

export interface OpenOptions {
  /** How `ExactIndex` keeps vectors in memory for the search: see `ExactIndexOptions.rows`. @default "float32" */
  readonly rows?: RowType;
  /** Another index of vectors, in place of `ExactIndex`. The corpus index closes it. */
  readonly vectorIndex?: VectorIndexFactory;
  readonly signal?: AbortSignal;
}

export interface BuildOptions extends OpenOptions {
  /** How texts are split: limits of our own splitter, a splitter of yours, or `false` for one passage a document. */
  readonly split?: SplitOptions | Splitter | false;
  /** How the lexical part finds words, or `false` for an index that is searched by meaning only. @default English */
  readonly lexical?: AnalyzerOptions | false;
  /** A folder that the index is written to while it is built, in place of one that is there; for `CorpusIndex.open`. */
  readonly directory?: string;
  readonly onProgress?: (progress: BuildProgress) => void;
}

/** Rows moved at once between index and file. */
const COPY_ROWS = 4096;

/**
 * Documents that can be searched by meaning and by words. Built or opened, then immutable; it answers only for the embedder whose
 * fingerprint it carries. Close it (or `await using`) to end its worker thread.
 */
export class CorpusIndex implements AsyncDisposable {
  readonly modelId: string;
  /** Of the model and context that made the vectors. */
  readonly fingerprint: string;
  readonly dimensions: number;
  /** What building left out or cut; undefined for an index that was opened. */
  readonly report: BuildReport | undefined;
  readonly #parts: Searchable;
  readonly #generation: OpenGeneration | undefined;
  #made: { readonly context: CorpusContext; readonly choice: ContextChoice<ContextPassage> } | undefined;
  #closed = false;

  private constructor(embedder: Embedder, parts: Parts, report?: BuildReport) {
    this.modelId = embedder.modelId;
    this.fingerprint = embedder.fingerprint;
    this.dimensions = embedder.dimensions;
    this.report = report;
    const { documents, vectors, base, lexical, generation } = parts;
    this.#parts = { embedder, documents, points: new FilterPoints(documents), vectors, base, lexical };
    this.#generation = generation;
  }

  /**
   * Embeds the documents, in memory or (with `directory`) into a folder that becomes an index only when all is done.
   *
   * @throws InvalidInputError for a bad document, with its position; RuntimeFailureError for bad vectors;
   * StorageError and IndexLockedError with `directory`.
   */
  static async build(
    embedder: Embedder,
    documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
    options: BuildOptions = {},
  ): Promise<CorpusIndex> {
    const { directory, split, signal, onProgress } = options;
    const store = new DocumentStore();
    const lexical = options.lexical === false ? undefined : LexicalPart.create(options.lexical ?? {});
    const writer = directory === undefined ? undefined : await IndexWriter.begin(nodeFileSystem, directory);
    let memory: MemoryVectors | undefined;
    let vectors: VectorIndex | undefined;
    let next = 0;
    try {
      // What goes to a folder is read back from it, checked; what stays in memory goes to the search at once.
      if (!writer) {
        const rows = new MemoryVectors(embedder.dimensions);
        vectors = await vectorIndexOf(embedder.dimensions, rows, options);
        if (!holdsBase(vectors)) memory = rows;
      }
      const keep = async (block: Float32Array): Promise<void> => {
        const count = block.length / embedder.dimensions;
        await writer?.addVectors(block);
        await vectors?.upsert(labelsFrom(next, count), block);
        memory?.append(block);
        next += count;
      };
      const report = await ingest(embedder, documents, store, keep, {
        lexical,
        signal,
        onProgress,
        ...(split === undefined ? {} : { split }),
      });
      // Documents of a later version of this index are weighed by the average length of these.
      lexical?.index.freeze();
      await writer?.commit(identityOf(embedder), store, lexical?.toBytes());
      if (vectors) {
        const base = memory ?? (vectors as ExactIndex);
        return new CorpusIndex(embedder, { documents: store, vectors, base, lexical }, report);
      }
      const parts = await readParts(directory as string, embedder, options);
      return new CorpusIndex(embedder, parts, report);
    } catch (error) {
      await writer?.abort();
      await vectors?.close();
      throw error;
    }
  }

  /**
   * Reads the corpus twice: chooses passages of it, of which `encoder` builds the context, then embeds all of it under
   * that context. An index in a folder needs the context to be opened again: save it (`index.context.save`).
   *
   * @example
   * const index = await CorpusIndex.fromCorpus(encoder, () => readDocuments(path), { contextSize: 512 });
   * @throws InvalidInputError for a source that can't be read twice or gives another corpus, and for a corpus with fewer
   * passages than the model reads exactly (with `repeat`, they are repeated); otherwise as `build`
   */
  static async fromCorpus(
    encoder: ContextEncoder,
    documents: DocumentSource,
    options: BuildOptions & CorpusContextOptions = {},
  ): Promise<CorpusIndex> {
    const { context, choice, embedder, again } = await contextFromCorpus(encoder, documents, options);
    const index = await CorpusIndex.build(embedder, again, options);
    index.#made = { context, choice };
    return index;
  }

  /**
   * Reads an index that `save` or `build` wrote.
   *
   * @throws MissingFileError where there is none, CorruptFileError for a damaged one, FingerprintMismatchError for one
   * of another model or context, StorageError where the folder can't be read.
   */
  static async open(directory: string, embedder: Embedder, options: OpenOptions = {}): Promise<CorpusIndex> {
    return new CorpusIndex(embedder, await readParts(directory, embedder, options));
  }

  /** What queries are embedded with. */
  get embedder(): Embedder {
    return this.#parts.embedder;
  }

  /** The context that `fromCorpus` built; undefined for other indexes. */
  get context(): CorpusContext | undefined {
    return this.#made?.context;
  }

  /** What `fromCorpus` chose as context and what it left out; undefined for other indexes. */
  get contextChoice(): ContextChoice<ContextPassage> | undefined {
    return this.#made?.choice;
  }

  /** Documents. */
  get count(): number {
    return this.#parts.documents.documents;
  }

  /** Passages: what a search ranks. */
  get passageCount(): number {
    return this.#parts.documents.passages;
  }

  /** Whether words were counted, so that lexical and hybrid searches are possible. */
  get hasLexicalPart(): boolean {
    return this.#parts.lexical !== undefined;
  }

  /**
   * The passages that answer best, best first (but for `mmr`); equal scores of one ranking in the order of the corpus.
   *
   * @throws InvalidInputError for a blank query or options that can't be followed, InvalidFilterError.
   */
  async search(query: string, options: SearchOptions = {}): Promise<Hit[]> {
    this.#requireOpen("search");
    const plan = planSearch(options, this.hasLexicalPart);
    const textFault = wellFormedFault(query);
    if (textFault) throw new InvalidInputError(`search: the query ${textFault}.`);
    if (query.trim() === "") throw new InvalidInputError("search: the query is blank.");
    plan.signal?.throwIfAborted();
    try {
      return await searchPassages(this.#parts, query, plan);
    } catch (error) {
      // Whatever broke, closing came first.
      this.#requireOpen("search");
      throw error;
    }
  }

  /** A document by its id; undefined where there is none. */
  async get(id: string): Promise<CorpusDocument | undefined> {
    this.#requireOpen("get");
    const { documents } = this.#parts;
    const number = documents.numberOf(id);
    return number === undefined ? undefined : documents.read(number).document;
  }

  /** All documents, in the order in which they came. */
  async *documents(): AsyncGenerator<CorpusDocument> {
    for (let number = 0; number < this.count; number++) {
      this.#requireOpen("documents");
      yield this.#parts.documents.read(number).document;
    }
  }

  /**
   * Writes the index to a folder, in place of one that is there. Either all of it is there afterwards or, where this
   * throws or the process ends, what was there before.
   *
   * @throws StorageError (disk full, read-only, ...), IndexLockedError
   */
  async save(directory: string, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    this.#requireOpen("save");
    const { signal } = options;
    const { base, documents, lexical } = this.#parts;
    signal?.throwIfAborted();
    const writer = await IndexWriter.begin(nodeFileSystem, directory);
    try {
      for (let first = 0; first < this.passageCount; first += COPY_ROWS) {
        signal?.throwIfAborted();
        const count = Math.min(COPY_ROWS, this.passageCount - first);
        await writer.addVectors(await base.read(labelsFrom(first, count)));
      }
      await writer.commit(this, documents, lexical?.toBytes());
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#parts.vectors.close();
    await this.#generation?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #requireOpen(operation: string): void {
    if (this.#closed) throw new IndexClosedError(operation);
  }
}

interface Parts {
  readonly documents: DocumentStore;
  readonly vectors: VectorIndex;
  readonly base: BaseVectors;
  readonly lexical: LexicalPart | undefined;
  readonly generation?: OpenGeneration;
}

async function readParts(directory: string, embedder: Embedder, options: OpenOptions): Promise<Parts> {
  const { signal } = options;
  signal?.throwIfAborted();
  const generation = await OpenGeneration.open(nodeFileSystem, directory);
  let vectors: VectorIndex | undefined;
  try {
    refuseOther(directory, generation.manifest, embedder);
    const base: BaseVectors = { read: (labels) => generation.vectorsOf(labels) };
    vectors = await vectorIndexOf(embedder.dimensions, base, options);
    const documents = await generation.documents();
    const lexicalFile = await generation.lexical();
    const lexical = lexicalFile && LexicalPart.fromBytes(lexicalFile.bytes, lexicalFile.path, documents.passages);
    // The worker takes one block while the next is read and checked.
    let adopting: Promise<void> = Promise.resolve();
    for await (const { first, rows } of generation.vectors()) {
      signal?.throwIfAborted();
      await adopting;
      const labels = labelsFrom(first, rows.length / embedder.dimensions);
      adopting = vectors instanceof ExactIndex ? vectors.adopt(labels, rows) : vectors.upsert(labels, rows);
      // Awaited above or below; this only keeps a failure in between from counting as unhandled.
      adopting.catch(() => {});
    }
    await adopting;
    if (!holdsBase(vectors)) return { documents, vectors, base, lexical, generation };
    await generation.close();
    return { documents, vectors, base: vectors, lexical };
  } catch (error) {
    await vectors?.close();
    await generation.close();
    throw error;
  }
}

async function vectorIndexOf(dimensions: number, base: BaseVectors, options: OpenOptions): Promise<VectorIndex> {
  const { rows = "float32", vectorIndex } = options;
  if (!vectorIndex) return new ExactIndex(dimensions, { rows, base });
  if (options.rows === undefined) return await vectorIndex(dimensions, base);
  throw new InvalidInputError(`rows: "${rows}" is for the exact index, but vectorIndex gives another. Leave one out.`);
}

/** Float32 rows are the base vectors, bit for bit: then nothing else has to keep them. */
function holdsBase(vectors: VectorIndex): vectors is ExactIndex {
  return vectors instanceof ExactIndex && vectors.rows === "float32";
}

function refuseOther(directory: string, index: IndexIdentity, embedder: Embedder): void {
  if (index.fingerprint !== embedder.fingerprint) {
    throw new FingerprintMismatchError(
      index.fingerprint,
      embedder.fingerprint,
      `open: the index in ${directory} was built with ${index.modelId}, fingerprint ${index.fingerprint}; the embedder ` +
        `is ${embedder.modelId}, fingerprint ${embedder.fingerprint}. Their vectors are not comparable; open the index ` +
        "with its own model and context, or build it again.",
    );
  }
  if (index.dimensions !== embedder.dimensions) {
    throw new FingerprintMismatchError(
      String(index.dimensions),
      String(embedder.dimensions),
      `open: the index in ${directory} has ${index.dimensions} dimensions, the embedder of the same fingerprint has ` +
        `${embedder.dimensions}. Build the index again.`,
    );
  }
}

function identityOf({ modelId, fingerprint, dimensions }: Embedder): IndexIdentity {
  return { modelId, fingerprint, dimensions };
}

function labelsFrom(first: number, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => first + i);
}

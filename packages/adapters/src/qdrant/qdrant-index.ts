/** A corpus on a Qdrant server: `CorpusIndex` from afar, with the same documents, filters, options and hits. */
import { setMaxListeners } from "node:events";
import { type CorpusContext, type Embedder, FingerprintMismatchError, InvalidInputError } from "@cde-js/core";
import {
  type Analyzer,
  type AutoFusion,
  type BuildReport,
  type CorpusDocument,
  createAnalyzer,
  type Filter,
  type GivenVectorsOptions,
  type Hit,
  IndexClosedError,
  type IndexCounts,
  type MetadataPatch,
  type RecontextReport,
  type RequestOptions,
  type SearchIndex,
  type SearchOptions,
  type Selection,
  type SplitOptions,
  type Splitter,
  type VectorSearchOptions,
} from "@cde-js/retriever";
import {
  checkGiven,
  checkPatch,
  namedIds,
  noDocument,
  planVectorSearch,
  requireFingerprint,
  selection,
} from "@cde-js/retriever/backend";
import { type CollectionState, QdrantCollection, vectorNameOf } from "./collection.js";
import { QdrantConnection } from "./connection.js";
import { checkCreateOptions, createCollection } from "./create.js";
import { DocumentPoints, lookUps } from "./documents.js";
import { QdrantError } from "./errors.js";
import { ServerFusion } from "./fusion.js";
import { changeMetadata, metadataChange } from "./metadata.js";
import { type Migrating, migrate } from "./migration.js";
import type {
  QdrantCreateOptions,
  QdrantOpenOptions,
  QdrantRecontextOptions,
  QdrantRollbackOptions,
} from "./options.js";
import { RESERVED } from "./points.js";
import { requireEmbedder, requireOpenable } from "./record.js";
import { type QdrantSearchParameters, type SearchParts, searchServer } from "./search.js";
import { checkBase, type GenerationEmbedder, keptBase } from "./source.js";
import { type WriteOptions, type WriteReport, Writer, type Writing } from "./writer.js";

/**
 * Documents on a Qdrant server, searched by meaning and words. It answers only for the embedder whose fingerprint the
 * collection carries. All writes can be repeated: a writer that was interrupted is run again and ends complete.
 */
export class QdrantIndex implements SearchIndex {
  readonly collection: string;
  readonly tenant: string | undefined;
  readonly #target: QdrantCollection;
  readonly #documents: DocumentPoints;
  readonly #fusion: ServerFusion;
  readonly #split: SplitOptions | Splitter | false | undefined;
  readonly #parameters: QdrantSearchParameters;
  readonly #analyzer: Analyzer | undefined;
  readonly #closing: AbortController;
  #state: CollectionState;
  #report: BuildReport | undefined;
  #generation: GenerationEmbedder;
  /** The generation before, as long as this object knows its embedder. */
  #previous: GenerationEmbedder | undefined;
  /** The generation that is being filled. */
  #next: GenerationEmbedder | undefined;
  /** Writes under way: a change of context waits for those that don't know of it. */
  readonly #slices = new Set<Promise<void>>();
  /** Searches under way, by the vector that they use: a vector is dropped only when nobody here reads it. */
  readonly #reading = new Map<string, Set<Promise<unknown>>>();

  private constructor(
    target: QdrantCollection,
    state: CollectionState,
    generation: GenerationEmbedder,
    options: QdrantOpenOptions & { readonly closing: AbortController },
  ) {
    this.#target = target;
    this.#state = state;
    this.#generation = generation;
    this.collection = target.name;
    this.tenant = options.tenant;
    this.#documents = new DocumentPoints(target, options.tenant, () => this.#state);
    this.#split = options.split;
    this.#closing = options.closing;
    this.#parameters = options.search ?? {};
    this.#fusion = new ServerFusion(target, this.#documents, { chosen: state.fusion, parameters: this.#parameters });
    const { lexical } = state.record;
    this.#analyzer = lexical ? createAnalyzer(lexical.analyzer) : undefined;
    if (lexical && this.#analyzer?.id !== lexical.analyzerId) {
      throw new QdrantError(
        "QDRANT_COLLECTION",
        `open: the words of "${target.name}" were found by the analyzer "${lexical.analyzerId}", this version has ` +
          `"${this.#analyzer?.id}". Their weights can't be compared; build the collection again.`,
      );
    }
  }

  /**
   * Opens a collection made by `create` or `build`.
   *
   * @throws FingerprintMismatchError for a collection of another model, context or dimension, with both values;
   * QdrantError for one that isn't there or isn't ours, MissingPeerError
   */
  static async open(embedder: Embedder, options: QdrantOpenOptions): Promise<QdrantIndex> {
    const { base, signal } = options;
    checkBase("open", embedder, base || undefined);
    const connection = await QdrantConnection.open(options, signal);
    const closing = closable();
    const target = new QdrantCollection(connection, options.collection, closing.signal);
    const state = await target.state("open", signal);
    return QdrantIndex.#opened(target, state, embedder, { ...options, closing });
  }

  /** Makes the collection with all its indexes, or opens the one that is there, which must have been made alike. */
  static async create(embedder: Embedder, options: QdrantCreateOptions): Promise<QdrantIndex> {
    checkCreateOptions(embedder, options);
    const connection = await QdrantConnection.open(options, options.signal);
    const closing = closable();
    const target = new QdrantCollection(connection, options.collection, closing.signal);
    const state = await createCollection(target, embedder, options);
    return QdrantIndex.#opened(target, state, embedder, { ...options, closing });
  }

  /** `create`, then `upsert`. Run again after an interruption, it goes on where it was. */
  static async build(
    embedder: Embedder,
    documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
    options: QdrantCreateOptions & WriteOptions,
  ): Promise<QdrantIndex> {
    const index = await QdrantIndex.create(embedder, options);
    try {
      const written = await index.upsert(documents, options);
      const { documents: given, withoutPassages, titlesLeftOut, truncated } = written;
      index.#report = {
        documents: given,
        passages: written.passages + written.passagesKept,
        withoutPassages,
        titlesLeftOut,
        truncated,
        resumed: written.unchanged + written.metadataChanged,
      };
      if (index.hasLexicalPart) await index.#fusion.of(index.#generation, options.signal);
    } catch (error) {
      await index.close();
      throw error;
    }
    return index;
  }

  static #opened(
    target: QdrantCollection,
    state: CollectionState,
    embedder: Embedder,
    options: QdrantOpenOptions & { readonly closing: AbortController },
  ): QdrantIndex {
    const { record } = state;
    requireOpenable(target.name, state, embedder, options);
    const base = keptBase(embedder, options.base, record.baseFingerprint);
    return new QdrantIndex(target, state, { vector: record.vector, embedder, base }, options);
  }

  /** What `build` left out or cut, and found there already; undefined for an index that was opened. */
  get report(): BuildReport | undefined {
    return this.#report;
  }

  /** What queries are embedded with. */
  get embedder(): Embedder {
    return this.#generation.embedder;
  }

  get modelId(): string {
    return this.embedder.modelId;
  }

  /** Of the model and context that answer. */
  get fingerprint(): string {
    return this.embedder.fingerprint;
  }

  get dimensions(): number {
    return this.embedder.dimensions;
  }

  /** Whether words were counted, so that lexical and hybrid searches are possible. */
  get hasLexicalPart(): boolean {
    return this.#analyzer !== undefined;
  }

  /** What `fusion: "auto"` chooses by, as far as this object has had to know it; `describeFusion` says it in a line. */
  get fusion(): AutoFusion | undefined {
    return this.#fusion.known(this.#generation.vector);
  }

  /** Version of the server. */
  get serverVersion(): string {
    return this.#target.connection.version;
  }

  /** Whether there is a generation to go back to. */
  get canRollBack(): boolean {
    return this.#state.record.previous !== null;
  }

  /** The context of the embedder; undefined without one, or where the embedder doesn't say. */
  get context(): CorpusContext | undefined {
    return this.embedder.context;
  }

  /** Documents and passages (of this tenant), by two requests. */
  async counts(options: RequestOptions = {}): Promise<IndexCounts> {
    const [documents, passages] = await Promise.all([this.countDocuments(options), this.countPassages(options)]);
    return { documents, passages };
  }

  /** Documents (of this tenant). */
  async countDocuments({ signal }: RequestOptions = {}): Promise<number> {
    this.#begin("countDocuments", signal);
    return await this.#documents.count("countDocuments", "documents", signal);
  }

  /** Passages (of this tenant): what a search ranks. */
  async countPassages({ signal }: RequestOptions = {}): Promise<number> {
    this.#begin("countPassages", signal);
    return await this.#documents.count("countPassages", "passages", signal);
  }

  /**
   * The passages that answer best, as `CorpusIndex.search` gives them; equal scores by document. Reciprocal ranks and
   * score distributions are fused by the server in one request, and their hits have no `scores` of the two parts.
   *
   * @throws InvalidInputError, InvalidFilterError, QdrantError; FingerprintMismatchError where the collection has moved
   * to another context meanwhile
   */
  search(query: string, options: SearchOptions = {}): Promise<Hit[]> {
    return this.#search("search", query, options);
  }

  /**
   * The dense search of a query vector that an embedder of this very fingerprint gave.
   *
   * @throws FingerprintMismatchError for one that is known to be of another model or context; otherwise as `search`
   */
  async searchVector(vector: Float32Array, options: VectorSearchOptions = {}): Promise<Hit[]> {
    // Its checks; what is asked of the server is planned with the search.
    planVectorSearch(vector, options, this);
    const { fingerprint: _, ...search } = options;
    return await this.#search("searchVector", vector.slice(), { ...search, mode: "dense" });
  }

  /** A document by its id; undefined where there is none. */
  async get(id: string, { signal }: RequestOptions = {}): Promise<CorpusDocument | undefined> {
    this.#begin("get", signal);
    return (await this.#documents.byId("get", [id], signal)).get(id);
  }

  /** Documents of these ids, in the order asked for; those that aren't there are left out. */
  async getMany(ids: readonly string[], { signal }: RequestOptions = {}): Promise<CorpusDocument[]> {
    this.#begin("getMany", signal);
    const found = await this.#documents.byId("getMany", ids, signal);
    return ids.flatMap((id) => found.get(id) ?? []);
  }

  /** All documents (of this tenant), or those that a filter accepts, in the order of their point ids. */
  async *documents(options: RequestOptions & { readonly filter?: Filter } = {}): AsyncGenerator<CorpusDocument> {
    const { filter, signal } = options;
    this.#begin("documents", signal);
    for await (const document of this.#documents.all("documents", filter, signal)) {
      yield document;
      this.#requireOpen("documents");
    }
  }

  /**
   * Adds documents and replaces those whose ids are there. Of texts that are unchanged nothing is embedded; where only
   * metadata differ, only they are written. An id that comes twice is refused in an array; of a stream, whose ids nobody
   * could remember, the later one stays.
   *
   * @throws InvalidInputError for a bad document, with its position, FingerprintMismatchError, QdrantError
   */
  async upsert(
    documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
    options: WriteOptions = {},
  ): Promise<WriteReport> {
    const { signal } = options;
    this.#begin("upsert", signal);
    const { record } = await this.#refresh("upsert", signal);
    if (record.baseFingerprint !== null && !this.#generation.base) {
      throw new InvalidInputError(
        `upsert: "${this.collection}" keeps base vectors of ${record.baseFingerprint}, and this object can't make any. ` +
          "Open it with { base: { embedder, context } } to write.",
      );
    }
    return await this.#write(new Writer(this.#writing(), options), documents);
  }

  /**
   * Adds whole documents, a passage each, with vectors that an embedder of this very fingerprint gave. Not where base
   * vectors are kept, of which these are none. Interrupted, it may have written the first ones: run again, it completes.
   *
   * @throws FingerprintMismatchError for vectors that are known to be of another model or context, InvalidInputError for a
   * bad document or vector with its position, QdrantError
   */
  async upsertVectors(
    documents: readonly CorpusDocument[],
    vectors: readonly Float32Array[],
    options: GivenVectorsOptions & WriteOptions = {},
  ): Promise<WriteReport> {
    const { fingerprint, signal } = options;
    this.#begin("upsertVectors", signal);
    if (this.#state.record.baseFingerprint !== null) {
      throw new InvalidInputError(
        `upsertVectors: "${this.collection}" keeps base vectors, which can't be had from these. Use upsert.`,
      );
    }
    requireFingerprint("upsertVectors", "the vectors", vectors, fingerprint, this.fingerprint);
    const given = new Map<string, Float32Array>();
    for (const { document, rows } of checkGiven(documents, vectors, this.dimensions)) given.set(document.id, rows);
    const made = { vectors: given, fingerprint: this.fingerprint };
    await this.#refresh("upsert", signal);
    return await this.#write(new Writer(this.#writing(), options, made), documents);
  }

  /** Removes documents by ids or by a filter over metadata, and says how many were there. Missing ids are no error. */
  async delete(which: string | readonly string[] | Selection, options: RequestOptions = {}): Promise<number> {
    const { signal } = options;
    this.#begin("delete", signal);
    const chosen = selection(which, "delete");
    if ("filter" in chosen) {
      const removed = await this.#documents.countMatching("delete", chosen.filter, signal);
      await this.#documents.remove(chosen, signal);
      return removed;
    }
    let removed = 0;
    for (const ids of lookUps(chosen.ids)) {
      removed += (await this.#documents.heads("delete", ids, signal)).length;
      await this.#documents.remove({ ids }, signal);
    }
    return removed;
  }

  /**
   * Changes metadata and embeds nothing: the fields of `patch` replace those of their name, undefined ones are removed.
   * Says how many documents there were. Ids by themselves have to be there, those of `{ ids }` needn't.
   *
   * @throws InvalidInputError for an id that is not there, or metadata that JSON can't carry
   */
  async updateMetadata(
    which: string | readonly string[] | Selection,
    patch: MetadataPatch,
    options: RequestOptions = {},
  ): Promise<number> {
    const { signal } = options;
    const operation = "updateMetadata";
    this.#begin(operation, signal);
    const change = checkPatch(patch, operation);
    if (Object.hasOwn(patch, RESERVED)) {
      throw new InvalidInputError(`${operation}: the field "${RESERVED}" is reserved in Qdrant. Leave it out.`);
    }
    const chosen = selection(which, operation);
    // All of them before the first change, which may change what a filter finds.
    const ids =
      "ids" in chosen
        ? await this.#documents.known(operation, chosen.ids, signal)
        : await this.#documents.matching(operation, chosen.filter, signal);
    const missing = namedIds(which)?.find((id) => !ids.has(id));
    if (missing !== undefined) throw noDocument(operation, missing);
    const { page } = this.#documents;
    for (const some of lookUps([...ids])) {
      await changeMetadata(this.#target, { filter: this.#documents.ofIds(some), page }, change, signal);
    }
    return ids.size;
  }

  /**
   * Moves the collection to another context while it answers: adds a vector to every point, checks it, and switches
   * `search` to it at once. Run again after an interruption, it goes on where it was. The generation before stays until
   * `dropPrevious`. Base vectors that are kept are mapped; otherwise stored texts are embedded again.
   *
   * While it runs, write through this object: it writes both contexts. Other writers are refused.
   */
  async recontext(options: QdrantRecontextOptions): Promise<RecontextReport> {
    const { embedder, abandon = false, onProgress, signal } = options;
    this.#begin("recontext", signal);
    requireOptions("recontext", options, ["embedder", "base", "abandon", "signal", "onProgress"]);
    if (typeof embedder?.embedQuery !== "function") {
      throw new InvalidInputError(
        "recontext: on a server it needs { embedder }, bound to the context to move to. Choose one with selectContext.",
      );
    }
    checkBase("recontext", embedder, options.base);
    const start = performance.now();
    const before = { fingerprint: this.fingerprint, ndcg10: undefined };
    const state = await this.#refresh("recontext", signal, true);
    const base = keptBase(embedder, options.base, state.record.baseFingerprint);
    const next: GenerationEmbedder = { vector: vectorNameOf(embedder.fingerprint), embedder, base };
    const isCurrent = next.vector === this.#generation.vector;
    if (this.#next) throw new InvalidInputError("recontext: another change of context is running here. Wait for it.");
    this.#next = isCurrent ? undefined : next;
    const job: Migrating = {
      collection: this.#target,
      state,
      next,
      abandon,
      prepare: async () => {
        if (this.#analyzer) await this.#fusion.of(next, signal);
      },
      signal,
      ...(onProgress ? { onProgress } : {}),
    };
    try {
      await Promise.allSettled(this.#slices);
      const { record, filled } = await migrate(job);
      this.#state = { ...state, record };
      if (!isCurrent) {
        const left = this.#generation;
        this.#generation = next;
        this.#previous = left;
      }
      const after = { fingerprint: embedder.fingerprint, ndcg10: undefined };
      const seconds = (performance.now() - start) / 1000;
      return { before, after, choice: undefined, embedded: filled > 0 && !base, seconds };
    } finally {
      this.#next = undefined;
    }
  }

  /**
   * Goes back to the generation before, which is complete at once or completed first.
   *
   * @throws InvalidInputError where there is none, FingerprintMismatchError for another embedder
   */
  async rollback(options: QdrantRollbackOptions = {}): Promise<RecontextReport> {
    const { embedder, ...others } = options;
    requireOptions("rollback", options, ["embedder", "signal", "onProgress"]);
    this.#begin("rollback", options.signal);
    if (!embedder) {
      const back = this.#previous;
      if (back) {
        const base = back.base ? { base: back.base } : {};
        return await this.recontext({ ...others, embedder: back.embedder, ...base });
      }
      throw new InvalidInputError(
        "rollback: this object knows no generation before. Pass the { embedder } of the one to go back to.",
      );
    }
    const { previous } = (await this.#refresh("rollback", options.signal)).record;
    if (!previous) throw new InvalidInputError(`rollback: "${this.collection}" has no context before the present one.`);
    if (previous.contextFingerprint !== embedder.fingerprint) {
      throw new FingerprintMismatchError(
        previous.contextFingerprint,
        embedder.fingerprint,
        `rollback: the context before has the fingerprint ${previous.contextFingerprint}, this embedder has ` +
          `${embedder.fingerprint}. Pass the one that is bound to it.`,
      );
    }
    return await this.recontext({ ...others, embedder });
  }

  /** Drops the vectors of the generation before; searches of this object that still read them end first. */
  async dropPrevious(options: RequestOptions = {}): Promise<void> {
    const { signal } = options;
    this.#begin("dropPrevious", signal);
    const { record } = await this.#refresh("dropPrevious", signal);
    if (!record.previous) return;
    await Promise.allSettled(this.#reading.get(record.previous.vector) ?? []);
    const { vector } = record.previous;
    this.#previous = undefined;
    const without = { ...record, previous: null };
    await this.#target.writeRecord("dropPrevious", without, signal, vector);
    await this.#target.dropVector("dropPrevious", vector, signal);
    this.#state = { ...this.#state, record: without };
  }

  /** Ends what is under way here. The collection stays. */
  async close(): Promise<void> {
    this.#closing.abort(new IndexClosedError("close"));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #write(writer: Writer, documents: Parameters<Writer["run"]>[0]): Promise<WriteReport> {
    try {
      return await writer.run(documents);
    } finally {
      // Also of an upload that broke off: some of it is there.
      this.#fusion.recount();
    }
  }

  async #search(operation: string, query: string | Float32Array, options: SearchOptions): Promise<Hit[]> {
    this.#begin(operation, options.signal);
    // One generation from here to the end, whatever is switched meanwhile.
    const generation = this.#generation;
    const parts: SearchParts = {
      collection: this.#target,
      generation,
      analyzer: this.#analyzer,
      tenant: this.tenant,
      strict: this.#state.strict,
      parameters: this.#parameters,
      autoFusion: () => this.#fusion.of(generation, options.signal),
      mostOfWord: 1 + (this.#state.record.lexical?.k1 ?? 0),
    };
    const search = searchServer(parts, query, options);
    const readers = this.#reading.get(generation.vector) ?? new Set();
    this.#reading.set(generation.vector, readers.add(search));
    try {
      return await search;
    } catch (error) {
      this.#requireOpen("search");
      if (error instanceof QdrantError && /Not existing vector name/.test(error.message)) await this.#refresh("search");
      throw error;
    } finally {
      readers.delete(search);
    }
  }

  #begin(operation: string, signal: AbortSignal | undefined): void {
    this.#requireOpen(operation);
    signal?.throwIfAborted();
  }

  #requireOpen(operation: string): void {
    if (this.#closing.signal.aborted) throw new IndexClosedError(operation);
  }

  /** Reads the collection again, so that one that has moved to another context is noticed before the work. */
  async #refresh(operation: string, signal?: AbortSignal, migrating = false): Promise<CollectionState> {
    const state = await this.#target.state(operation, signal);
    requireEmbedder(operation, this.collection, state, this.embedder);
    const { migration } = state.record;
    if (migration && operation === "upsert" && !migrating && migration.vector !== this.#next?.vector) {
      throw new QdrantError(
        "QDRANT_COLLECTION",
        `${operation}: the collection "${this.collection}" is moving to the context ${migration.contextFingerprint}. ` +
          "Write through the object that moves it, or wait until it is done.",
      );
    }
    this.#state = state;
    return state;
  }

  #writing(): Writing {
    const target = this.#target;
    const documents = this.#documents;
    const { name } = this.#state.record;
    const { tenant } = this;
    return {
      target,
      tenant,
      name,
      analyzer: this.#analyzer,
      split: this.#split,
      state: () => this.#state,
      keep: (state) => {
        this.#state = state;
      },
      refresh: (signal) => this.#refresh("upsert", signal),
      generations: () => {
        // The one before is kept whole where that costs a product of matrices and no encoding.
        const mapped = this.#previous?.base ? [this.#previous] : [];
        const kept = mapped.filter(({ vector }) => vector === this.#state.record.previous?.vector);
        return [this.#generation, ...(this.#next ? [this.#next] : []), ...kept];
      },
      heads: (ids, signal) => documents.heads("upsert", ids, signal),
      passages: (ids, signal) => {
        const with_payload = { exclude: [`${RESERVED}.document`] };
        return target.scroll("upsert", { filter: documents.ofIds(ids), with_payload }, documents.page, signal);
      },
      track: (write) => {
        this.#slices.add(write);
        write.catch(() => {}).finally(() => this.#slices.delete(write));
      },
      writeMetadata: (id, before, after, signal) => {
        const { page } = documents;
        return changeMetadata(target, { filter: documents.ofIds([id]), page }, metadataChange(before, after), signal);
      },
    };
  }
}

/** What ends all requests of an index; any number of them may listen. */
function closable(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

/** What the embedded index follows and a server can't is refused, not passed over. @throws InvalidInputError */
function requireOptions(operation: string, options: object, known: readonly string[]): void {
  const other = Object.entries(options).find(([name, value]) => value !== undefined && !known.includes(name));
  if (!other) return;
  throw new InvalidInputError(
    `${operation}: ${other[0]} can't be followed on a server, which takes ${known.join(", ")}. Leave it out.`,
  );
}

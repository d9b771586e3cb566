/** A corpus on a Qdrant server: `CorpusIndex` from afar, with the same documents, filters, options and hits. */
import { setMaxListeners } from "node:events";
import { type Embedder, FingerprintMismatchError, InvalidInputError } from "@cde-js/core";
import {
  type Analyzer,
  type CorpusDocument,
  createAnalyzer,
  type Filter,
  type Hit,
  IndexClosedError,
  type JsonObject,
  type SearchOptions,
  type SplitOptions,
  type Splitter,
} from "@cde-js/retriever";
import { checkDocument, vectorFault } from "@cde-js/retriever/backend";
import { type PointAnswer, type PointId, readUpdate } from "./answers.js";
import type { RequestName } from "./client.js";
import { BASE, type CollectionState, QdrantCollection, vectorNameOf, WORDS } from "./collection.js";
import { QdrantConnection, type QdrantConnectionOptions } from "./connection.js";
import { QdrantError } from "./errors.js";
import { serverFilter } from "./filters.js";
import { type Migrating, type MigrationProgress, migrate } from "./migration.js";
import { checkMetadata, metadataOf, pointId, RESERVED, readDocument } from "./points.js";
import { type LexicalOptions, newRecord, requireAlike, requireEmbedder } from "./record.js";
import { type QdrantSearchParameters, type SearchParts, searchServer } from "./search.js";
import { checkBase, type GenerationEmbedder, type SpectralBase } from "./source.js";
import { LOOK_UP, type WriteOptions, type WriteReport, Writer, type Writing } from "./writer.js";

/** A payload index, by Qdrant's name of its type or by its parameters: `"keyword"`, `{ type: "text", lowercase: true }`. */
export type PayloadIndex = string | JsonObject;

export interface QdrantOpenOptions extends QdrantConnectionOptions {
  readonly collection: string;
  /** Whose documents these are, in a collection made with `tenants`. Everything here is confined to them. */
  readonly tenant?: string;
  /** Of a spectral context: keeps base vectors too, from which another context is made without encoding. */
  readonly base?: SpectralBase;
  /** How texts are split, as for `CorpusIndex.build`; the same at every writing. */
  readonly split?: SplitOptions | Splitter | false;
  /** Parameters of every search in Qdrant's own words, such as `{ hnsw_ef: 256 }` or `{ exact: true }`. */
  readonly search?: QdrantSearchParameters;
  readonly signal?: AbortSignal;
}

export interface QdrantCreateOptions extends QdrantOpenOptions {
  /** How words are found, or `false` for no lexical part. @default English */
  readonly lexical?: LexicalOptions | false;
  /** Whether the collection holds documents of several tenants, each of which sees its own. @default false */
  readonly tenants?: boolean;
  /** Metadata fields that filters will ask for. In strict mode a filter on any other field is refused. */
  readonly payloadIndexes?: Readonly<Record<string, PayloadIndex>>;
  /**
   * Of the collection, in Qdrant's own words: shard_number, replication_factor, write_consistency_factor,
   * on_disk_payload, hnsw_config, optimizers_config, strict_mode_config, …
   */
  readonly parameters?: JsonObject;
  /** Of the contextual vectors, in Qdrant's own words: on_disk, hnsw_config, quantization_config, datatype. */
  readonly vectors?: JsonObject;
}

/** What a search without words can be asked. */
export type VectorSearchOptions = Omit<SearchOptions, "mode" | "fusion" | "highlight" | "rerank" | "rerankCandidates">;

export interface RecontextOptions {
  /** Of a spectral context: maps the base vectors that the collection has, so that nothing is encoded. */
  readonly base?: SpectralBase;
  /** Drops what an unfinished change to another context has left. @default false */
  readonly abandon?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: MigrationProgress) => void;
}

/** Parameters of a collection that are not the caller's to set. */
const OURS = ["vectors", "sparse_vectors", "metadata"];

/**
 * Documents on a Qdrant server, searched by meaning and words. It answers only for the embedder whose fingerprint the
 * collection carries. All writes can be repeated: a writer that was interrupted is run again and ends complete.
 */
export class QdrantIndex implements AsyncDisposable {
  readonly collection: string;
  readonly tenant: string | undefined;
  readonly #target: QdrantCollection;
  readonly #split: SplitOptions | Splitter | false | undefined;
  readonly #parameters: QdrantSearchParameters;
  readonly #analyzer: Analyzer | undefined;
  readonly #closing: AbortController;
  #state: CollectionState;
  #report: WriteReport | undefined;
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
    this.#split = options.split;
    this.#closing = options.closing;
    this.#parameters = options.search ?? {};
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
    checkBase("open", embedder, base);
    const connection = await QdrantConnection.open(options, signal);
    const closing = closable();
    const target = new QdrantCollection(connection, options.collection, closing.signal);
    const state = await target.state("open", signal);
    return QdrantIndex.#opened(target, state, embedder, { ...options, closing });
  }

  /** Makes the collection with all its indexes, or opens the one that is there, which must have been made alike. */
  static async create(embedder: Embedder, options: QdrantCreateOptions): Promise<QdrantIndex> {
    const { base, signal, lexical, tenants = false, payloadIndexes = {}, parameters = {}, vectors = {} } = options;
    checkBase("create", embedder, base);
    for (const name of OURS) {
      if (!(name in parameters)) continue;
      throw new InvalidInputError(`create: parameters.${name} is this adapter's to set. Leave it out.`);
    }
    for (const field of Object.keys(payloadIndexes)) {
      if (!new RegExp(`^"?${RESERVED}"?(?:[.[]|$)`).test(field)) continue;
      throw new InvalidInputError(
        `create: the payload index ${JSON.stringify(field)} has the reserved key "${RESERVED}".`,
      );
    }
    const connection = await QdrantConnection.open(options, signal);
    const closing = closable();
    const target = new QdrantCollection(connection, options.collection, closing.signal);
    const record = newRecord(target.name, embedder, { base, lexical, tenants, vectors });
    const already = await target.find("create", signal);
    if (already) requireAlike(target.name, already.record, record);
    await target.create(record, {
      parameters,
      vectors: {
        [record.vector]: { size: embedder.dimensions, distance: "Cosine", ...vectors },
        ...(base
          ? {
              // Read back by a change of context alone: on disk, without a graph.
              [BASE]: {
                size: base.embedder.dimensions,
                distance: "Cosine",
                on_disk: true,
                hnsw_config: { m: 0 },
              },
            }
          : {}),
      },
      indexes: {
        [`${RESERVED}.id`]: "keyword",
        [`${RESERVED}.n`]: "integer",
        [`${RESERVED}.of`]: "integer",
        ...(tenants ? { [`${RESERVED}.tenant`]: { type: "keyword", is_tenant: true } } : {}),
        ...payloadIndexes,
      },
      signal,
    });
    const state = await target.state("create", signal);
    requireAlike(target.name, state.record, record);
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
      index.#report = await index.upsert(documents, options);
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
    const { base, tenant } = options;
    const { record } = state;
    requireEmbedder("open", target.name, state, embedder);
    if (record.tenants !== (tenant !== undefined)) {
      const what = record.tenants
        ? "holds several tenants: say which with { tenant }"
        : "has no tenants: leave tenant out";
      throw new QdrantError("QDRANT_COLLECTION", `open: the collection "${target.name}" ${what}.`);
    }
    if (tenant === "") throw new InvalidInputError("open: the tenant is an empty string.");
    if (base && record.baseFingerprint !== base.embedder.fingerprint) {
      throw new FingerprintMismatchError(
        String(record.baseFingerprint),
        base.embedder.fingerprint,
        `open: the base vectors of "${target.name}" are ${record.baseFingerprint === null ? "not kept" : `of ${record.baseFingerprint}`}, ` +
          `base.embedder is ${base.embedder.fingerprint}. ${record.baseFingerprint === null ? "Leave base out" : "Pass the model that made them"}.`,
      );
    }
    if (record.lexical && state.sparse.get(WORDS) !== "idf") {
      throw new QdrantError(
        "QDRANT_COLLECTION",
        `open: the sparse vector "${WORDS}" of "${target.name}" has the modifier ${String(state.sparse.get(WORDS))}, expected idf.`,
      );
    }
    return new QdrantIndex(target, state, { vector: record.vector, embedder, base }, options);
  }

  /** What `build` wrote, left out or cut; undefined for an index that was opened. */
  get report(): WriteReport | undefined {
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

  /** Version of the server. */
  get serverVersion(): string {
    return this.#target.connection.version;
  }

  /** Documents (of this tenant). */
  async count(options: { readonly signal?: AbortSignal } = {}): Promise<number> {
    const { signal } = options;
    this.#begin("count", signal);
    return await this.#target.count("count", this.#where({ key: `${RESERVED}.n`, match: { value: 0 } }), signal);
  }

  /** Passages (of this tenant): what a search ranks. */
  async passageCount(options: { readonly signal?: AbortSignal } = {}): Promise<number> {
    const { signal } = options;
    this.#begin("passageCount", signal);
    return await this.#target.count("passageCount", this.#where({ key: `${RESERVED}.of`, range: { gte: 1 } }), signal);
  }

  /**
   * The passages that answer best, as `CorpusIndex.search` gives them; equal scores by document. Reciprocal ranks and
   * score distributions are fused by the server in one request, and their hits have no `scores` of the two parts.
   *
   * @throws InvalidInputError, InvalidFilterError, QdrantError; FingerprintMismatchError where the collection has moved
   * to another context meanwhile
   */
  search(query: string, options: SearchOptions = {}): Promise<Hit[]> {
    return this.#search(query, options);
  }

  /** The dense search of a vector that an embedder of this very fingerprint gave: nothing here can check that. */
  searchVector(vector: Float32Array, options: VectorSearchOptions = {}): Promise<Hit[]> {
    return this.#search(vector, { ...options, mode: "dense" });
  }

  /** A document by its id; undefined where there is none. */
  async get(id: string, options: { readonly signal?: AbortSignal } = {}): Promise<CorpusDocument | undefined> {
    const { signal } = options;
    this.#begin("get", signal);
    const [head] = await this.#heads("get", [id], signal, true);
    return head && this.#sound("get", () => readDocument(head));
  }

  /** Documents of these ids, in the order asked for; those that aren't there are left out. */
  async getMany(ids: readonly string[], options: { readonly signal?: AbortSignal } = {}): Promise<CorpusDocument[]> {
    const { signal } = options;
    this.#begin("getMany", signal);
    const found = new Map<string, CorpusDocument>();
    for (let at = 0; at < ids.length; at += LOOK_UP) {
      const some = [...new Set(ids.slice(at, at + LOOK_UP))];
      for (const head of await this.#heads("getMany", some, signal, true)) {
        const document = this.#sound("getMany", () => readDocument(head));
        found.set(document.id, document);
      }
    }
    return ids.flatMap((id) => found.get(id) ?? []);
  }

  /** All documents (of this tenant), in the order of their point ids. */
  async *documents(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<CorpusDocument> {
    const filter = this.#where({ key: `${RESERVED}.n`, match: { value: 0 } });
    const page = Math.min(256, this.#state.strict.queryLimit);
    const { signal } = options;
    this.#begin("documents", signal);
    for await (const points of this.#target.scroll("documents", { filter, with_payload: true }, page, signal)) {
      for (const point of points) yield this.#sound("documents", () => readDocument(point));
      this.#requireOpen("documents");
    }
  }

  /**
   * Adds documents and replaces those whose ids are there. Of texts that are unchanged nothing is embedded; where only
   * metadata differ, only they are written. An id that comes twice: the later one stays.
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
    const writer = new Writer(this.#writing(), options);
    return await writer.run(documents);
  }

  /**
   * Adds whole documents, a passage each, with vectors that an embedder of this very fingerprint gave: nothing here can
   * check that. Not where base vectors are kept, of which these are none.
   */
  async upsertVectors(
    documents: readonly CorpusDocument[],
    vectors: readonly Float32Array[],
    options: WriteOptions = {},
  ): Promise<WriteReport> {
    this.#begin("upsertVectors", options.signal);
    if (vectors.length !== documents.length) {
      throw new InvalidInputError(`upsertVectors: ${documents.length} documents and ${vectors.length} vectors.`);
    }
    if (this.#state.record.baseFingerprint !== null) {
      throw new InvalidInputError(
        `upsertVectors: "${this.collection}" keeps base vectors, which can't be had from these. Use upsert.`,
      );
    }
    const given = new Map<string, Float32Array>();
    for (const [position, vector] of vectors.entries()) {
      const { id } = checkDocument(documents[position], position, "upsertVectors");
      const fault = vectorFault(vector, this.dimensions);
      if (fault) {
        throw new InvalidInputError(`upsertVectors: the vector at position ${position} ${fault}.`, { position });
      }
      if (given.has(id)) {
        throw new InvalidInputError(
          `upsertVectors: the id ${JSON.stringify(id)} comes again at position ${position}.`,
          {
            position,
          },
        );
      }
      given.set(id, vector);
    }
    await this.#refresh("upsert", options.signal);
    return await new Writer(this.#writing(), options, given).run(documents);
  }

  /** Removes documents by ids or by a filter over metadata, and says how many were there. Missing ids are no error. */
  async delete(
    which: readonly string[] | { readonly filter: Filter },
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<number> {
    const { signal } = options;
    this.#begin("delete", signal);
    let removed = 0;
    if (!Array.isArray(which)) {
      const { filter } = which as { readonly filter: Filter };
      const selected = serverFilter(filter, this.tenant);
      const head = { key: `${RESERVED}.n`, match: { value: 0 } };
      const heads = { must: selected && Object.keys(selected).length > 0 ? [selected, head] : [head] };
      removed = await this.#target.count("delete", heads, signal);
      await this.#remove(selected ?? {}, signal);
      return removed;
    }
    const ids = which as readonly string[];
    for (let at = 0; at < ids.length; at += LOOK_UP) {
      const some = [...new Set(ids.slice(at, at + LOOK_UP))];
      removed += (await this.#heads("delete", some, signal)).length;
      // By document and not by point, so that what an interrupted writer left goes too.
      await this.#remove(this.#where({ key: `${RESERVED}.id`, match: { any: some } }), signal);
    }
    return removed;
  }

  /**
   * Replaces a document's metadata; nothing is embedded.
   *
   * @returns whether the document was there
   */
  async updateMetadata(
    id: string,
    metadata: JsonObject,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<boolean> {
    const { signal } = options;
    this.#begin("updateMetadata", signal);
    const { metadata: checked = {} } = checkDocument({ id, text: "", metadata }, 0, "updateMetadata");
    checkMetadata("updateMetadata", id, checked);
    const [head] = await this.#heads("updateMetadata", [id], signal);
    if (!head) return false;
    await this.#writeMetadata(id, metadataOf(head.payload), checked, signal);
    return true;
  }

  /**
   * Moves the collection to another context while it answers: adds a vector to every point, checks it, and switches
   * `search` to it at once. Run again after an interruption, it goes on where it was. The generation before stays until
   * `dropPrevious`. With `base`, stored base vectors are mapped; otherwise stored texts are embedded again.
   *
   * While it runs, write through this object: it writes both contexts. Other writers are refused.
   */
  async recontext(embedder: Embedder, options: RecontextOptions = {}): Promise<void> {
    const { base, abandon = false, onProgress } = options;
    const { signal } = options;
    this.#begin("recontext", signal);
    checkBase("recontext", embedder, base);
    if (this.#next) throw new InvalidInputError("recontext: another change of context is running here. Wait for it.");
    const next: GenerationEmbedder = { vector: vectorNameOf(embedder.fingerprint), embedder, base };
    const state = await this.#refresh("recontext", signal, true);
    const isCurrent = next.vector === this.#generation.vector;
    this.#next = isCurrent ? undefined : next;
    const job: Migrating = {
      collection: this.#target,
      state,
      next,
      abandon,
      signal,
      ...(onProgress ? { onProgress } : {}),
    };
    try {
      await Promise.allSettled(this.#slices);
      this.#state = { ...state, record: await migrate(job) };
      if (isCurrent) return;
      const left = this.#generation;
      this.#generation = next;
      this.#previous = left;
    } finally {
      this.#next = undefined;
    }
  }

  /** Goes back to the generation before, which is complete at once or completed first. */
  async rollback(options: Omit<RecontextOptions, "base" | "abandon"> = {}): Promise<void> {
    const back = this.#previous;
    if (!back) {
      throw new InvalidInputError(
        "rollback: this object knows no generation before. Call recontext with the embedder of the one to go back to.",
      );
    }
    await this.recontext(back.embedder, { ...options, ...(back.base ? { base: back.base } : {}) });
  }

  /** Drops the vectors of the generation before; searches of this object that still read them end first. */
  async dropPrevious(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    this.#begin("dropPrevious", signal);
    const { record } = await this.#refresh("dropPrevious", signal);
    if (!record.previous) return;
    await Promise.allSettled(this.#reading.get(record.previous.vector) ?? []);
    const { vector } = record.previous;
    this.#previous = undefined;
    const without = { ...record, previous: null };
    await this.#target.writeRecord("dropPrevious", without, signal);
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

  async #search(query: string | Float32Array, options: SearchOptions): Promise<Hit[]> {
    this.#begin("search", options.signal);
    // One generation from here to the end, whatever is switched meanwhile.
    const generation = this.#generation;
    const parts: SearchParts = {
      collection: this.#target,
      generation,
      analyzer: this.#analyzer,
      tenant: this.tenant,
      strict: this.#state.strict,
      parameters: this.#parameters,
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

  /** Ours, of this tenant, and what `condition` keeps. */
  #where(condition: object): { must: object[] } {
    const { tenant } = this;
    const own = tenant === undefined ? [] : [{ key: `${RESERVED}.tenant`, match: { value: tenant } }];
    return { must: [...own, condition] };
  }

  /** First passages of documents; with `whole`, the whole text of each too. */
  async #heads(
    operation: string,
    ids: readonly string[],
    signal: AbortSignal | undefined,
    whole = false,
  ): Promise<PointAnswer[]> {
    const { name } = this.#state.record;
    const points = ids.map((id): PointId => pointId(name, this.tenant, id, 0));
    const payload = whole || { exclude: [`${RESERVED}.document`] };
    return await this.#target.retrieve(operation, points, { with_payload: payload }, signal);
  }

  async #remove(filter: object, signal: AbortSignal | undefined): Promise<void> {
    await this.#target.request("delete", "deletePoints", { wait: true, filter }, readUpdate, signal);
  }

  #sound<T>(operation: string, read: () => T): T {
    try {
      return read();
    } catch (cause) {
      const { message } = cause as Error;
      throw new QdrantError("QDRANT_ANSWER", `${operation}: in "${this.collection}" ${message}.`, { cause });
    }
  }

  /** Of all passages of a document. */
  async #writeMetadata(
    id: string,
    before: JsonObject,
    after: JsonObject,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const filter = this.#where({ key: `${RESERVED}.id`, match: { value: id } });
    const write = (request: RequestName, args: object): Promise<void> =>
      this.#target.request("updateMetadata", request, { wait: true, ...args }, readUpdate, signal);
    const gone = Object.keys(before).filter((key) => !Object.hasOwn(after, key));
    if (gone.some((key) => /["\\]/.test(key) || key === "")) {
      // No path of Qdrant's names such a key. So the payloads go as a whole, one by one, since ours differ in each.
      const page = Math.min(256, this.#state.strict.queryLimit);
      for await (const points of this.#target.scroll("updateMetadata", { filter, with_payload: true }, page, signal)) {
        for (const { id: point, payload } of points) {
          await write("overwritePayload", { payload: { ...after, [RESERVED]: payload[RESERVED] }, points: [point] });
        }
      }
      return;
    }
    // Added first, so that a filter on a key that stays finds the document throughout.
    if (Object.keys(after).length > 0) await write("setPayload", { payload: after, filter });
    // A key is a path for Qdrant: quoted, it is a name.
    const keys = gone.map((key) => (/^[\w-]+$/.test(key) ? key : `"${key}"`));
    if (keys.length > 0) await write("deletePayload", { keys, filter });
  }

  #writing(): Writing {
    const target = this.#target;
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
      heads: (ids, signal) => this.#heads("upsert", ids, signal),
      passages: (ids, signal) => {
        const filter = this.#where({ key: `${RESERVED}.id`, match: { any: ids } });
        const with_payload = { exclude: [`${RESERVED}.document`] };
        const page = Math.min(256, this.#state.strict.queryLimit);
        return this.#target.scroll("upsert", { filter, with_payload }, page, signal);
      },
      track: (write) => {
        this.#slices.add(write);
        write.catch(() => {}).finally(() => this.#slices.delete(write));
      },
      writeMetadata: (id, before, after, signal) => this.#writeMetadata(id, before, after, signal),
    };
  }
}

/** What ends all requests of an index; any number of them may listen. */
function closable(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

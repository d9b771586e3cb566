/** A corpus ready to be searched and kept up to date: documents, passages and vectors, bound to their embedder. */
import { type CorpusContext, type Embedder, InvalidInputError } from "@cde-js/core";
import { buildInFolder } from "./build-generation.js";
import type { BuildReport } from "./build-index.js";
import { buildInMemory } from "./build-memory.js";
import {
  type ContextEncoder,
  type ContextPassage,
  type CorpusContextOptions,
  contextFromCorpus,
  type DocumentSource,
} from "./context/from-corpus.js";
import type { ContextChoice } from "./context/select-context.js";
import {
  type BackendBuildOptions,
  type BackendOpenOptions,
  buildWithBackend,
  type CorpusBackend,
  checkBuildOptions,
  checkOpenOptions,
  openWithBackend,
  requireContext,
  type WithBackend,
} from "./corpus-backend.js";
import type {
  BuildOptions,
  OpenOptions,
  RecontextOptions,
  RecontextReport,
  RollbackOptions,
} from "./corpus-index-options.js";
import { type CorpusDocument, checkMetadata, type JsonObject, wellFormedFault } from "./documents.js";
import { type DriftOptions, type DriftReport, measureDrift } from "./drift.js";
import { compileFilter } from "./filters/compile.js";
import type { Filter } from "./filters/types.js";
import type { AutoFusion } from "./fusion/auto-fusion.js";
import { upsertVectorsInto } from "./given-vectors.js";
import { IndexState } from "./index-state.js";
import { LexicalPart } from "./lexical/lexical-part.js";
import { LiveState, stateOptions } from "./live-state.js";
import { bindOpened, type ContextBinder, type FolderDescription, folderDescription, isEmbedder } from "./open-index.js";
import { formerEmbedder, judge, newContext } from "./recontext.js";
import { keepsVectors, type Renewal } from "./renew.js";
import {
  type Hit,
  planSearch,
  planVectorSearch,
  type SearchOptions,
  type VectorSearchOptions,
} from "./search/options.js";
import { searchPassages } from "./search/search.js";
import type { GivenVectorsOptions, IndexCounts, RequestOptions, SearchIndex } from "./search-index.js";
import { nodeFileSystem } from "./storage/file-system.js";
import { OpenGeneration } from "./storage/index-reader.js";
import { encodeDelete, encodeMetadata } from "./storage/update-records.js";
import {
  changedMetadata,
  type MetadataPatch,
  type Selection,
  selected,
  type UpsertOptions,
  type UpsertReport,
  upsertInto,
} from "./updates.js";

type Documents = AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>;

/**
 * Documents that can be searched by meaning and by words. It answers only for the embedder whose fingerprint it carries.
 * Updates are acknowledged when they are durable, where the index has a folder; one process writes to it, any number
 * read. Close it (or `await using`) to end its worker thread and give back the folder's lock.
 */
export class CorpusIndex implements SearchIndex {
  readonly dimensions: number;
  /** What building left out or cut; undefined for an index that was opened. */
  readonly report: BuildReport | undefined;
  readonly #live: LiveState;
  readonly #encoder: ContextEncoder | undefined;
  #choice: ContextChoice<ContextPassage> | undefined;
  /** What `fromCorpus` built, for an encoder whose embedders don't say. */
  #context: CorpusContext | undefined;

  private constructor(
    live: LiveState,
    parts: { readonly report?: BuildReport | undefined; readonly encoder?: ContextEncoder | undefined } = {},
  ) {
    this.#live = live;
    this.report = parts.report;
    this.#encoder = parts.encoder;
    this.dimensions = live.state.embedder.dimensions;
  }

  /**
   * Embeds the documents, in memory or (with `directory`) into a folder that becomes an index only when all is done. An
   * interrupted build of a folder is gone on with by calling it again; it ends with the same index.
   *
   * @throws InvalidInputError for a bad document, with its position; RuntimeFailureError for bad vectors;
   * StorageError and IndexLockedError with `directory`; FingerprintMismatchError where an unfinished build of another
   * model lies there.
   */
  static build(embedder: Embedder, documents: Documents, options?: BuildOptions): Promise<CorpusIndex>;
  /**
   * The same in another engine, such as a server: `{ backend: qdrant({ url, collection }) }`. What it builds is a
   * `SearchIndex` with the same documents, filters and hits.
   *
   * @throws InvalidInputError for options of the embedded index alone; what the backend's index throws
   */
  static build<Index extends SearchIndex>(
    embedder: Embedder,
    documents: Documents,
    options: BackendBuildOptions & { readonly backend: CorpusBackend<Index> },
  ): Promise<Index>;
  /** Where it is decided only when the program runs. */
  static build<Index extends SearchIndex>(
    embedder: Embedder,
    documents: Documents,
    options: WithBackend<BuildOptions, Index>,
  ): Promise<CorpusIndex | Index>;
  static async build(
    embedder: Embedder,
    documents: Documents,
    options: BuildOptions | WithBackend<BuildOptions> = {},
  ): Promise<SearchIndex> {
    if (options.backend === undefined) return await CorpusIndex.#build(embedder, documents, options as BuildOptions);
    checkBuildOptions("build", options.backend, options);
    return await buildWithBackend(options.backend, embedder, documents, options as BackendBuildOptions);
  }

  static async #build(embedder: Embedder, documents: Documents, options: BuildOptions): Promise<CorpusIndex> {
    const {
      directory,
      split,
      signal,
      onProgress,
      resume = true,
      notes = null,
      rows,
      vectorIndex,
      autoCompact,
    } = options;
    if (notes !== null) checkMetadata(notes, "build: notes");
    const splitter = typeof split === "function" ? split : undefined;
    const { fileSystem = nodeFileSystem } = options;
    const open: OpenOptions = {
      fileSystem,
      rows,
      vectorIndex,
      ...(splitter && { split: splitter }),
      ...(autoCompact === undefined ? {} : { autoCompact }),
    };
    const lexical = options.lexical === false ? undefined : LexicalPart.create(options.lexical ?? {});
    if (directory === undefined) {
      const asked = { rows, vectorIndex, lexical, split, splitter, notes, signal, onProgress };
      const { state, report } = await buildInMemory(embedder, documents, asked);
      return new CorpusIndex(new LiveState(state, open), { report });
    }
    const asked = { rows, vectorIndex, lexical, split, splitter, notes, resume, signal, onProgress };
    const { state, report } = await buildInFolder(embedder, documents, { ...asked, fileSystem, directory });
    return new CorpusIndex(new LiveState(state, open, directory), { report });
  }

  /**
   * Reads the corpus twice: chooses passages of it, of which `encoder` builds the context, then embeds all of it under
   * that context. With `directory`, the context is kept in the index: `open(directory, encoder)` binds it again.
   *
   * @example
   * const index = await CorpusIndex.fromCorpus(encoder, () => readDocuments(path), { contextSize: 512 });
   * @throws InvalidInputError for a source that can't be read twice or gives another corpus, and for a corpus with fewer
   * passages than the model reads exactly (with `repeat`, they are repeated); otherwise as `build`
   */
  static fromCorpus(
    encoder: ContextEncoder,
    documents: DocumentSource,
    options?: BuildOptions & CorpusContextOptions,
  ): Promise<CorpusIndex>;
  /** The same in another engine. It keeps no context: save `index.context`, which `open` needs. */
  static fromCorpus<Index extends SearchIndex>(
    encoder: ContextEncoder,
    documents: DocumentSource,
    options: BackendBuildOptions & CorpusContextOptions & { readonly backend: CorpusBackend<Index> },
  ): Promise<Index>;
  static async fromCorpus(
    encoder: ContextEncoder,
    documents: DocumentSource,
    options: (BuildOptions | WithBackend<BuildOptions>) & CorpusContextOptions = {},
  ): Promise<SearchIndex> {
    const { backend } = options;
    if (backend !== undefined) checkBuildOptions("fromCorpus", backend, options);
    const { context, choice, embedder, again } = await contextFromCorpus(encoder, documents, options);
    if (backend !== undefined) {
      requireContext(backend, embedder);
      return await buildWithBackend(backend, embedder, again, options as BackendBuildOptions);
    }
    const built = await CorpusIndex.#build(embedder, again, options as BuildOptions);
    const index = new CorpusIndex(built.#live, { report: built.report, encoder });
    index.#choice = choice;
    index.#context = context;
    return index;
  }

  /**
   * Reads an index that `save` or `build` wrote, and the updates since. An encoder is bound to the context that is kept
   * in the index; an embedder must be bound to it already.
   *
   * @throws MissingFileError where there is none, CorruptFileError for a damaged one, FingerprintMismatchError for one
   * of another model or context, StorageError where the folder can't be read.
   */
  static open(directory: string, model: Embedder | ContextBinder, options?: OpenOptions): Promise<CorpusIndex>;
  /**
   * Opens what `build` made in another engine: `CorpusIndex.open(embedder, { backend: qdrant({ url, collection }) })`.
   *
   * @throws InvalidInputError for options of the embedded index alone; what the backend's index throws
   */
  static open<Index extends SearchIndex>(
    embedder: Embedder,
    options: BackendOpenOptions & { readonly backend: CorpusBackend<Index> },
  ): Promise<Index>;
  static async open(
    place: string | Embedder,
    model: Embedder | ContextBinder | (BackendOpenOptions & { readonly backend: CorpusBackend }),
    options: OpenOptions = {},
  ): Promise<SearchIndex> {
    if (typeof place !== "string") {
      return await openWithBackend(place, model as BackendOpenOptions & { readonly backend: CorpusBackend });
    }
    checkOpenOptions(options);
    return await CorpusIndex.#open(place, model as Embedder | ContextBinder, options);
  }

  static async #open(directory: string, model: Embedder | ContextBinder, options: OpenOptions): Promise<CorpusIndex> {
    options.signal?.throwIfAborted();
    const { fileSystem = nodeFileSystem } = options;
    const generation = await OpenGeneration.open(fileSystem, directory);
    let embedder: Embedder;
    try {
      embedder = await bindOpened(directory, generation, model);
    } catch (error) {
      await generation.close();
      throw error;
    }
    const state = await IndexState.read(generation, embedder, stateOptions(options));
    const encoder = !isEmbedder(model) && "buildContext" in model ? (model as ContextEncoder) : undefined;
    const live = options.detached ? new LiveState(state, options) : new LiveState(state, options, directory);
    return new CorpusIndex(live, { encoder });
  }

  /** What an index folder is, without its model: whose vectors, how many, which notes. @throws as `open` */
  static describe(directory: string): Promise<FolderDescription> {
    return folderDescription(nodeFileSystem, directory);
  }

  get #state(): IndexState {
    return this.#live.state;
  }

  get modelId(): string {
    return this.#state.embedder.modelId;
  }

  /** Of the model and context that made the vectors. */
  get fingerprint(): string {
    return this.#state.embedder.fingerprint;
  }

  /** What queries are embedded with. `recontext` changes it. */
  get embedder(): Embedder {
    return this.#state.embedder;
  }

  /** The context of the embedder; undefined without one, or where the embedder doesn't say. */
  get context(): CorpusContext | undefined {
    return this.embedder.context ?? this.#context;
  }

  /** What `fromCorpus` or `recontext` chose as context and what it left out; undefined for other indexes. */
  get contextChoice(): ContextChoice<ContextPassage> | undefined {
    return this.#choice;
  }

  /** The object that was given to `build`. */
  get notes(): JsonObject | undefined {
    return structuredClone(this.#state.notes) ?? undefined;
  }

  /** Documents. */
  get count(): number {
    return this.#state.documents.liveDocuments;
  }

  /** Passages: what a search ranks. */
  get passageCount(): number {
    return this.#state.documents.livePassages;
  }

  /** `count` and `passageCount`, as every `SearchIndex` tells them. */
  async counts(): Promise<IndexCounts> {
    this.#live.requireOpen("counts");
    return { documents: this.count, passages: this.passageCount };
  }

  /** Whether words were counted, so that lexical and hybrid searches are possible. */
  get hasLexicalPart(): boolean {
    return this.#state.lexical !== undefined;
  }

  /** What `fusion: "auto"` chooses by, in an index that is large enough; `describeFusion` says it in a line. */
  get fusion(): AutoFusion | undefined {
    return this.#state.fusion;
  }

  /** Whether there is a context to roll back to. */
  get canRollBack(): boolean {
    return this.#state.former !== null;
  }

  /**
   * Why a compaction in the background failed; undefined where none did. Nothing is lost by it, and none is tried again
   * before a `compact()` that succeeds.
   */
  get compactionError(): unknown {
    return this.#live.compactionError;
  }

  /**
   * The passages that answer best, best first (but for `mmr`); equal scores of one ranking in the order of the corpus.
   *
   * @throws InvalidInputError for a blank query or options that can't be followed, InvalidFilterError.
   */
  async search(query: string, options: SearchOptions = {}): Promise<Hit[]> {
    this.#live.requireOpen("search");
    return await this.#searchState(() => this.#state, query, options);
  }

  /**
   * The dense search of a query vector that an embedder of this very fingerprint gave.
   *
   * @throws FingerprintMismatchError for one that is known to be of another model or context, InvalidInputError for one
   * that is none or options that need words, InvalidFilterError.
   */
  async searchVector(vector: Float32Array, options: VectorSearchOptions = {}): Promise<Hit[]> {
    this.#live.requireOpen("searchVector");
    const own = vector instanceof Float32Array ? vector.slice() : vector;
    return await this.#live.read(
      "searchVector",
      () => this.#state,
      async (state) => {
        const { fingerprint, dimensions } = state.embedder;
        const { hasLexicalPart } = this;
        // Against the state that is searched: another context may have taken its place.
        const plan = planVectorSearch(vector, options, { fingerprint, dimensions, hasLexicalPart });
        plan.signal?.throwIfAborted();
        return await searchPassages(state, own, plan);
      },
    );
  }

  /** A document by its id; undefined where there is none. */
  async get(id: string, options: RequestOptions = {}): Promise<CorpusDocument | undefined> {
    this.#begin("get", options);
    return this.#read(id);
  }

  /** Documents of these ids, in the order asked for; those that aren't there are left out. */
  async getMany(ids: readonly string[], options: RequestOptions = {}): Promise<CorpusDocument[]> {
    this.#begin("getMany", options);
    return ids.flatMap((id) => this.#read(id) ?? []);
  }

  /** All documents, or those that a filter accepts, in the order in which they (or their present texts) came. */
  async *documents(options: RequestOptions & { readonly filter?: Filter } = {}): AsyncGenerator<CorpusDocument> {
    this.#begin("documents", options);
    const accepts = options.filter === undefined ? undefined : compileFilter(options.filter);
    const { documents } = this.#state;
    for (let number = 0; number < documents.documents; number++) {
      this.#begin("documents", options);
      if (!documents.isLive(number)) continue;
      const { document } = documents.read(number);
      if (!accepts || accepts({ id: document.id, payload: document.metadata ?? {} })) yield document;
    }
  }

  /**
   * Adds documents and replaces those whose ids are there. A document with the text and title that it has already is
   * not embedded again; only its metadata changes. Acknowledged in slices of some hundred passages: each is there
   * wholly after a crash, or not at all.
   *
   * @throws InvalidInputError for a bad document or an id that comes twice (of an array before anything is written),
   * IndexLockedError, IndexChangedError, StorageError
   */
  async upsert(documents: Documents, options: UpsertOptions = {}): Promise<UpsertReport> {
    return await this.#live.exclusive("upsert", async () => {
      return await upsertInto(this.#state, documents, (...update) => this.#live.apply(...update), options);
    });
  }

  /**
   * Adds whole documents, a passage each, with vectors that an embedder of this very fingerprint gave, or replaces those
   * whose ids are there. All of them are there afterwards (and after a crash), or none. Not where base vectors are kept,
   * of which these are none.
   *
   * @throws FingerprintMismatchError for vectors that are known to be of another model or context, InvalidInputError for a
   * bad document or vector with its position, IndexLockedError, IndexChangedError, StorageError
   */
  async upsertVectors(
    documents: readonly CorpusDocument[],
    vectors: readonly Float32Array[],
    options: GivenVectorsOptions = {},
  ): Promise<UpsertReport> {
    options.signal?.throwIfAborted();
    return await this.#live.exclusive("upsertVectors", async () => {
      const write = this.#live.apply.bind(this.#live);
      return await upsertVectorsInto(this.#state, documents, vectors, write, options);
    });
  }

  /** Removes documents and says how many there were. Ids that are not there are passed over. */
  async delete(which: string | readonly string[] | Selection, options: RequestOptions = {}): Promise<number> {
    options.signal?.throwIfAborted();
    return await this.#live.exclusive("delete", async () => {
      const ids = await selected(this.#state, which, "delete");
      if (ids.length > 0) await this.#live.apply({ kind: "delete", ids }, encodeDelete(ids));
      return ids.length;
    });
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
    options.signal?.throwIfAborted();
    return await this.#live.exclusive("updateMetadata", async () => {
      const changes = await changedMetadata(this.#state, which, patch);
      if (changes.length > 0) await this.#live.apply({ kind: "metadata", changes }, encodeMetadata(changes));
      return changes.length;
    });
  }

  /**
   * Writes what is there into a new generation: frees what was deleted, and empties the log. Searches go on, updates
   * wait. A crash leaves the old generation or the new one, whole.
   */
  async compact(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    await this.#live.compact(options);
  }

  /**
   * How far the documents that were added since the context was chosen have moved from those that were there, and what
   * a fresh context would change. Encodes nothing.
   */
  async drift(options: DriftOptions = {}): Promise<DriftReport> {
    this.#live.requireOpen("drift");
    return await this.#live.exclusive("drift", () => measureDrift(this.#state, options), false);
  }

  /**
   * A new generation under another context, built beside the present one and put in its place at once: one that is
   * given, or one that is chosen from the documents of the index. A context that is a map takes the base vectors that
   * are kept, and nothing is encoded; others embed all passages again, which an interrupted call goes on with. Searches
   * go on, updates wait. `rollback` returns.
   *
   * @throws InvalidInputError for options that contradict each other, FingerprintMismatchError for another model's context
   */
  async recontext(options: RecontextOptions = {}): Promise<RecontextReport> {
    const { signal } = options;
    return await this.#live.exclusive("recontext", async () => {
      const { embedder, choice } = await newContext(this.#state, this.#encoder, options, signal);
      const settled = this.#state.documents.liveDocuments;
      const averageLength = this.#state.lexical?.index.liveAverageLength;
      const report = await this.#changeContext({ embedder, settled, averageLength }, options);
      this.#choice = choice;
      return { ...report, choice };
    });
  }

  /**
   * Returns to the context before the last `recontext` (or `rollback`), with the documents that are there now.
   *
   * @throws InvalidInputError where there is none, FingerprintMismatchError for another embedder
   */
  async rollback(options: RollbackOptions = {}): Promise<RecontextReport> {
    return await this.#live.exclusive("rollback", async () => {
      const { former, embedder } = await formerEmbedder(this.#state, this.#encoder, options.embedder);
      const settled = this.#state.liveBefore(former.settled);
      const averageLength = former.averageLength ?? undefined;
      const change = { embedder, settled, averageLength, keptContext: this.#state.formerContext };
      const report = await this.#changeContext(change, options);
      this.#choice = undefined;
      return { ...report, choice: undefined };
    });
  }

  /**
   * Writes the index to a folder, in place of one that is there. Either all of it is there afterwards or, where this
   * throws or the process ends, what was there before. Into its own folder, it is `compact`.
   *
   * @throws StorageError (disk full, read-only, ...), IndexLockedError
   */
  async save(directory: string, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    this.#live.requireOpen("save");
    options.signal?.throwIfAborted();
    await this.#live.save(directory, options);
  }

  close(): Promise<void> {
    return this.#live.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #begin(operation: string, { signal }: RequestOptions): void {
    this.#live.requireOpen(operation);
    signal?.throwIfAborted();
  }

  #read(id: string): CorpusDocument | undefined {
    const { documents } = this.#state;
    const number = documents.numberOf(id);
    return number === undefined ? undefined : documents.read(number).document;
  }

  async #searchState(current: () => IndexState, query: string, options: SearchOptions): Promise<Hit[]> {
    const plan = planSearch(options, this.hasLexicalPart);
    const textFault = wellFormedFault(query);
    if (textFault) throw new InvalidInputError(`search: the query ${textFault}.`);
    if (query.trim() === "") throw new InvalidInputError("search: the query is blank.");
    plan.signal?.throwIfAborted();
    return await this.#live.read("search", current, (state) => searchPassages(state, query, plan));
  }

  async #changeContext(
    change: Pick<Renewal, "embedder" | "settled" | "averageLength" | "keptContext">,
    { judged, signal, onProgress }: Pick<RecontextOptions, "judged" | "signal" | "onProgress">,
  ): Promise<Omit<RecontextReport, "choice">> {
    const start = performance.now();
    const evaluate = async (state: IndexState): Promise<number | undefined> => {
      if (!judged) return undefined;
      const options = { k: 10, mergeByDocument: true, ...(signal && { signal }) };
      return await judge(judged, (query) => this.#searchState(() => state, query, options));
    };
    const old = this.#state;
    this.#context = undefined;
    const before = { fingerprint: old.embedder.fingerprint, ndcg10: await evaluate(old) };
    const embedded = !keepsVectors(old, change.embedder);
    let ndcg10: number | undefined;
    await this.#live.renew({ ...change, recontext: true, signal, onProgress }, async (next) => {
      ndcg10 = await evaluate(next);
    });
    const after = { fingerprint: change.embedder.fingerprint, ndcg10 };
    return { before, after, embedded, seconds: (performance.now() - start) / 1000 };
  }
}

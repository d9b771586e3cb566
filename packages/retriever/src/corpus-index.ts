/** A corpus ready to be searched and kept up to date: documents, passages and vectors, bound to their embedder. */
import { resolve } from "node:path";
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
import type {
  BuildOptions,
  OpenOptions,
  RecontextOptions,
  RecontextReport,
  RollbackOptions,
} from "./corpus-index-options.js";
import { type CorpusDocument, checkMetadata, type JsonObject, wellFormedFault } from "./documents.js";
import { type DriftOptions, type DriftReport, measureDrift } from "./drift.js";
import { IndexClosedError } from "./errors.js";
import { compileFilter } from "./filters/compile.js";
import type { Filter } from "./filters/types.js";
import type { AutoFusion } from "./fusion/auto-fusion.js";
import { IndexState, type StateOptions } from "./index-state.js";
import { LexicalPart } from "./lexical/lexical-part.js";
import { bindOpened, type ContextBinder, type FolderDescription, folderDescription, isEmbedder } from "./open-index.js";
import { formerEmbedder, judge, newContext } from "./recontext.js";
import { keepsVectors, type Renewal, renewInFolder, renewInMemory, writeGeneration } from "./renew.js";
import { type Hit, planSearch, type SearchOptions } from "./search/options.js";
import { searchPassages } from "./search/search.js";
import { type FileSystem, nodeFileSystem } from "./storage/file-system.js";
import { OpenGeneration } from "./storage/index-reader.js";
import { IndexWriter } from "./storage/index-writer.js";
import {
  decodedPlace,
  type EncodedUpdate,
  encodeDelete,
  encodeMetadata,
  type Update,
} from "./storage/update-records.js";
import { UpdateSession } from "./storage/update-session.js";
import type { LogRows } from "./stored-vectors.js";
import {
  changedMetadata,
  type MetadataPatch,
  type Selection,
  selected,
  type UpsertOptions,
  type UpsertReport,
  upsertInto,
} from "./updates.js";

/** A log beyond this is written into a new generation, and so is an index of which this part is deleted. */
const LARGE_LOG = 256 * 2 ** 20;
const MANY_DELETED = 4096;
const MANY_LOGS = 64;
/** A search that an update ran into is run again, this often at most. */
const ATTEMPTS = 10;

/**
 * Documents that can be searched by meaning and by words. It answers only for the embedder whose fingerprint it carries.
 * Updates are acknowledged when they are durable, where the index has a folder; one process writes to it, any number
 * read. Close it (or `await using`) to end its worker thread and give back the folder's lock.
 */
export class CorpusIndex implements AsyncDisposable {
  readonly dimensions: number;
  /** What building left out or cut; undefined for an index that was opened. */
  readonly report: BuildReport | undefined;
  #state: IndexState;
  readonly #session: UpdateSession | undefined;
  readonly #options: OpenOptions;
  readonly #encoder: ContextEncoder | undefined;
  #choice: ContextChoice<ContextPassage> | undefined;
  /** What `fromCorpus` built, for an encoder whose embedders don't say. */
  #context: CorpusContext | undefined;
  /** The last of the updates, which run one after another. */
  #tail: Promise<void> = Promise.resolve();
  #updates = 0;
  #failure: unknown;
  #compactionError: unknown;
  /** A compaction in the background is waiting or running, and running. */
  #compacting = false;
  #renewing = false;
  #closed = false;

  private constructor(
    state: IndexState,
    options: OpenOptions,
    parts: { session?: UpdateSession | undefined; report?: BuildReport; encoder?: ContextEncoder | undefined } = {},
  ) {
    this.#state = state;
    this.#options = options;
    this.#session = parts.session;
    this.report = parts.report;
    this.#encoder = parts.encoder;
    this.dimensions = state.embedder.dimensions;
  }

  /**
   * Embeds the documents, in memory or (with `directory`) into a folder that becomes an index only when all is done. An
   * interrupted build of a folder is gone on with by calling it again; it ends with the same index.
   *
   * @throws InvalidInputError for a bad document, with its position; RuntimeFailureError for bad vectors;
   * StorageError and IndexLockedError with `directory`; FingerprintMismatchError where an unfinished build of another
   * model lies there.
   */
  static async build(
    embedder: Embedder,
    documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
    options: BuildOptions = {},
  ): Promise<CorpusIndex> {
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
      return new CorpusIndex(state, open, { report });
    }
    const asked = { rows, vectorIndex, lexical, split, splitter, notes, resume, signal, onProgress };
    const { state, report } = await buildInFolder(embedder, documents, { ...asked, fileSystem, directory });
    return new CorpusIndex(state, open, { session: sessionOf(fileSystem, directory, state), report });
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
  static async fromCorpus(
    encoder: ContextEncoder,
    documents: DocumentSource,
    options: BuildOptions & CorpusContextOptions = {},
  ): Promise<CorpusIndex> {
    const { context, choice, embedder, again } = await contextFromCorpus(encoder, documents, options);
    const built = await CorpusIndex.build(embedder, again, options);
    const { report } = built;
    const parts = { session: built.#session, encoder, ...(report && { report }) };
    const index = new CorpusIndex(built.#state, built.#options, parts);
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
  static async open(
    directory: string,
    model: Embedder | ContextBinder,
    options: OpenOptions = {},
  ): Promise<CorpusIndex> {
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
    return new CorpusIndex(state, options, { session: sessionOf(fileSystem, directory, state), encoder });
  }

  /** What an index folder is, without its model: whose vectors, how many, which notes. @throws as `open` */
  static describe(directory: string): Promise<FolderDescription> {
    return folderDescription(nodeFileSystem, directory);
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
    return this.#compactionError;
  }

  /**
   * The passages that answer best, best first (but for `mmr`); equal scores of one ranking in the order of the corpus.
   *
   * @throws InvalidInputError for a blank query or options that can't be followed, InvalidFilterError.
   */
  async search(query: string, options: SearchOptions = {}): Promise<Hit[]> {
    this.#requireOpen("search");
    return await this.#searchState(() => this.#state, query, options);
  }

  /** A document by its id; undefined where there is none. */
  async get(id: string): Promise<CorpusDocument | undefined> {
    this.#requireOpen("get");
    const { documents } = this.#state;
    const number = documents.numberOf(id);
    return number === undefined ? undefined : documents.read(number).document;
  }

  /** All documents, or those that a filter accepts, in the order in which they (or their present texts) came. */
  async *documents(options: { readonly filter?: Filter } = {}): AsyncGenerator<CorpusDocument> {
    this.#requireOpen("documents");
    const accepts = options.filter === undefined ? undefined : compileFilter(options.filter);
    const { documents } = this.#state;
    for (let number = 0; number < documents.documents; number++) {
      this.#requireOpen("documents");
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
  async upsert(
    documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
    options: UpsertOptions = {},
  ): Promise<UpsertReport> {
    return await this.#exclusive("upsert", async () => {
      const write = (update: Update, encoded: EncodedUpdate) => this.#apply(update, encoded);
      return await upsertInto(this.#state, documents, write, options);
    });
  }

  /** Removes documents and says how many there were. Ids that are not there are passed over. */
  async delete(which: Selection): Promise<number> {
    return await this.#exclusive("delete", async () => {
      const ids = await selected(this.#state, which, "delete");
      if (ids.length > 0) await this.#apply({ kind: "delete", ids }, encodeDelete(ids));
      return ids.length;
    });
  }

  /**
   * Changes metadata and embeds nothing: the fields of `patch` replace those of their name, undefined ones are removed.
   * Says how many documents there were.
   *
   * @throws InvalidInputError for an id that is not there, or metadata that JSON can't carry
   */
  async updateMetadata(which: string | readonly string[] | Selection, patch: MetadataPatch): Promise<number> {
    return await this.#exclusive("updateMetadata", async () => {
      const changes = await changedMetadata(this.#state, which, patch);
      if (changes.length > 0) await this.#apply({ kind: "metadata", changes }, encodeMetadata(changes));
      return changes.length;
    });
  }

  /**
   * Writes what is there into a new generation: frees what was deleted, and empties the log. Searches go on, updates
   * wait. A crash leaves the old generation or the new one, whole.
   */
  async compact(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    await this.#exclusive("compact", () => this.#renew({ recontext: false, embedder: this.embedder, ...options }));
    this.#compactionError = undefined;
  }

  /**
   * How far the documents that were added since the context was chosen have moved from those that were there, and what
   * a fresh context would change. Encodes nothing.
   */
  async drift(options: DriftOptions = {}): Promise<DriftReport> {
    this.#requireOpen("drift");
    return await this.#exclusive("drift", () => measureDrift(this.#state, options), false);
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
    return await this.#exclusive("recontext", async () => {
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
    return await this.#exclusive("rollback", async () => {
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
    this.#requireOpen("save");
    const { signal } = options;
    signal?.throwIfAborted();
    const session = this.#session;
    if (session && resolve(session.directory) === resolve(directory)) {
      const { isWriting } = session;
      await this.compact(options);
      if (!isWriting) await this.#exclusive("save", () => session.pause(), false);
      return;
    }
    await this.#exclusive(
      "save",
      async () => {
        await this.#state.autoFusion();
        const writer = await IndexWriter.begin(this.#fileSystem, directory);
        try {
          const folder = { fileSystem: this.#fileSystem, directory, writer, sequence: 0 };
          await writeGeneration(this.#state, folder, { ...this.#renewal(), embedder: this.embedder, signal });
          await writer.publish();
        } catch (error) {
          await writer.abort();
          throw error;
        }
      },
      false,
    );
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // Searches end at once, an update when it is whole; a compaction that runs needs the rows.
    if (!this.#renewing) await this.#state.closeSearch();
    await this.#tail;
    await this.#state.close();
    await this.#session?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #fileSystem(): FileSystem {
    return this.#options.fileSystem ?? nodeFileSystem;
  }

  #requireOpen(operation: string): void {
    if (this.#closed) throw new IndexClosedError(operation);
  }

  async #searchState(current: () => IndexState, query: string, options: SearchOptions): Promise<Hit[]> {
    const plan = planSearch(options, this.hasLexicalPart);
    const textFault = wellFormedFault(query);
    if (textFault) throw new InvalidInputError(`search: the query ${textFault}.`);
    if (query.trim() === "") throw new InvalidInputError("search: the query is blank.");
    plan.signal?.throwIfAborted();
    for (let attempt = 1; ; attempt++) {
      const updates = this.#updates;
      const state = current();
      try {
        return await state.use(() => searchPassages(state, query, plan));
      } catch (error) {
        // Whatever broke, closing came first.
        this.#requireOpen("search");
        // A passage was found and, before it was read, deleted.
        if (updates === this.#updates || attempt === ATTEMPTS) throw error;
      }
    }
  }

  /** Runs updates one after another. `writes: false` only keeps the index as it is meanwhile. */
  async #exclusive<T>(operation: string, work: () => Promise<T>, writes = true): Promise<T> {
    this.#requireOpen(operation);
    const before = this.#tail;
    let release = (): void => {};
    this.#tail = new Promise((resolve) => {
      release = resolve;
    });
    await before;
    try {
      this.#requireOpen(operation);
      if (writes) {
        if (this.#failure) throw this.#failure;
        await this.#session?.begin();
      }
      return await work();
    } finally {
      release();
      if (writes) this.#compactInBackground();
    }
  }

  /** Writes an update to the log, where there is a folder, then follows it. */
  async #apply(update: Update, encoded: EncodedUpdate): Promise<void> {
    const place: LogRows | undefined = this.#session && decodedPlace(await this.#session.append(encoded));
    this.#updates++;
    try {
      await this.#state.apply(update, place);
    } catch (error) {
      // It is in the log, so it counts; what is in memory is not the index any more.
      this.#failure = error;
      throw error;
    } finally {
      this.#updates++;
    }
  }

  /** Puts a new generation in the place of the present one. `inspect` sees it before. */
  async #renew(
    change: Pick<Renewal, "embedder" | "recontext"> & Partial<Renewal>,
    inspect?: (next: IndexState) => Promise<void>,
  ): Promise<void> {
    const renewal: Renewal = { ...this.#renewal(), ...change };
    const [session, old] = [this.#session, this.#state];
    if (!session) {
      const next = await renewInMemory(old, renewal);
      try {
        await inspect?.(next);
      } catch (error) {
        await next.close();
        throw error;
      }
      await this.#swap(next);
      return;
    }
    const { directory, sequence } = session;
    const writer = await IndexWriter.begin(this.#fileSystem, directory, true);
    let next: IndexState | undefined;
    try {
      next = await renewInFolder(old, { fileSystem: this.#fileSystem, directory, writer, sequence }, renewal);
      await inspect?.(next);
      await writer.publish();
    } catch (error) {
      await next?.close();
      // Whether the folder has the new generation now is not known: no update may go to the log of the old one.
      if (writer.isUndecided) this.#failure = error;
      await writer.abort();
      throw error;
    }
    await session.moveTo(writer.generation, next.vectorFingerprint);
    await this.#swap(next);
    await session.dropReaders();
  }

  async #swap(next: IndexState): Promise<void> {
    const old = this.#state;
    this.#state = next;
    this.#updates++;
    if (this.#closed) await next.closeSearch();
    await old.retire();
  }

  #renewal(): Omit<Renewal, "embedder"> {
    return { ...stateOptions(this.#options), signal: undefined, splitter: this.#state.splitter, recontext: false };
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
    await this.#renew({ ...change, recontext: true, signal, onProgress }, async (next) => {
      ndcg10 = await evaluate(next);
    });
    const after = { fingerprint: change.embedder.fingerprint, ndcg10 };
    return { before, after, embedded, seconds: (performance.now() - start) / 1000 };
  }

  #compactInBackground(): void {
    if (this.#closed || this.#compacting || this.#failure || this.#options.autoCompact === false) return;
    // Whatever hindered it (a full disk) would hinder every update; `compact()` tries again.
    if (this.#compactionError) return;
    const { documents } = this.#state;
    const deleted = documents.passages - documents.livePassages;
    const many = deleted >= MANY_DELETED && deleted * 2 >= documents.livePassages;
    const { isWriting = false, logBytes = 0, logFiles = 0 } = this.#session ?? {};
    const large = isWriting && (logBytes >= LARGE_LOG || logFiles >= MANY_LOGS);
    if (!many && !large) return;
    this.#compacting = true;
    const done = (error?: unknown): void => {
      this.#compacting = false;
      this.#compactionError = error;
    };
    const compact = async (): Promise<void> => {
      this.#renewing = true;
      try {
        await this.#renew({ recontext: false, embedder: this.embedder });
      } finally {
        this.#renewing = false;
      }
    };
    void this.#exclusive("compact", compact).then(
      () => done(),
      (error: unknown) => done(this.#closed ? undefined : error),
    );
  }
}

function stateOptions({ rows, vectorIndex, split, signal }: OpenOptions): StateOptions {
  return { rows, vectorIndex, splitter: split, signal };
}

function sessionOf(
  fileSystem: FileSystem,
  directory: string,
  { generation, vectorFingerprint, sequence }: IndexState,
): UpdateSession {
  const { manifest, lastLog } = generation as OpenGeneration;
  const folder = { generation: manifest.generation, vectorFingerprint, sequence, lastLog };
  return new UpdateSession(fileSystem, directory, folder);
}

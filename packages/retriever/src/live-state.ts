/** The present generation of an index, and all that changes it: updates one after another, compaction, the next generation. */
import { resolve } from "node:path";
import type { OpenOptions } from "./corpus-index-options.js";
import { IndexClosedError } from "./errors.js";
import type { IndexState, StateOptions } from "./index-state.js";
import { type Renewal, renewInFolder, renewInMemory, writeGeneration } from "./renew.js";
import { type FileSystem, nodeFileSystem } from "./storage/file-system.js";
import type { OpenGeneration } from "./storage/index-reader.js";
import { IndexWriter } from "./storage/index-writer.js";
import { decodedPlace, type EncodedUpdate, type Update } from "./storage/update-records.js";
import { UpdateSession } from "./storage/update-session.js";
import type { LogRows } from "./stored-vectors.js";

/** A log beyond this is written into a new generation, and so is an index of which this part is deleted. */
const LARGE_LOG = 256 * 2 ** 20;
const MANY_DELETED = 4096;
const MANY_LOGS = 64;
/** Work that an update ran into is done again, this often at most. */
const ATTEMPTS = 10;

export class LiveState {
  readonly #options: OpenOptions;
  /** Of the folder that updates are written to; undefined in memory. */
  readonly #session: UpdateSession | undefined;
  #state: IndexState;
  /** The last of the updates, which run one after another. */
  #tail: Promise<void> = Promise.resolve();
  #updates = 0;
  #failure: unknown;
  #compactionError: unknown;
  /** A compaction in the background is waiting or running, and running. */
  #compacting = false;
  #renewing = false;
  #closed = false;

  constructor(state: IndexState, options: OpenOptions, directory?: string) {
    this.#state = state;
    this.#options = options;
    this.#session = directory === undefined ? undefined : sessionOf(this.#fileSystem, directory, state);
  }

  get state(): IndexState {
    return this.#state;
  }

  /** Why a compaction in the background failed; undefined where none did. */
  get compactionError(): unknown {
    return this.#compactionError;
  }

  requireOpen(operation: string): void {
    if (this.#closed) throw new IndexClosedError(operation);
  }

  /** Reads the state that `current` gives, from the beginning where an update ran into it. */
  async read<T>(operation: string, current: () => IndexState, work: (state: IndexState) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const updates = this.#updates;
      const state = current();
      try {
        return await state.use(() => work(state));
      } catch (error) {
        // Whatever broke, closing came first.
        this.requireOpen(operation);
        // A passage was found and, before it was read, deleted.
        if (updates === this.#updates || attempt === ATTEMPTS) throw error;
      }
    }
  }

  /** Runs updates one after another. `writes: false` only keeps the index as it is meanwhile. */
  async exclusive<T>(operation: string, work: () => Promise<T>, writes = true): Promise<T> {
    this.requireOpen(operation);
    const before = this.#tail;
    let release = (): void => {};
    this.#tail = new Promise((resolve) => {
      release = resolve;
    });
    await before;
    try {
      this.requireOpen(operation);
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
  async apply(update: Update, encoded: EncodedUpdate): Promise<void> {
    const place: LogRows | undefined = this.#session && decodedPlace(await this.#session.append(encoded));
    this.#updates++;
    const { documents } = this.#state.documents;
    try {
      await this.#state.apply(update, place);
    } catch (error) {
      // In a log it counts; and what was followed in part is not the index any more.
      const untouched = update.kind === "upsert" && this.#state.documents.documents === documents;
      if (this.#session || !untouched) this.#failure = error;
      throw error;
    } finally {
      this.#updates++;
    }
  }

  /** Puts a new generation in the place of the present one. `inspect` sees it before. */
  async renew(
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

  /** See `CorpusIndex.compact`. */
  async compact(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const compact = () => this.renew({ recontext: false, embedder: this.#state.embedder, ...options });
    await this.exclusive("compact", compact);
    this.#compactionError = undefined;
  }

  /** See `CorpusIndex.save`. */
  async save(directory: string, options: { readonly signal?: AbortSignal }): Promise<void> {
    const { signal } = options;
    const session = this.#session;
    if (session && resolve(session.directory) === resolve(directory)) {
      const { isWriting } = session;
      await this.compact(options);
      if (!isWriting) await this.exclusive("save", () => session.pause(), false);
      return;
    }
    await this.exclusive(
      "save",
      async () => {
        await this.#state.autoFusion();
        const writer = await IndexWriter.begin(this.#fileSystem, directory);
        try {
          const folder = { fileSystem: this.#fileSystem, directory, writer, sequence: 0 };
          await writeGeneration(this.#state, folder, { ...this.#renewal(), embedder: this.#state.embedder, signal });
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

  get #fileSystem(): FileSystem {
    return this.#options.fileSystem ?? nodeFileSystem;
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
        await this.renew({ recontext: false, embedder: this.#state.embedder });
      } finally {
        this.#renewing = false;
      }
    };
    void this.exclusive("compact", compact).then(
      () => done(),
      (error: unknown) => done(this.#closed ? undefined : error),
    );
  }
}

export function stateOptions({ rows, vectorIndex, split, signal }: OpenOptions): StateOptions {
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

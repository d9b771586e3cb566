/** One writer's hold on an index folder: its lock, taken at the first update, and its log. */
import { IndexChangedError } from "../errors.js";
import type { LogRows } from "../stored-vectors.js";
import type { FileSystem } from "./file-system.js";
import { lockDirectory } from "./lock.js";
import { logFile, parseLogName, readManifest } from "./manifest.js";
import { asStorageErrors } from "./storage-errors.js";
import { LogReader, LogWriter } from "./update-log.js";
import type { EncodedUpdate } from "./update-records.js";

/** The state of a folder that an index was read from. */
export interface FolderState {
  readonly generation: number;
  /** Of the vectors that its log holds. */
  readonly vectorFingerprint: string;
  /** The last update that was read. */
  readonly sequence: number;
  readonly lastLog: { readonly number: number; readonly size: number };
}

export class UpdateSession {
  readonly directory: string;
  readonly #fileSystem: FileSystem;
  #state: FolderState;
  #sequence: number;
  #lastNumber: number;
  #unlock: (() => Promise<void>) | undefined;
  #writer: LogWriter | undefined;
  #reader: LogReader | undefined;
  readonly #readers: LogReader[] = [];
  /** Bytes of this session's records in the present generation. */
  #written = 0;

  constructor(fileSystem: FileSystem, directory: string, state: FolderState) {
    this.#fileSystem = fileSystem;
    this.directory = directory;
    this.#state = state;
    this.#sequence = state.sequence;
    this.#lastNumber = state.lastLog.number;
  }

  get sequence(): number {
    return this.#sequence;
  }

  get isWriting(): boolean {
    return this.#unlock !== undefined;
  }

  /** Logs of the present generation. */
  get logFiles(): number {
    return this.#lastNumber;
  }

  get logBytes(): number {
    return this.#state.lastLog.size + this.#written;
  }

  /**
   * Makes this the folder's only writer, until `close`.
   *
   * @throws IndexLockedError while another one is, IndexChangedError where another one was since the folder was read.
   */
  async begin(): Promise<void> {
    if (this.#unlock) return;
    const [fileSystem, directory] = [this.#fileSystem, this.directory];
    await asStorageErrors(directory, async () => {
      const unlock = await lockDirectory(fileSystem, directory);
      try {
        if (!(await this.#isUnchanged())) throw new IndexChangedError(directory);
      } catch (error) {
        await unlock();
        throw error;
      }
      this.#unlock = unlock;
    });
  }

  /** When it returns, a power cut doesn't undo the update. */
  async append({ kind, parts }: EncodedUpdate): Promise<LogRows> {
    if (!this.#writer?.usable) await this.#nextLog();
    const [writer, log] = [this.#writer as LogWriter, this.#reader as LogReader];
    const position = await writer.append(kind, parts);
    this.#sequence = writer.sequence;
    this.#written += parts.reduce((sum, part) => sum + part.length, 0);
    return { log, position };
  }

  /** The folder has a new generation, which holds all updates so far. The logs of the old one are still readable. */
  async moveTo(generation: number, vectorFingerprint: string): Promise<void> {
    await this.#endLog();
    this.#state = { generation, vectorFingerprint, sequence: this.#sequence, lastLog: { number: 0, size: 0 } };
    this.#lastNumber = 0;
    this.#written = 0;
  }

  /** Gives back the lock until the next update, where the present generation has no log yet. */
  async pause(): Promise<void> {
    if (this.#lastNumber > 0) return;
    await this.#unlock?.();
    this.#unlock = undefined;
  }

  /** Nothing reads the logs of earlier generations any more. */
  async dropReaders(): Promise<void> {
    for (const reader of this.#readers.splice(0)) await reader.close();
  }

  async close(): Promise<void> {
    const failed = this.#writer?.usable === false;
    await this.#endLog();
    // A refused update may be on the disk all the same; a new log makes it void.
    if (failed) await this.#nextLog().catch(() => {});
    await this.#endLog();
    await this.dropReaders();
    await this.#unlock?.();
    this.#unlock = undefined;
  }

  async #nextLog(): Promise<void> {
    await this.#endLog();
    const number = ++this.#lastNumber;
    const { generation, vectorFingerprint } = this.#state;
    const name = logFile("log", generation, number);
    const head = { format: "cde-log/1", vectorFingerprint };
    this.#writer = await LogWriter.create(this.#fileSystem, this.directory, name, { head, sequence: this.#sequence });
    this.#reader = await asStorageErrors(this.directory, () => LogReader.open(this.#fileSystem, this.directory, name));
    if (this.#reader) this.#readers.push(this.#reader);
  }

  async #endLog(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    await writer?.close(true);
  }

  async #isUnchanged(): Promise<boolean> {
    const { generation, lastLog } = this.#state;
    if ((await readManifest(this.#fileSystem, this.directory)).generation !== generation) return false;
    let last: { name: string; number: number } | undefined;
    for (const name of await this.#fileSystem.list(this.directory)) {
      const parsed = parseLogName(name);
      if (parsed?.kind !== "log" || parsed.generation !== generation) continue;
      if (parsed.number > (last?.number ?? 0)) last = { name, number: parsed.number };
    }
    if ((last?.number ?? 0) !== lastLog.number) return false;
    if (!last) return true;
    const log = await LogReader.open(this.#fileSystem, this.directory, last.name);
    await log?.close();
    return (log?.size ?? 0) === lastLog.size;
  }
}

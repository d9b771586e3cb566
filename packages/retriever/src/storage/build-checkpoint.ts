/**
 * What an unfinished build has embedded so far: logs beside the index, from which the next build of the same folder
 * takes the vectors of every document that is still the same.
 */
import { CorruptFileError, FingerprintMismatchError, InvalidInputError } from "@cde-js/core";
import type { EmbeddedDocument, KnownDocument } from "../build-index.js";
import type { CorpusDocument } from "../documents.js";
import type { Passage } from "../split/pieces.js";
import { DocumentStore } from "./document-store.js";
import type { FileSystem } from "./file-system.js";
import { logFile, parseLogName, type SplitIdentity } from "./manifest.js";
import { asStorageErrors } from "./storage-errors.js";
import { LogReader, LogWriter } from "./update-log.js";
import { decodeUpdate, encodeUpsert, readFlags } from "./update-records.js";

/** What vectors must have in common to be taken over. */
export interface CheckpointIdentity {
  /** Of the embedder whose vectors the index keeps. */
  readonly vectorFingerprint: string;
  readonly dimensions: number;
  readonly split: SplitIdentity;
}

interface Place {
  readonly log: LogReader;
  readonly position: number;
  readonly flags: number;
}

const FORMAT = "cde-build/1";

export class BuildCheckpoint {
  readonly #fileSystem: FileSystem;
  readonly #directory: string;
  readonly #generation: number;
  readonly #identity: CheckpointIdentity;
  readonly #known = new DocumentStore("an unfinished build");
  /** By number in `#known`. */
  readonly #places: Place[] = [];
  readonly #logs: LogReader[] = [];
  #writer: LogWriter | undefined;
  /** Documents whose vectors were taken over. */
  reused = 0;

  private constructor(fileSystem: FileSystem, directory: string, generation: number, identity: CheckpointIdentity) {
    this.#fileSystem = fileSystem;
    this.#directory = directory;
    this.#generation = generation;
    this.#identity = identity;
  }

  /**
   * Reads what is there, or with `resume: false` discards it. The caller holds the folder's lock.
   *
   * @throws FingerprintMismatchError for vectors of another model or context, InvalidInputError for other passages
   */
  static async open(
    fileSystem: FileSystem,
    directory: string,
    generation: number,
    options: { readonly identity: CheckpointIdentity; readonly resume: boolean },
  ): Promise<BuildCheckpoint> {
    const checkpoint = new BuildCheckpoint(fileSystem, directory, generation, options.identity);
    return await asStorageErrors(directory, async () => {
      try {
        for (const name of await unfinished(fileSystem, directory)) {
          if (options.resume) await checkpoint.#read(name);
          else await fileSystem.remove(`${directory}/${name}`);
        }
        return checkpoint;
      } catch (error) {
        await checkpoint.close();
        throw error;
      }
    });
  }

  /** The vectors of this text, and passages if they are given. */
  async find(document: CorpusDocument, passages?: readonly Passage[]): Promise<KnownDocument | undefined> {
    const number = this.#known.numberOf(document.id);
    if (number === undefined) return undefined;
    const stored = this.#known.read(number);
    if (stored.document.text !== document.text || stored.document.title !== document.title) return undefined;
    if (passages && !samePassages(passages, stored.passages)) return undefined;
    const { log, position, flags } = this.#places[number] as Place;
    const rows = new Float32Array(stored.passages.length * this.#identity.dimensions);
    await asStorageErrors(this.#directory, () => log.read(new Uint8Array(rows.buffer), position));
    this.reused++;
    return { passages: stored.passages, rows, ...readFlags(flags) };
  }

  /** Keeps what was embedded now; when it returns, a power cut doesn't undo it. */
  async add(documents: readonly EmbeddedDocument[]): Promise<void> {
    if (documents.length === 0) return;
    this.#writer ??= await LogWriter.create(this.#fileSystem, this.#directory, logFile("build", this.#generation, 1), {
      head: { format: FORMAT, ...this.#identity },
      sequence: 0,
    });
    const { kind, parts } = encodeUpsert(documents);
    await this.#writer.append(kind, parts);
  }

  async close(): Promise<void> {
    await this.#writer?.close(true);
    for (const log of this.#logs) await log.close();
  }

  async #read(name: string): Promise<void> {
    const log = await LogReader.open(this.#fileSystem, this.#directory, name);
    if (!log) return;
    this.#logs.push(log);
    this.#refuseOther(log);
    const { dimensions } = this.#identity;
    for await (const record of log.records()) {
      const update = decodeUpdate(record, log.path);
      if (update.kind !== "upsert") throw new CorruptFileError(log.path, `${log.path} holds what no build writes.`);
      const [firstNumber, firstPassage] = [this.#known.documents, this.#known.passages];
      // A later run embedded a document anew where its text had changed.
      this.#known.adopt(update.records, () => {});
      const count = this.#known.documents - firstNumber;
      if ((this.#known.passages - firstPassage) * dimensions !== update.rows.length || count !== update.flags.length) {
        throw new CorruptFileError(log.path, `${log.path}: update ${record.sequence} has other vectors than passages.`);
      }
      for (let i = 0; i < count; i++) {
        const offset = 4 * dimensions * (this.#known.firstPassage(firstNumber + i) - firstPassage);
        this.#places.push({ log, position: update.position + offset, flags: update.flags[i] as number });
      }
    }
  }

  #refuseOther({ path, head }: LogReader): void {
    const { vectorFingerprint, dimensions, split } = this.#identity;
    const remedy = "Go on with the same model and options, or discard it with { resume: false }.";
    if (head.format !== FORMAT) throw new CorruptFileError(path, `${path} is not of an unfinished build.`);
    if (head.vectorFingerprint !== vectorFingerprint || head.dimensions !== dimensions) {
      throw new FingerprintMismatchError(
        String(head.vectorFingerprint),
        vectorFingerprint,
        `build: ${this.#directory} holds an unfinished build of fingerprint ${String(head.vectorFingerprint)}, this ` +
          `embedder's is ${vectorFingerprint}. ${remedy}`,
      );
    }
    if (JSON.stringify(head.split) === JSON.stringify(split)) return;
    throw new InvalidInputError(
      `build: ${this.#directory} holds an unfinished build with texts split by ${JSON.stringify(head.split)}, now it is ` +
        `${JSON.stringify(split)}. ${remedy}`,
    );
  }
}

/** Names of the logs of unfinished builds, oldest first. */
export async function unfinished(fileSystem: FileSystem, directory: string): Promise<string[]> {
  const names = await fileSystem.list(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
    throw error;
  });
  const found = names.flatMap((name) => {
    const parsed = parseLogName(name);
    return parsed?.kind === "build" ? [{ name, ...parsed }] : [];
  });
  return found.sort((a, b) => a.generation - b.generation || a.number - b.number).map(({ name }) => name);
}

export function samePassages(a: readonly Passage[], b: readonly Passage[]): boolean {
  return a.length === b.length && a.every(({ start, end }, i) => start === b[i]?.start && end === b[i]?.end);
}

/** The file that mining writes: lines beside it until all are there, and a note of how far it came. */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { CorruptFileError, InvalidInputError, RuntimeFailureError } from "../../errors.js";
import { isJsonObject, readOptionalJsonObject } from "../../model/json-file.js";
import { exists } from "../data/pair-files.js";

/** What a note says. */
export interface Progress<T> {
  /** Pairs whose lines are in the file. */
  readonly done: number;
  readonly counts: T;
}

export class MiningOutput<T> {
  readonly #path: string;
  readonly #digest: string;
  readonly #file: FileHandle;
  #bytes: number;
  /** Where an earlier run stopped, or undefined. */
  readonly resumed: Progress<T> | undefined;

  private constructor(path: string, digest: string, file: FileHandle, bytes: number, resumed: Progress<T> | undefined) {
    this.#path = path;
    this.#digest = digest;
    this.#file = file;
    this.#bytes = bytes;
    this.resumed = resumed;
  }

  /** Begins, or goes on with what a run of the same digest left. */
  static async open<T>(path: string, digest: string): Promise<MiningOutput<T>> {
    if (await exists(path)) {
      throw new InvalidInputError(`mineHardNegatives: ${path} is there already. Choose another file, or remove it.`);
    }
    const note = await readOptionalJsonObject("mineHardNegatives", notePath(path));
    if (note && note.digest !== digest) {
      throw new InvalidInputError(
        `mineHardNegatives: ${partialPath(path)} is of a run with other pairs, surrogate or options. Remove it and ${notePath(path)}, or choose another file.`,
      );
    }
    const { bytes = 0, done = 0, counts } = (note ?? {}) as { bytes?: unknown; done?: unknown; counts?: unknown };
    const valid = note === undefined || (isCount(bytes) && isCount(done) && isJsonObject(counts));
    let file: FileHandle | undefined;
    try {
      file = await open(partialPath(path), note ? "r+" : "w+");
      const { size } = await file.stat();
      if (!valid || size < (bytes as number)) {
        throw new CorruptFileError(
          partialPath(path),
          `mineHardNegatives: ${partialPath(path)} and ${notePath(path)} don't fit. Remove both to begin again.`,
        );
      }
      // Lines after the note are of a slice that wasn't finished.
      await file.truncate(bytes as number);
      const resumed = note ? { done: done as number, counts: counts as T } : undefined;
      return new MiningOutput<T>(path, digest, file, bytes as number, resumed);
    } catch (cause) {
      await file?.close();
      throw asFailure(path, cause);
    }
  }

  /** Appends lines and notes that all pairs before `done` are finished. */
  async append(lines: string, progress: Progress<T>): Promise<void> {
    try {
      const bytes = Buffer.from(lines);
      for (let written = 0; written < bytes.length; ) {
        const at = this.#bytes + written;
        written += (await this.#file.write(bytes, written, bytes.length - written, at)).bytesWritten;
      }
      await this.#file.datasync();
      this.#bytes += bytes.length;
      const temporary = `${notePath(this.#path)}.tmp`;
      {
        await using note = await open(temporary, "w");
        await note.writeFile(`${JSON.stringify({ digest: this.#digest, bytes: this.#bytes, ...progress })}\n`);
        await note.datasync();
      }
      await rename(temporary, notePath(this.#path));
    } catch (cause) {
      throw asFailure(this.#path, cause);
    }
  }

  /** Puts the file in its place. */
  async finish(): Promise<void> {
    try {
      await this.#file.sync();
      await this.#file.close();
      await rename(partialPath(this.#path), this.#path);
      await rm(notePath(this.#path), { force: true });
    } catch (cause) {
      throw asFailure(this.#path, cause);
    }
  }

  /** Leaves everything for a later run. */
  async leave(): Promise<void> {
    await this.#file.close().catch(() => {}); // the error that led here is the one to raise
  }
}

const partialPath = (path: string): string => `${path}.partial`;
const notePath = (path: string): string => `${path}.partial.json`;
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;

function asFailure(path: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || !("syscall" in cause)) return cause;
  return new RuntimeFailureError(`mineHardNegatives: can't write ${path} in ${dirname(path)}: ${cause.message}`, {
    cause,
  });
}

/** The few file operations that an index needs, so that tests can fail any of them or lose what was not synced. */
import { constants } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { CorruptFileError } from "@cde-js/core";

export interface WritableFile {
  /** Appends all of `bytes`. */
  write(bytes: Uint8Array): Promise<void>;
  /** What was written survives a power cut from here on. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface ReadableFile {
  readonly size: number;
  /** Fills `target` from `position`, or rejects. */
  read(target: Uint8Array, position: number): Promise<void>;
  close(): Promise<void>;
}

export interface FileSystem {
  /** Makes the folder and those above it. */
  makeDirectory(path: string): Promise<void>;
  /** Names in a folder. */
  list(path: string): Promise<string[]>;
  /** A new file; EEXIST where there is one (or a link). */
  create(path: string): Promise<WritableFile>;
  /** A regular file, never through a symbolic link. */
  open(path: string): Promise<ReadableFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Names created, renamed and removed in the folder survive a power cut from here on. */
  syncDirectory(path: string): Promise<void>;
}

export const nodeFileSystem: FileSystem = {
  async makeDirectory(path) {
    const first = await mkdir(path, { recursive: true });
    // Each new folder is a name in the one above it.
    for (let at = path; first && at.length >= first.length; at = dirname(at)) await this.syncDirectory(dirname(at));
  },
  list: (path) => readdir(path),
  async create(path) {
    return new NodeWritableFile(await open(path, "wx"));
  },
  async open(path) {
    if (!(await lstat(path)).isFile()) throw notAFile(path);
    // O_NOFOLLOW closes the gap between the two calls; Windows has no such flag.
    const handle = await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0)).catch((cause) => {
      throw (cause as NodeJS.ErrnoException).code === "ELOOP" ? notAFile(path) : cause;
    });
    try {
      const { size } = await handle.stat();
      return new NodeReadableFile(handle, path, size);
    } catch (error) {
      await handle.close();
      throw error;
    }
  },
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path),
  async syncDirectory(path) {
    // Windows can't open folders and writes names through by itself.
    if (process.platform === "win32") return;
    const handle = await open(path, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};

const notAFile = (path: string): CorruptFileError =>
  new CorruptFileError(path, `${path} is not a regular file (a link or a folder); an index folder holds only files.`);

class NodeWritableFile implements WritableFile {
  readonly #handle: FileHandle;
  constructor(handle: FileHandle) {
    this.#handle = handle;
  }
  async write(bytes: Uint8Array): Promise<void> {
    // A nearly full disk takes a part and refuses the rest with the next call.
    for (let done = 0; done < bytes.length; ) {
      done += (await this.#handle.write(bytes, done, Math.min(bytes.length - done, 2 ** 26))).bytesWritten;
    }
  }
  sync(): Promise<void> {
    return this.#handle.sync();
  }
  close(): Promise<void> {
    return this.#handle.close();
  }
}

class NodeReadableFile implements ReadableFile {
  readonly size: number;
  readonly #handle: FileHandle;
  readonly #path: string;
  constructor(handle: FileHandle, path: string, size: number) {
    this.#handle = handle;
    this.#path = path;
    this.size = size;
  }
  async read(target: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < target.length; ) {
      const { bytesRead } = await this.#handle.read(target, done, target.length - done, position + done);
      if (bytesRead === 0) throw new CorruptFileError(this.#path, `${this.#path} ended while it was read.`);
      done += bytesRead;
    }
  }
  close(): Promise<void> {
    return this.#handle.close();
  }
}

/**
 * A file system in memory that can fail at any operation, and lose at a power cut what was not synced. Contents and names
 * are synced apart, as on a real one: a file's `sync` doesn't make its name last, a folder's doesn't make contents last.
 */
import { basename, dirname, join } from "node:path";
import type { FileSystem, ReadableFile, WritableFile } from "./file-system.js";

interface Inode {
  bytes: Buffer;
  /** What a power cut leaves for certain. */
  synced: Buffer;
}

type NameChange = (names: Map<string, Inode>) => void;

/** What happens to contents that were written and not synced. */
export type UnsyncedContents = "lost" | "torn" | "kept";

export function systemError(code: string, syscall: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${syscall}`), { code, syscall });
}

export class SimulatedFileSystem implements FileSystem {
  #names = new Map<string, Inode>();
  readonly #durable = new Map<string, Inode>();
  #pending: NameChange[] = [];
  #operations = 0;
  /** Called with the number and name of every operation before it happens; may throw. */
  beforeOperation: (number: number, name: string) => void = () => {};

  get operations(): number {
    return this.#operations;
  }

  /** All synced, as a copy. */
  clone(): SimulatedFileSystem {
    const copy = new SimulatedFileSystem();
    for (const [path, { bytes }] of this.#names) copy.place(path, bytes);
    return copy;
  }

  /** The disk after a power cut: synced names, the first `namesKept` changes after them, contents by `unsynced`. */
  afterPowerCut(namesKept: number, unsynced: UnsyncedContents): SimulatedFileSystem {
    const names = new Map(this.#durable);
    for (const change of this.#pending.slice(0, namesKept)) change(names);
    const disk = new SimulatedFileSystem();
    for (const [path, { bytes, synced }] of names) {
      const torn = bytes.subarray(0, synced.length + Math.ceil((bytes.length - synced.length) / 2));
      disk.place(path, unsynced === "lost" ? synced : unsynced === "torn" ? torn : bytes);
    }
    return disk;
  }

  get pendingNames(): number {
    return this.#pending.length;
  }

  place(path: string, bytes: Uint8Array): void {
    const inode = { bytes: Buffer.from(bytes), synced: Buffer.from(bytes) };
    this.#names.set(path, inode);
    this.#durable.set(path, inode);
  }

  files(): Map<string, Buffer> {
    return new Map([...this.#names].map(([path, { bytes }]) => [path, bytes]));
  }

  async makeDirectory(): Promise<void> {
    this.#step("mkdir");
  }

  async list(path: string): Promise<string[]> {
    this.#step("list");
    return [...this.#names.keys()].filter((name) => dirname(name) === path).map((name) => basename(name));
  }

  async create(path: string): Promise<WritableFile> {
    this.#step("create");
    if (this.#names.has(path)) throw systemError("EEXIST", "open");
    const inode: Inode = { bytes: Buffer.alloc(0), synced: Buffer.alloc(0) };
    this.#change((names) => names.set(path, inode));
    return {
      write: async (bytes) => {
        try {
          this.#step("write");
        } catch (error) {
          // The disk took a part before it was full.
          inode.bytes = Buffer.concat([inode.bytes, bytes.subarray(0, bytes.length >> 1)]);
          throw error;
        }
        inode.bytes = Buffer.concat([inode.bytes, bytes]);
      },
      sync: async () => {
        this.#step("sync");
        inode.synced = inode.bytes;
      },
      close: async () => {},
    };
  }

  async open(path: string): Promise<ReadableFile> {
    this.#step("open");
    const inode = this.#names.get(join(path));
    if (!inode) throw systemError("ENOENT", "open");
    return {
      size: inode.bytes.length,
      // A file that grows is read as it is.
      read: async (target, position) => {
        inode.bytes.copy(target, 0, position);
      },
      close: async () => {},
    };
  }

  async rename(from: string, to: string): Promise<void> {
    this.#step("rename");
    const inode = this.#names.get(from);
    if (!inode) throw systemError("ENOENT", "rename");
    this.#change((names) => {
      names.delete(from);
      names.set(to, inode);
    });
  }

  async remove(path: string): Promise<void> {
    this.#step("remove");
    if (!this.#names.has(path)) throw systemError("ENOENT", "rm");
    this.#change((names) => names.delete(path));
  }

  async syncDirectory(): Promise<void> {
    this.#step("syncDirectory");
    for (const change of this.#pending) change(this.#durable);
    this.#pending = [];
  }

  #change(change: NameChange): void {
    change(this.#names);
    this.#pending.push(change);
  }

  #step(name: string): void {
    this.beforeOperation(this.#operations++, name);
  }
}

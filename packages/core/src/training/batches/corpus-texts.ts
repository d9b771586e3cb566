/** The documents that are searched for hard negatives: texts in a temporary file, their keys and places in memory. */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rm } from "node:fs/promises";
import { InvalidInputError, RuntimeFailureError } from "../../errors.js";
import { KeyTable } from "../data/key-table.js";
import { textKey } from "../data/text-key.js";
import { rowKey } from "./row-key.js";

const WRITE_BYTES = 1 << 20;
/** Bytes that are read with one call, and between two texts over which one read goes on. */
const READ_BYTES = 1 << 20;
const GAP_BYTES = 1 << 14;

/** Different texts, each once; 32 bytes of memory a text. Gone when it is disposed of. */
export class CorpusTexts implements AsyncDisposable {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #table = new KeyTable();
  readonly #offsets: number[] = [0];
  readonly #textKeys: number[] = [];

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  /** Writes the texts beside `path`. */
  static async from(
    path: string,
    documents: AsyncIterable<string> | Iterable<string>,
    signal: AbortSignal | undefined,
  ): Promise<CorpusTexts> {
    const temporary = `${path}.${process.pid}-${randomBytes(6).toString("hex")}.corpus.tmp`;
    let file: FileHandle;
    try {
      file = await open(temporary, "wx+");
    } catch (cause) {
      throw new RuntimeFailureError(`mineHardNegatives: can't write ${temporary}: ${(cause as Error).message}`, {
        cause,
      });
    }
    const corpus = new CorpusTexts(temporary, file);
    try {
      await corpus.#fill(documents, signal);
    } catch (error) {
      await corpus[Symbol.asyncDispose]();
      throw error;
    }
    return corpus;
  }

  get size(): number {
    return this.#textKeys.length;
  }

  /** All texts in order, for a digest of them. */
  get keys(): Float64Array {
    return this.#table.first;
  }

  /** Equal for texts that are the same but for case, punctuation and white space. */
  textKey(row: number): number {
    return this.#textKeys[row]!;
  }

  /** Texts `from` to before `to`. */
  async slice(from: number, to: number): Promise<string[]> {
    const start = this.#offsets[from]!;
    const bytes = await this.#read(start, this.#offsets[to]! - start);
    return Array.from({ length: to - from }, (_, i) =>
      bytes.toString("utf8", this.#offsets[from + i]! - start, this.#offsets[from + i + 1]! - start),
    );
  }

  /** The texts of some rows, by row. Neighbours are read together. */
  async texts(rows: Iterable<number>): Promise<Map<number, string>> {
    const order = Uint32Array.from(new Set(rows)).sort();
    const found = new Map<number, string>();
    for (let from = 0; from < order.length; ) {
      const first = order[from]!;
      let to = from + 1;
      for (; to < order.length; to++) {
        const [gap, end] = [this.#offsets[order[to - 1]! + 1]!, this.#offsets[order[to]! + 1]!];
        if (this.#offsets[order[to]!]! - gap > GAP_BYTES || end - this.#offsets[first]! > READ_BYTES) break;
      }
      const start = this.#offsets[first]!;
      const bytes = await this.#read(start, this.#offsets[order[to - 1]! + 1]! - start);
      for (const row of order.subarray(from, to)) {
        found.set(row, bytes.toString("utf8", this.#offsets[row]! - start, this.#offsets[row + 1]! - start));
      }
      from = to;
    }
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    await rm(this.#path, { force: true });
  }

  async #fill(documents: AsyncIterable<string> | Iterable<string>, signal: AbortSignal | undefined): Promise<void> {
    let pending: Buffer[] = [];
    let [bytes, position] = [0, 0];
    const flush = async () => {
      await this.#file.appendFile(Buffer.concat(pending, bytes));
      [pending, bytes] = [[], 0];
      signal?.throwIfAborted();
    };
    for await (const text of documents) {
      if (typeof text !== "string" || text.trim() === "") {
        const message = `mineHardNegatives: document ${position} of the corpus is ${typeof text === "string" ? "empty" : `a ${typeof text}`}; pass texts.`;
        throw new InvalidInputError(message, { position });
      }
      position++;
      const { first, second } = rowKey(text);
      if (this.#table.find(first, second) >= 0) continue;
      this.#table.push(first, second);
      this.#textKeys.push(textKey(text));
      const encoded = Buffer.from(text);
      this.#offsets.push(this.#offsets.at(-1)! + encoded.length);
      pending.push(encoded);
      bytes += encoded.length;
      if (bytes >= WRITE_BYTES) await flush();
    }
    await flush();
    if (this.size === 0)
      throw new InvalidInputError("mineHardNegatives: the corpus has no documents; give at least one.");
  }

  async #read(start: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.#file.read(bytes, done, length - done, start + done);
      if (bytesRead === 0) throw new RuntimeFailureError(`mineHardNegatives: ${this.#path} ended while it was read.`);
      done += bytesRead;
    }
    return bytes;
  }
}

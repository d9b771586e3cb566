/** The lexical part of a corpus index: BM25 over its passages, titles included, and how their words were found. */
import { CorruptFileError, InvalidInputError } from "@cde-js/core";
import { type AnalyzerOptions, countTerms, createAnalyzer, type TermCounts } from "./analyzer.js";
import { Bm25Index } from "./bm25-index.js";

/**
 * Rows are passage numbers. As bytes: u32 length of a JSON header `{ analyzer }`, the header, the BM25 index; so that a
 * saved index is opened without being told its language again.
 */
export class LexicalPart {
  readonly index: Bm25Index;
  readonly #analyzer: AnalyzerOptions;

  private constructor(analyzer: AnalyzerOptions, index: Bm25Index) {
    this.#analyzer = analyzer;
    this.index = index;
  }

  /** An empty part. @throws InvalidInputError for options that no analyzer has */
  static create(options: AnalyzerOptions): LexicalPart {
    const { language, stopWords, stem } = options;
    const analyzer = {
      ...(language === undefined ? {} : { language }),
      ...(stopWords === undefined ? {} : { stopWords: [...stopWords] }),
      ...(stem === undefined ? {} : { stem }),
    };
    return new LexicalPart(analyzer, new Bm25Index({ analyzer: createAnalyzer(analyzer) }));
  }

  /** @throws CorruptFileError unless these are the bytes of a part of so many passages. */
  static fromBytes(bytes: Uint8Array, path: string, passages: number): LexicalPart {
    const corrupt = (what: string, cause?: unknown): CorruptFileError =>
      new CorruptFileError(path, `${path}: ${what}. Build the index again.`, { cause });
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = buffer.length < 4 ? Number.POSITIVE_INFINITY : buffer.readUInt32LE(0);
    if (4 + length > buffer.length) throw corrupt("is shorter than its header");
    let part: LexicalPart;
    try {
      const { analyzer } = JSON.parse(buffer.toString("utf8", 4, 4 + length)) as { analyzer: AnalyzerOptions };
      checkAnalyzer(analyzer);
      const index = Bm25Index.fromBytes(buffer.subarray(4 + length), { analyzer: createAnalyzer(analyzer), path });
      part = new LexicalPart(analyzer, index);
    } catch (cause) {
      if (cause instanceof CorruptFileError) throw cause;
      throw corrupt(cause instanceof InvalidInputError ? cause.message : "has a header that is none", cause);
    }
    let missing = part.index.size === passages ? -1 : passages;
    for (let row = 0; row < passages && missing < 0; row++) if (!part.index.has(row)) missing = row;
    if (missing < 0) return part;
    throw corrupt(`holds ${part.index.size} passages that are not the ${passages} of the documents`);
  }

  add(passage: number, title: string | undefined, text: string): void {
    this.index.upsertTerms(passage, this.count(title, text));
  }

  /** The terms of a passage, which is most of the work of adding it. */
  count(title: string | undefined, text: string): TermCounts {
    return countTerms(this.index.analyzer, title === undefined ? text : `${title} ${text}`);
  }

  remove(passage: number): void {
    this.index.delete(passage);
  }

  /** An empty part that finds words in the same way. */
  emptied(): LexicalPart {
    return LexicalPart.create(this.#analyzer);
  }

  /**
   * `labels` are the passages that are there, ascending: they are numbered from 0 in the bytes. `averageLength` is
   * frozen there in place of the one in force.
   */
  toBytes(labels?: Uint32Array, averageLength?: number): Uint8Array {
    const header = Buffer.from(JSON.stringify({ analyzer: this.#analyzer }));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(header.length);
    let renumber: ((row: number) => number) | undefined;
    if (labels && labels.length > 0 && labels.at(-1) !== labels.length - 1) {
      const numbers = new Uint32Array((labels.at(-1) as number) + 1);
      for (const [i, label] of labels.entries()) numbers[label] = i;
      renumber = (row) => numbers[row] as number;
    }
    return Buffer.concat([
      length,
      header,
      this.index.toBytes({ ...(renumber && { renumber }), ...(averageLength && { averageLength }) }),
    ]);
  }
}

/** A language is checked by `createAnalyzer`, the rest only by its types. */
function checkAnalyzer({ language, stopWords, stem }: AnalyzerOptions): void {
  const words = stopWords ?? [];
  const sound =
    (language === undefined || typeof language === "string") &&
    (stem === undefined || typeof stem === "boolean") &&
    Array.isArray(words) &&
    words.every((word) => typeof word === "string");
  if (!sound) throw new InvalidInputError("names no analyzer");
}

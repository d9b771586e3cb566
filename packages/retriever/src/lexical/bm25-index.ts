/** BM25 in memory: an inverted index with updates, deletes and exact scores. Rows in, rows out; ids are the caller's. */
import { InvalidInputError, internal } from "@cde-js/core";
import { type Analyzer, countTerms, createAnalyzer, type TermCounts } from "./analyzer.js";
import { type Bm25State, decodeState, encodeState, LARGEST_ROW } from "./bm25-bytes.js";
import { Postings, resized } from "./postings.js";
import { type Bm25Parameters, checkParameters, inverseDocumentFrequency } from "./sparse.js";
import { type ScoredRow, TopK } from "./top-k.js";

export interface Bm25Options {
  /** @default English words, Lucene's stop words, Porter's stems */
  readonly analyzer?: Analyzer;
  /** @default 0.9 */
  readonly k1?: number;
  /** @default 0.4 */
  readonly b?: number;
}

export interface LexicalSearchOptions {
  /** How many rows to return, at least 1. */
  readonly k: number;
  /** How many of the best to leave out first. @default 0 */
  readonly offset?: number;
  /** Asked only of rows that would be returned. @default every row */
  readonly accept?: (row: number) => boolean;
}

/** Deleted documents cost time and memory until they are this many and a quarter of all; then the lists are packed. */
const PACK_FROM = 1024;

/** A row whose terms are in the postings, and that isn't there yet. */
export interface StagedRow {
  readonly row: number;
  readonly document: number;
  readonly length: number;
}

/**
 * score(q, d) = Σ over the terms of q, as often as q says them:
 * ln(1 + (N - n + 0.5) / (n + 0.5)) · count · (k1 + 1) / (count + k1 · (1 - b + b · length / averageLength)).
 *
 * What changes and what doesn't: N (documents that have terms) and n (those with this term) are always those of the
 * moment, deletes included, exactly as a Qdrant server computes its `idf` modifier. The average length is live while
 * an index is built and fixed by `freeze()`, because on a server it is baked into every stored weight: documents that
 * arrive later are weighed by the same average in both engines, and a new generation takes a new one.
 *
 * @from Robertson & Walker 1994; the inverse document frequency and the default k1 and b are Lucene's and Anserini's
 */
export class Bm25Index {
  readonly analyzer: Analyzer;
  readonly k1: number;
  readonly b: number;
  #vocabulary = new Map<string, number>();
  #postings = new Postings();
  /** Of a document, by its number: its length (0 once deleted) and its row. Documents are numbered as they come. */
  #lengths: Uint32Array = new Uint32Array(1024);
  #rows: Uint32Array = new Uint32Array(1024);
  #documents = 0;
  /** Of a row: its document's number + 1, or 0. */
  #documentOf: Uint32Array = new Uint32Array(1024);
  #live = 0;
  #withTerms = 0;
  #totalLength = 0;
  #frozenAverage: number | undefined;
  #scores = new Float64Array(0);

  constructor(options: Bm25Options = {}) {
    this.analyzer = options.analyzer ?? createAnalyzer();
    this.k1 = options.k1 ?? 0.9;
    this.b = options.b ?? 0.4;
    checkParameters("Bm25Index", { k1: this.k1, b: this.b, averageLength: 1 });
  }

  /** Opens what `toBytes` wrote. @throws CorruptFileError, or InvalidInputError for another analyzer */
  static fromBytes(bytes: Uint8Array, options: { analyzer?: Analyzer; path?: string } = {}): Bm25Index {
    const analyzer = options.analyzer ?? createAnalyzer();
    const state = decodeState(bytes, options.path ?? "the lexical index");
    if (state.analyzerId !== analyzer.id) {
      throw new InvalidInputError(
        `Bm25Index.fromBytes: these terms were made by the analyzer "${state.analyzerId}", got "${analyzer.id}". Open the index with its own analyzer.`,
      );
    }
    const index = new Bm25Index({ analyzer, k1: state.k1, b: state.b });
    index.#frozenAverage = state.averageLength;
    index.#restore(state);
    return index;
  }

  /** Number of rows held, those without any term included. */
  get size(): number {
    return this.#live;
  }

  /** Bytes of the arrays; the vocabulary's strings (roughly 100 bytes a term) come on top. */
  get arrayBytes(): number {
    return (
      this.#postings.bytes +
      this.#lengths.byteLength +
      this.#rows.byteLength +
      this.#documentOf.byteLength +
      this.#scores.byteLength
    );
  }

  /** The parameters in force; `averageLength` moves with the documents until `freeze()`. */
  get parameters(): Bm25Parameters {
    const averageLength = this.#frozenAverage ?? this.liveAverageLength;
    return { k1: this.k1, b: this.b, averageLength };
  }

  /**
   * Fixes the average length for this generation: today's, or one measured elsewhere. Without documents there is none
   * yet, and it goes on moving.
   *
   * @throws InvalidInputError
   */
  freeze(averageLength?: number): void {
    if (averageLength === undefined && this.#withTerms === 0) return;
    averageLength ??= this.parameters.averageLength;
    checkParameters("Bm25Index.freeze", { k1: this.k1, b: this.b, averageLength });
    this.#frozenAverage = averageLength;
  }

  /** Whether the average length is fixed. */
  get isFrozen(): boolean {
    return this.#frozenAverage !== undefined;
  }

  /** The average length of the documents that are there now, whatever is frozen. */
  get liveAverageLength(): number {
    return this.#withTerms === 0 ? 1 : this.#totalLength / this.#withTerms;
  }

  has(row: number): boolean {
    return (this.#documentOf[row] ?? 0) > 0;
  }

  /** Adds the text of a row, or replaces it. @throws InvalidInputError unless row is a whole number from 0 to 2^28 - 1 */
  upsert(row: number, text: string): void {
    if (!Number.isSafeInteger(row) || row < 0 || row >= LARGEST_ROW) {
      throw new InvalidInputError(
        `Bm25Index.upsert: row must be a whole number from 0 to ${LARGEST_ROW - 1}, got ${row}.`,
      );
    }
    this.upsertTerms(row, countTerms(this.analyzer, text));
  }

  /** `upsert` of a text whose terms `countTerms` has counted with this index's analyzer. */
  upsertTerms(row: number, terms: TermCounts): void {
    this.delete(row);
    this.admit([this.stageTerms(row, terms)]);
  }

  /** Takes in the terms of a row that isn't there. No search sees them, nor counts them, before `admit`. */
  stageTerms(row: number, { counts, length }: TermCounts): StagedRow {
    if (this.#documents === this.#lengths.length) {
      this.#lengths = resized(this.#lengths, Math.max(1024, this.#documents * 2));
      this.#rows = resized(this.#rows, this.#lengths.length);
    }
    const document = this.#documents++;
    // As of a row that was deleted: one that is never admitted goes with these.
    this.#lengths[document] = 0;
    this.#rows[document] = row;
    for (const [term, count] of counts) {
      const known = this.#vocabulary.get(term);
      const number = known ?? this.#postings.addTerm();
      if (known === undefined) this.#vocabulary.set(term, number);
      this.#postings.append(number, document, count);
    }
    return { row, document, length };
  }

  /** Lets rows be found, all at once: those staged since the last deletion. */
  admit(staged: readonly StagedRow[]): void {
    for (const { row, document, length } of staged) {
      if (this.has(row) || this.#rows[document] !== row) throw internal(`row ${row} can't be admitted`);
      if (row >= this.#documentOf.length) {
        this.#documentOf = resized(this.#documentOf, Math.max(row + 1, this.#documentOf.length * 2));
      }
      this.#lengths[document] = length;
      this.#documentOf[row] = document + 1;
      this.#live++;
      this.#totalLength += length;
      if (length > 0) this.#withTerms++;
    }
  }

  /** Removes a row. @returns whether it was there */
  delete(row: number): boolean {
    const document = (this.#documentOf[row] ?? 0) - 1;
    if (document < 0) return false;
    this.#documentOf[row] = 0;
    this.#live--;
    this.#totalLength -= this.#lengths[document]!;
    if (this.#lengths[document]! > 0) this.#withTerms--;
    this.#lengths[document] = 0;
    const dead = this.#documents - this.#live;
    if (dead >= PACK_FROM && dead * 3 >= this.#live) this.pack();
    return true;
  }

  /**
   * The inverse document frequencies of a query's words, as often as it says them: times k1 + 1, no row scores more.
   * 0 where no row has any of them.
   */
  frequencyMass(query: string): number {
    const lengths = this.#lengths;
    const allLive = this.#live === this.#documents;
    let mass = 0;
    for (const [term, said] of countTerms(this.analyzer, query).counts) {
      const number = this.#vocabulary.get(term);
      if (number === undefined) continue;
      let containing = this.#postings.count(number);
      if (!allLive) {
        const { count, documents } = this.#postings.read(number);
        for (let i = 0; i < count; i++) if (lengths[documents[i]!] === 0) containing--;
      }
      if (containing > 0) mass += said * inverseDocumentFrequency(this.#withTerms, containing);
    }
    return mass;
  }

  /** The best rows for a query, best first; rows that share no term with it are absent. Equal scores: smaller row first. */
  search(query: string, { k, offset = 0, accept }: LexicalSearchOptions): ScoredRow[] {
    if (!Number.isSafeInteger(k) || k < 1)
      throw new InvalidInputError(`Bm25Index.search: k must be a whole number from 1, got ${k}.`);
    if (!Number.isSafeInteger(offset) || offset < 0) {
      throw new InvalidInputError(`Bm25Index.search: offset must be a whole number from 0, got ${offset}.`);
    }
    const lengths = this.#lengths;
    const rows = this.#rows;
    if (this.#scores.length < this.#documents) this.#scores = new Float64Array(lengths.length);
    const scores = this.#scores; // all 0 between searches
    const { k1, b, averageLength } = this.parameters;
    const [base, slope] = [k1 * (1 - b), (k1 * b) / averageLength];
    const allLive = this.#live === this.#documents;
    for (const [term, said] of countTerms(this.analyzer, query).counts) {
      const number = this.#vocabulary.get(term);
      if (number === undefined) continue;
      const { count, documents, frequencies } = this.#postings.read(number);
      let containing = count;
      if (!allLive) for (let i = 0; i < count; i++) if (lengths[documents[i]!] === 0) containing--;
      const weight = said * (k1 + 1) * inverseDocumentFrequency(this.#withTerms, containing);
      for (let i = 0; i < count; i++) {
        const document = documents[i]!;
        const length = lengths[document]!;
        if (length === 0) continue;
        const frequency = frequencies[i]!;
        scores[document] = scores[document]! + (weight * frequency) / (frequency + base + slope * length);
      }
    }
    const best = new TopK(k + offset);
    let failure: unknown;
    for (let document = 0; document < this.#documents; document++) {
      const score = scores[document]!;
      if (score === 0) continue;
      scores[document] = 0;
      const row = rows[document]!;
      if (failure !== undefined || !best.admits(row, score)) continue;
      try {
        if (accept === undefined || accept(row)) best.push(row, score);
      } catch (error) {
        failure = error ?? new Error("accept threw nothing"); // go on clearing: the scores are shared by all searches
      }
    }
    if (failure !== undefined) throw failure;
    return best.sorted().slice(offset);
  }

  /** Drops deleted documents and unused terms from the lists: 0.1 to 1 s for 100,000 passages. Deletes call it in time. */
  pack(): void {
    this.#restore(this.#packedState());
  }

  /**
   * The index as bytes, with a checksum; the same documents in the same order give the same bytes. There, `renumber`
   * gives rows other numbers, in the same order, and `averageLength` is another frozen one.
   */
  toBytes(changes: { renumber?: (row: number) => number; averageLength?: number } = {}): Uint8Array {
    const state = this.#packedState();
    const { renumber, averageLength = state.averageLength } = changes;
    if (!renumber) this.#restore(state);
    return encodeState({ ...state, rows: renumber ? state.rows.map(renumber) : state.rows, averageLength });
  }

  #packedState(): Bm25State {
    const renumber = new Int32Array(this.#documents).fill(-1);
    const lengths = new Uint32Array(this.#live);
    const rows = new Uint32Array(this.#live);
    let next = 0;
    for (let document = 0; document < this.#documents; document++) {
      const row = this.#rows[document]!;
      if (this.#documentOf[row] !== document + 1) continue;
      lengths[next] = this.#lengths[document]!;
      rows[next] = row;
      renumber[document] = next++;
    }
    const names = [...this.#vocabulary.keys()]; // a Map keeps the order of insertion, which is the terms' numbers
    const terms: string[] = [];
    const postings = this.#postings.packed(renumber, (before) => terms.push(names[before]!));
    const { k1, b } = this;
    return { analyzerId: this.analyzer.id, k1, b, averageLength: this.#frozenAverage, lengths, rows, terms, postings };
  }

  #restore({ lengths, rows, terms, postings }: Bm25State): void {
    this.#lengths = lengths;
    this.#rows = rows;
    this.#documents = this.#live = rows.length;
    this.#vocabulary = new Map();
    for (const [number, term] of terms.entries()) this.#vocabulary.set(term, number);
    this.#postings = new Postings(postings);
    this.#scores = new Float64Array(0);
    this.#withTerms = this.#totalLength = 0;
    this.#documentOf.fill(0);
    const largest = rows.reduce((most, row) => Math.max(most, row), -1);
    if (largest >= this.#documentOf.length) this.#documentOf = new Uint32Array(largest + 1);
    rows.forEach((row, document) => {
      this.#documentOf[row] = document + 1;
      this.#totalLength += lengths[document]!;
      if (lengths[document]! > 0) this.#withTerms++;
    });
  }
}

/**
 * Rows and a graph over them: the graph finds candidates, the rows score them. The graph is built in slices behind the
 * rows; until it holds all of them, and where it would not pay, all rows are compared. Runs in the worker; knows no messages.
 */
import { createHash } from "node:crypto";
import { RowTable } from "../exact/row-table.js";
import { rescore } from "../rescore.js";
import type { Neighbour } from "../vector-index.js";
import { type CachedGraph, cachedFileFault, readGraphManifest, writeGraphCache } from "./graph-cache.js";
import { graphFileFault } from "./graph-file.js";
import type { NativeGraph, NewGraph } from "./load.js";
import type { GraphReport, WorkerSetup } from "./protocol.js";

/** Marked points that are kept, at least; beyond, and more than there are rows, the graph is built anew. */
const MOST_MARKED = 1024;
/** A cache file is written again when there are this many times as many rows. */
const GROWTH = 1.1;
/** Candidates beyond k that are scored, for rounding and for equal rows. */
const MARGIN = 32;
/** Rows read at once for a digest. */
const DIGEST_ROWS = 4096;

export class GraphTable {
  readonly #options: WorkerSetup;
  readonly #newGraph: NewGraph;
  readonly #rows: RowTable;
  #graph: NativeGraph | undefined;
  #capacity = 0;
  /** The graph's own labels are positions in this list: a replaced row gets a new one, for hnswlib can't take one out. */
  #labels: number[] = [];
  readonly #positions = new Map<number, number>();
  /** Positions below this one are in the graph, but for those replaced before they were added. */
  #added = 0;
  #marked = 0;
  /** What the cache file holds, while it may still turn out to hold the rows that come in. */
  #expected: CachedGraph | undefined;
  #source: GraphReport["source"] = "built";
  #reason: string | undefined;
  /** Rows in the cache file that is known to match. */
  #cached = 0;

  constructor(newGraph: NewGraph, options: WorkerSetup) {
    this.#options = options;
    this.#newGraph = newGraph;
    this.#rows = new RowTable(options.dimensions, "float32");
    if (options.cacheFile === undefined) return;
    const found = readGraphManifest(options.cacheFile, options);
    if (typeof found === "string") this.#reason = found;
    else this.#expected = found;
  }

  get count(): number {
    return this.#rows.count;
  }

  /** Whether the graph holds all rows. */
  get complete(): boolean {
    return this.#added === this.#labels.length;
  }

  /** Whether `work` has something to do before more rows, a search or `ready` come. */
  get busy(): boolean {
    return !this.complete && this.#expected === undefined;
  }

  upsert(labels: Uint32Array, vectors: Float32Array): void {
    this.#rows.upsert(labels, vectors);
    for (const label of labels) {
      this.#forget(label);
      this.#positions.set(label, this.#labels.push(label) - 1);
    }
    if (this.#expected && this.#labels.length >= this.#expected.rows) this.#readCache(this.#expected);
    this.#compact();
  }

  delete(labels: Uint32Array): number {
    for (const label of labels) this.#forget(label);
    const removed = this.#rows.delete(labels);
    this.#compact();
    return removed;
  }

  read(labels: Uint32Array): Float32Array<ArrayBuffer> | undefined {
    return this.#rows.read(labels);
  }

  /** No more rows are awaited for the cache file: what is there is searched. */
  settle(): void {
    if (!this.#expected) return;
    this.#refuseCache(`it holds ${this.#expected.rows} rows, the index ${this.#labels.length}`);
  }

  search(query: Float32Array, k: number, allowed: Uint8Array | undefined): Neighbour[] {
    this.settle();
    const found = this.#byGraph(query, k, allowed) ?? [...this.#rows.search(query, k, allowed).labels];
    return rescore(query, found, this.#rows.read(Uint32Array.from(found)) as Float32Array, k);
  }

  /** Adds rows to the graph for so many milliseconds, one at least. */
  work(milliseconds: number): void {
    const end = performance.now() + milliseconds;
    while (!this.complete) {
      const position = this.#added;
      const label = this.#labels[position] as number;
      if (this.#positions.get(label) === position)
        this.#graphFor(position + 1).addPoint(this.#direction(label), position);
      this.#added++;
      if (performance.now() >= end) return;
    }
  }

  /** Of the graph that is complete now; writes the cache file where that pays. */
  report(): GraphReport {
    const [rows, source, reason] = [this.count, this.#source, this.#reason];
    const { cacheFile } = this.#options;
    const whole = rows > 0 && this.#labels.length === rows && this.#marked === 0;
    let fault: string | undefined;
    let saved = false;
    if (cacheFile !== undefined && whole && rows >= GROWTH * this.#cached) {
      try {
        const digest = this.#digest(rows);
        writeGraphCache(cacheFile, this.#options, { count: rows, digest }, (path) => this.#graph?.writeIndexSync(path));
        this.#cached = rows;
        saved = true;
      } catch (error) {
        fault = (error as Error).message;
      }
    }
    return { rows, source, reason, saved, fault };
  }

  /** Labels of about the nearest rows; undefined where comparing all of them is as quick, or the graph finds too few. */
  #byGraph(query: Float32Array, k: number, allowed: Uint8Array | undefined): number[] | undefined {
    const { ef, scanShare } = this.#options;
    const few = allowed === undefined ? this.count : bitsOf(allowed);
    if (!this.complete || !this.#graph || few <= k) return undefined;
    // Of the candidates as many are allowed as of all rows, if the filter has nothing to do with the query.
    const wanted = Math.max(ef, Math.ceil((1.2 * k * this.count) / few) + 16);
    if (wanted > scanShare * this.count) return undefined;
    this.#graph.setEf(wanted);
    const { neighbors } = this.#graph.searchKnn(unit(query), Math.min(wanted, this.#capacity));
    const labels = neighbors.map((position) => this.#labels[position] as number);
    const found = allowed === undefined ? labels : labels.filter((label) => hasBit(allowed, label));
    // Nearest first, by float32 products: those that can still be among the k come before these.
    return found.length >= Math.min(k, this.count) ? found.slice(0, k + MARGIN) : undefined;
  }

  /** Takes the row of a label out of the graph; nothing where there is none. */
  #forget(label: number): void {
    const position = this.#positions.get(label);
    if (position === undefined) return;
    if (this.#expected) this.#refuseCache("rows were replaced or removed before all of its rows were there");
    this.#positions.delete(label);
    if (position >= this.#added) return;
    this.#graph?.markDelete(position);
    this.#marked++;
  }

  /** Throws the graph away where it holds more marked points than rows. */
  #compact(): void {
    if (this.#labels.length - this.count <= Math.max(MOST_MARKED, this.count)) return;
    this.#labels = this.#labels.filter((label, position) => this.#positions.get(label) === position);
    for (const [position, label] of this.#labels.entries()) this.#positions.set(label, position);
    this.#graph = undefined;
    this.#source = "built";
    [this.#capacity, this.#added, this.#marked] = [0, 0, 0];
  }

  #graphFor(points: number): NativeGraph {
    const { dimensions, m, efConstruction, seed } = this.#options;
    if (!this.#graph) {
      this.#graph = this.#newGraph(dimensions);
      this.#capacity = Math.max(1024, this.#labels.length);
      this.#graph.initIndex(this.#capacity, m, efConstruction, seed);
    }
    if (points > this.#capacity) {
      this.#capacity = Math.max(points, 2 * this.#capacity);
      this.#graph.resizeIndex(this.#capacity);
    }
    return this.#graph;
  }

  #readCache(expected: CachedGraph): void {
    const found = this.#openCache(this.#options.cacheFile as string, expected);
    if (typeof found === "string") {
      this.#refuseCache(found);
      return;
    }
    this.#graph = found;
    // Its room may be larger; growing it once too often costs little.
    [this.#capacity, this.#added, this.#cached] = [expected.rows, expected.rows, expected.rows];
    this.#source = "cache";
    this.#expected = undefined;
  }

  /** The graph, or why it is not the one of these rows. */
  #openCache(path: string, expected: CachedGraph): NativeGraph | string {
    const { rows } = expected;
    const { dimensions, m } = this.#options;
    if (this.#digest(rows) !== expected.digest) return "it is of other rows";
    try {
      const vectorOf = (row: number): number[] => this.#direction(this.#labels[row] as number);
      const fault = cachedFileFault(path, expected) ?? graphFileFault(path, { rows, dimensions, m, vectorOf });
      if (fault !== undefined) return `it ${fault}`;
      const graph = this.#newGraph(dimensions);
      graph.readIndexSync(path);
      return graph;
    } catch (error) {
      return `it can't be read: ${(error as Error).message}`;
    }
  }

  #refuseCache(reason: string): void {
    this.#expected = undefined;
    this.#reason = reason;
  }

  /** Of labels and vectors of the first rows, in order of position. */
  #digest(count: number): string {
    const hash = createHash("sha256");
    for (let first = 0; first < count; first += DIGEST_ROWS) {
      const labels = Uint32Array.from(this.#labels.slice(first, Math.min(count, first + DIGEST_ROWS)));
      hash.update(labels);
      hash.update(this.#rows.read(labels) as Float32Array);
    }
    return hash.digest("hex");
  }

  #direction(label: number): number[] {
    return unit(this.#rows.read(Uint32Array.of(label)) as Float32Array);
  }
}

/** At length 1, as the plain array that hnswlib takes. */
function unit(vector: Float32Array): number[] {
  let squares = 0;
  for (const x of vector) squares += x * x;
  const scale = 1 / Math.sqrt(squares);
  return Array.from(vector, (x) => x * scale);
}

function hasBit(set: Uint8Array, label: number): boolean {
  return ((set[label >>> 3] ?? 0) & (1 << (label & 7))) !== 0;
}

function bitsOf(set: Uint8Array): number {
  let count = 0;
  for (let byte of set) for (; byte !== 0; byte &= byte - 1) count++;
  return count;
}

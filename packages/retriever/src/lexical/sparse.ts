/** BM25's formula, and its two halves as sparse vectors for Qdrant's `sparse_vectors: { bm25: { modifier: "idf" } }`. */
import { InvalidInputError } from "@cde-js/core";
import { type Analyzer, countTerms } from "./analyzer.js";

/** What a generation of an index freezes, so that documents added later are weighed like the first ones. */
export interface Bm25Parameters {
  /** How soon repetition stops counting, 0 or more. @default 0.9 */
  readonly k1: number;
  /** How much length counts against a document, from 0 to 1. @default 0.4 */
  readonly b: number;
  /** Mean number of terms of the documents that have any, above 0. */
  readonly averageLength: number;
}

/** Indices are unsigned 32-bit hashes of the terms, ascending and distinct. */
export interface SparseVector {
  readonly indices: number[];
  readonly values: number[];
}

/** The inverse document frequency, ln(1 + (N - n + 0.5) / (n + 0.5)): above 0, Lucene's and Qdrant's. */
export function inverseDocumentFrequency(documents: number, containing: number): number {
  return Math.log(1 + (documents - containing + 0.5) / (containing + 0.5));
}

/** The document's half of a term's score: count · (k1 + 1) / (count + k1 · (1 - b + b · length / averageLength)). */
export function termWeight(count: number, length: number, { k1, b, averageLength }: Bm25Parameters): number {
  return (count * (k1 + 1)) / (count + k1 * (1 - b + (b * length) / averageLength));
}

/**
 * The document side: term weights without the inverse document frequency, which the server multiplies in. The dot
 * product with `querySparseVector` then is the score of `Bm25Index`, as long as no two terms share a hash (among
 * 200,000 terms about five pairs do; they count as one term).
 */
export function sparseVector(analyzer: Analyzer, text: string, parameters: Bm25Parameters): SparseVector {
  checkParameters("sparseVector", parameters);
  const { counts, length } = countTerms(analyzer, text);
  return hashed(counts, (count) => termWeight(count, length, parameters));
}

/** The query side: how often the query says each term. */
export function querySparseVector(analyzer: Analyzer, query: string): SparseVector {
  return hashed(countTerms(analyzer, query).counts, (count) => count);
}

/** FNV-1a over UTF-16 units, then murmur3's finaliser; stored in Qdrant collections, so it never changes. */
export function hashTerm(term: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < term.length; i++) h = Math.imul(h ^ term.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

export function checkParameters(operation: string, { k1, b, averageLength }: Bm25Parameters): void {
  if (!(k1 >= 0 && k1 < Number.POSITIVE_INFINITY))
    throw new InvalidInputError(`${operation}: k1 must be 0 or more, got ${k1}.`);
  if (!(b >= 0 && b <= 1)) throw new InvalidInputError(`${operation}: b must be from 0 to 1, got ${b}.`);
  if (!(averageLength > 0 && averageLength < Number.POSITIVE_INFINITY)) {
    throw new InvalidInputError(`${operation}: averageLength must be above 0, got ${averageLength}.`);
  }
}

function hashed(counts: Map<string, number>, weigh: (count: number) => number): SparseVector {
  const byHash = new Map<number, number>();
  for (const [term, count] of counts) {
    const hash = hashTerm(term);
    byHash.set(hash, (byHash.get(hash) ?? 0) + count);
  }
  const entries = [...byHash].sort(([a], [b]) => a - b);
  return { indices: entries.map(([hash]) => hash), values: entries.map(([, count]) => weigh(count)) };
}

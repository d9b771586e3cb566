/** Similarity of pairs of texts: how well the cosines of their vectors agree with the scores that people gave. */
import type { Embedder } from "../encoder/embedder.js";
import { InvalidInputError } from "../errors.js";

/** Two texts and how alike they are, on any scale. */
export interface ScoredPair {
  readonly sentence1: string;
  readonly sentence2: string;
  readonly score: number;
}

export interface SimilarityScores {
  readonly pairs: number;
  /** Correlation of the ranks, −1 to 1; the field's figure. */
  readonly spearman: number;
  /** Correlation of the values, −1 to 1. */
  readonly pearson: number;
  /** Of the pairs, in their order. */
  readonly cosines: readonly number[];
}

export interface EvaluateSimilarityOptions {
  /** How first and second texts are embedded; "queries" and "documents" for pairs of a question and a passage. */
  readonly as?: readonly [first: "queries" | "documents", second: "queries" | "documents"];
  readonly signal?: AbortSignal;
}

/** Embeds both sides, by default as documents, and correlates their cosines with the scores. */
export async function evaluateSimilarity(
  embedder: Embedder,
  pairs: readonly ScoredPair[],
  { as: [first, second] = ["documents", "documents"], signal }: EvaluateSimilarityOptions = {},
): Promise<SimilarityScores> {
  const embed = async (side: "queries" | "documents", texts: readonly string[]) => {
    const options = signal ? { signal } : {};
    const of = side === "queries" ? embedder.embedQueries(texts, options) : embedder.embedDocuments(texts, options);
    return (await of).vectors;
  };
  const left = await embed(
    first,
    pairs.map(({ sentence1 }) => sentence1),
  );
  const right = await embed(
    second,
    pairs.map(({ sentence2 }) => sentence2),
  );
  // Of unit vectors.
  const cosines = left.map((vector, i) => vector.reduce((sum, value, k) => sum + value * right[i]![k]!, 0));
  const scores = pairs.map(({ score }) => score);
  return { pairs: pairs.length, spearman: spearman(cosines, scores), pearson: pearson(cosines, scores), cosines };
}

/** Pearson's correlation of the ranks; equal values share the mean of their ranks. Errors as `pearson`. */
export function spearman(a: readonly number[], b: readonly number[]): number {
  checkPairs("spearman", a, b);
  return correlation("spearman", ranks(a), ranks(b));
}

/**
 * The linear correlation, −1 to 1. Raises InvalidInputError for lists of different length, fewer than two values, values
 * that aren't finite, and where all values of a list are equal, since nothing can vary with them.
 */
export function pearson(a: readonly number[], b: readonly number[]): number {
  checkPairs("pearson", a, b);
  return correlation("pearson", a, b);
}

function correlation(operation: string, a: readonly number[], b: readonly number[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  let [both, ofA, ofB] = [0, 0, 0];
  a.forEach((value, i) => {
    const [x, y] = [value - meanA, b[i]! - meanB];
    both += x * y;
    ofA += x * x;
    ofB += y * y;
  });
  if (ofA === 0 || ofB === 0)
    throw new InvalidInputError(
      `${operation}: all values of the ${ofA === 0 ? "first" : "second"} list are equal, so there is no correlation.`,
    );
  // Rounding must not lead out of the range.
  return Math.min(1, Math.max(-1, both / Math.sqrt(ofA * ofB)));
}

function checkPairs(operation: string, a: readonly number[], b: readonly number[]): void {
  if (a.length !== b.length || a.length < 2)
    throw new InvalidInputError(
      `${operation}: ${a.length} and ${b.length} values; give equally many, and at least two.`,
    );
  const position = a.findIndex((value, i) => !Number.isFinite(value) || !Number.isFinite(b[i]));
  if (position >= 0)
    throw new InvalidInputError(`${operation}: pair ${position} is ${a[position]} and ${b[position]}.`, { position });
}

/** From 1; equal values get the mean of the ranks that they take. */
function ranks(values: readonly number[]): number[] {
  const order = [...values.keys()].sort((i, j) => values[i]! - values[j]!);
  const found = new Array<number>(values.length);
  for (let start = 0; start < order.length; ) {
    let end = start + 1;
    while (end < order.length && values[order[end]!] === values[order[start]!]) end++;
    for (let at = start; at < end; at++) found[order[at]!] = (start + 1 + end) / 2;
    start = end;
  }
  return found;
}

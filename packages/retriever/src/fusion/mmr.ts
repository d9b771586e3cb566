/** Maximal marginal relevance: picks results that are relevant and unlike those already picked. */
import { InvalidInputError } from "@cde-js/core";
import type { Ranked } from "./fusion.js";

export interface MmrCandidate<Id extends string | number> extends Ranked<Id> {
  /** Of any length but zero; similarity between candidates is the cosine. */
  readonly vector: Float32Array;
}

/**
 * Picks up to `k` candidates, each time the one with the largest
 * lambda · relevance - (1 - lambda) · (largest cosine to one already picked). The first pick is the most relevant.
 * The score returned is the relevance, as in Qdrant; its `diversity` is 1 - lambda.
 *
 * @param lambda 1 is pure relevance, 0 pure diversity (LangChain's direction)
 * @from Carbonell & Goldstein 1998
 */
export function maximalMarginalRelevance<Id extends string | number>(
  candidates: readonly MmrCandidate<Id>[],
  { lambda, k }: { lambda: number; k: number },
): Ranked<Id>[] {
  if (!(lambda >= 0 && lambda <= 1)) {
    throw new InvalidInputError(
      `maximalMarginalRelevance: lambda must be from 0 (diversity) to 1 (relevance), got ${lambda}.`,
    );
  }
  if (!Number.isSafeInteger(k) || k < 1) {
    throw new InvalidInputError(`maximalMarginalRelevance: k must be a whole number from 1, got ${k}.`);
  }
  const norms = candidates.map(({ vector }, i) => {
    const norm = Math.sqrt(dot(vector, vector));
    if (vector.length === candidates[0]?.vector.length && norm > 0 && norm < Number.POSITIVE_INFINITY) return norm;
    throw new InvalidInputError(
      `maximalMarginalRelevance: candidate ${i} has ${vector.length} dimensions and length ${norm}; all need ${candidates[0]?.vector.length} dimensions and a finite length above 0.`,
      { position: i },
    );
  });
  // The largest cosine to a pick so far; the first pick has none and goes by relevance alone, also when lambda is 0.
  const redundancy = new Float64Array(candidates.length).fill(Number.NEGATIVE_INFINITY);
  const left = new Set(candidates.keys());
  const picked: Ranked<Id>[] = [];
  while (picked.length < k && left.size > 0) {
    let best = -1;
    let bestValue = Number.NEGATIVE_INFINITY;
    for (const i of left) {
      const relevance = candidates[i]!.score;
      const value = picked.length === 0 ? relevance : lambda * relevance - (1 - lambda) * redundancy[i]!;
      if (best < 0 || value > bestValue) [best, bestValue] = [i, value];
    }
    left.delete(best);
    const { id, score, vector } = candidates[best]!;
    picked.push({ id, score });
    for (const i of left) {
      const cosine = dot(vector, candidates[i]!.vector) / (norms[best]! * norms[i]!);
      redundancy[i] = Math.max(redundancy[i]!, cosine);
    }
  }
  return picked;
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

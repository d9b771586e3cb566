/**
 * The weight of a mix for one query, from how far its two rankings fall. A ranking whose scores fall steeply knows what it
 * is looking for; one that falls little has found a hundred passages that are all the same to it.
 */
import type { Ranked } from "./fusion.js";

/** What is read from a query's rankings, each cut at its hundredth passage. */
export interface RankingFalls {
  /** How far the cosine falls from the first passage to the hundredth. */
  readonly dense: number;
  /** The best BM25 score beside what the query's words could give at most, up to a constant: its inverse document frequencies. */
  readonly reached: number;
  /** The part of the best BM25 score that is gone at the hundredth passage, from 0 to 1; 1 where fewer share a word. */
  readonly lexical: number;
}

/** Passages of a ranking that are looked at. */
export const DEPTH = 100;
/** The weight where nothing better is known. */
export const EVEN = 0.5;
/** Falls are looked at as logarithms; below this they are all alike. */
const LEAST_FALL = 1e-3;

/**
 * ln(w / (1 - w)) = intercept + the sum of coefficient · ln(fall), four fifths of what fits best, so that the weight stays
 * nearer to even than the fit would have it. Printed by `bench/fusion.mjs`, of 19 corpora with and without a spectral
 * context.
 */
export const WEIGHT_RULE = { intercept: 0.51, dense: 0.84, reached: -0.43, lexical: -0.8 } as const;

/** Undefined where there is nothing to weigh: fewer than a hundred passages by meaning, or none that shares a word. */
export function rankingFalls(
  dense: readonly Ranked[],
  lexical: readonly Ranked[],
  frequencyMass: number,
): RankingFalls | undefined {
  const [first, last] = [dense[0], dense[DEPTH - 1]];
  const best = lexical[0];
  if (!first || !last || !best || best.score <= 0 || frequencyMass <= 0) return undefined;
  const hundredth = lexical[DEPTH - 1]?.score ?? 0;
  return {
    dense: first.score - last.score,
    reached: best.score / frequencyMass,
    lexical: (best.score - hundredth) / best.score,
  };
}

/** The weight of the dense ranking, between 0 and 1. `scale` stretches its falls to those that the rule was fitted on. */
export function queryWeight(falls: RankingFalls, scale = 1): number {
  const of = (fall: number): number => Math.log(Math.max(fall, LEAST_FALL));
  const { intercept, dense, reached, lexical } = WEIGHT_RULE;
  const sum = intercept + dense * of(falls.dense * scale) + reached * of(falls.reached) + lexical * of(falls.lexical);
  return 1 / (1 + Math.exp(-sum));
}

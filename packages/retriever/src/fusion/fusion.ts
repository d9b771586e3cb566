/** Fuses ranked lists: reciprocal ranks and score distributions as Qdrant does, and a weighted mix of scaled scores. */
import { InvalidInputError } from "@cde-js/core";

/** One place of a ranked list. Lists are ordered best first; higher scores are better. */
export interface Ranked<Id extends string | number = string | number> {
  readonly id: Id;
  readonly score: number;
}

/** Two rankings made one. */
export interface Fused<Id extends string | number = number> {
  readonly ranked: Ranked<Id>[];
  /** Of the first ranking, where they were mixed by weight. */
  readonly weight?: number;
}

/**
 * Reciprocal rank fusion: a list gives the document at rank r (from 0) 1 / (k + r), as in Qdrant, so the first place
 * scores 1 / k. A weight w stretches a list's ranks: 1 / (k - 1 + (r + 1) / w).
 *
 * @param k at least 1; required, because the usual value (we suggest 60) and Qdrant's default (2) differ
 * @param weights one a list, 0 or more @default 1 each
 * @from Cormack et al. 2009; the ranks from 0 and the weights are Qdrant's
 */
export function reciprocalRankFusion<Id extends string | number>(
  lists: readonly (readonly Ranked<Id>[])[],
  { k, weights }: { k: number; weights?: readonly number[] },
): Ranked<Id>[] {
  if (!Number.isSafeInteger(k) || k < 1) {
    throw new InvalidInputError(
      `reciprocalRankFusion: k must be a whole number from 1, got ${k}. 60 is usual; Qdrant's default is 2.`,
    );
  }
  if (weights !== undefined && weights.length !== lists.length) {
    throw new InvalidInputError(
      `reciprocalRankFusion: ${lists.length} lists need as many weights, got ${weights.length}.`,
    );
  }
  const bad = weights?.findIndex((weight) => !(weight >= 0 && weight < Number.POSITIVE_INFINITY)) ?? -1;
  if (bad >= 0) {
    throw new InvalidInputError(
      `reciprocalRankFusion: weights must be 0 or more, weights[${bad}] is ${weights?.[bad]}.`,
      { position: bad },
    );
  }
  return sumScores("reciprocalRankFusion", lists, (list, l) => {
    const weight = weights?.[l] ?? 1;
    return list.map((_, rank) => (weight === 0 ? 0 : 1 / (k - 1 + (rank + 1) / weight)));
  });
}

/**
 * Distribution-based score fusion: each list's scores are scaled so that mean - 3σ is 0 and mean + 3σ is 1 (σ with
 * n - 1), then added. A list whose scores are all equal gives 0.5 each. Qdrant's `dbsf`.
 */
export function distributionBasedScoreFusion<Id extends string | number>(
  lists: readonly (readonly Ranked<Id>[])[],
): Ranked<Id>[] {
  return sumScores("distributionBasedScoreFusion", lists, (list) => {
    const mean = list.reduce((sum, { score }) => sum + score, 0) / list.length;
    const variance = list.reduce((sum, { score }) => sum + (score - mean) ** 2, 0) / (list.length - 1);
    const sigma = Math.sqrt(variance);
    return list.map(({ score }) => (sigma > 0 ? (score - mean + 3 * sigma) / (6 * sigma) : 0.5));
  });
}

/**
 * The mix of scaled scores: weight · first + (1 - weight) · second, each list scaled to [0, 1] by its own minimum and
 * maximum. A document absent from a list scores 0 there; a list whose scores are all equal gives 1 each. The
 * minimum depends on where the lists are cut; the reference figures take the top 100 of each.
 *
 * @param weight of the first list, from 0 to 1
 */
export function mix<Id extends string | number>(
  first: readonly Ranked<Id>[],
  second: readonly Ranked<Id>[],
  { weight }: { weight: number },
): Ranked<Id>[] {
  if (!(weight >= 0 && weight <= 1)) throw new InvalidInputError(`mix: weight must be from 0 to 1, got ${weight}.`);
  return sumScores("mix", [first, second], (list, l) => {
    const share = l === 0 ? weight : 1 - weight;
    let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (const { score } of list) {
      low = Math.min(low, score);
      high = Math.max(high, score);
    }
    return list.map(({ score }) => share * (high > low ? (score - low) / (high - low) : 1));
  });
}

/** Adds what each list gives its documents. Equal sums keep the order of first appearance, so ties don't wander. */
function sumScores<Id extends string | number>(
  operation: string,
  lists: readonly (readonly Ranked<Id>[])[],
  scale: (list: readonly Ranked<Id>[], l: number) => number[],
): Ranked<Id>[] {
  const sums = new Map<Id, number>();
  lists.forEach((list, l) => {
    const seen = new Set<Id>();
    const scores = scale(list, l);
    list.forEach(({ id, score }, rank) => {
      if (seen.has(id))
        throw new InvalidInputError(`${operation}: list ${l} holds ${JSON.stringify(id)} twice.`, { position: rank });
      if (!Number.isFinite(score)) {
        throw new InvalidInputError(
          `${operation}: list ${l} gives ${JSON.stringify(id)} the score ${score}; scores must be finite.`,
          { position: rank },
        );
      }
      seen.add(id);
      sums.set(id, (sums.get(id) ?? 0) + scores[rank]!);
    });
  });
  return [...sums].map(([id, score]) => ({ id, score })).sort((a, b) => b.score - a.score);
}

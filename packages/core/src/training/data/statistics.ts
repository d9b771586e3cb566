/** Counts of a pair set: how many pairs, different texts, and what was left out. */
import type { LeftOut, Made } from "./pair-files.js";

export interface DatasetStatistics {
  readonly name: string;
  readonly pairs: number;
  /** Different query texts, but for case, punctuation and white space. */
  readonly queries: number;
  /** Different positives. */
  readonly documents: number;
  /** Most pairs that one query text has: so many batches must each take one of them. */
  readonly mostPairsOfOneQuery: number;
  readonly mostPairsOfOneDocument: number;
  /** Different groups that pairs name; 0 where none does. */
  readonly groups: number;
  /** Hard negatives of the whole set's pairs, in all. */
  readonly negatives: number;
}

export interface PairStatistics {
  readonly pairs: number;
  /** Those with pairs. */
  readonly datasets: readonly DatasetStatistics[];
  readonly leftOut: LeftOut;
}

/** The part of a `PairSet` that is counted. */
interface Counted {
  readonly size: number;
  readonly datasets: readonly string[];
  positionsOf(dataset: string): Uint32Array;
  queryKey(position: number): number;
  documentKey(position: number): number;
  groupKey(position: number): number;
}

export function statisticsOf(pairs: Counted, made: Made): PairStatistics {
  const datasets = pairs.datasets.flatMap((name, number) => {
    const positions = pairs.positionsOf(name);
    if (positions.length === 0) return [];
    const runs = (key: (position: number) => number) => countRuns(Float64Array.from(positions, key));
    const queries = runs((position) => pairs.queryKey(position));
    const documents = runs((position) => pairs.documentKey(position));
    const groups = countRuns(
      Float64Array.from(positions, (position) => pairs.groupKey(position)).filter((key) => !Number.isNaN(key)),
    );
    return {
      name,
      pairs: positions.length,
      queries: queries.different,
      documents: documents.different,
      mostPairsOfOneQuery: queries.longest,
      mostPairsOfOneDocument: documents.longest,
      groups: groups.different,
      negatives: made.negatives[number] ?? 0,
    };
  });
  return { pairs: pairs.size, datasets, leftOut: made.leftOut };
}

/** Different values and the largest number of equal ones; sorts `values`. */
function countRuns(values: Float64Array): { different: number; longest: number } {
  values.sort();
  let [different, longest, start] = [0, 0, 0];
  for (let i = 1; i <= values.length; i++) {
    if (i < values.length && values[i] === values[i - 1]) continue;
    different++;
    longest = Math.max(longest, i - start);
    start = i;
  }
  return { different, longest };
}

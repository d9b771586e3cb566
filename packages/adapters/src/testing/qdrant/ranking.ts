/** Ranks by reading every point, by the formulas on paper. It shares no code with the product. */
export interface Scored {
  readonly id: number | string;
  readonly score: number;
}

/** Integers before UUIDs, each ascending: the order of scrolling. */
export function compareIds(a: number | string, b: number | string): number {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Highest first. Qdrant leaves the order of equal scores open; here the id decides. */
export function byScore(list: Scored[], descending = true): Scored[] {
  return list.sort((a, b) => (descending ? b.score - a.score : a.score - b.score) || compareIds(a.id, b.id));
}

export type Distance = "Cosine" | "Dot" | "Euclid" | "Manhattan";

export function similarity(distance: Distance, a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [dot, squares, absolute] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] as number, b[i] as number];
    dot += x * y;
    squares += (x - y) ** 2;
    absolute += Math.abs(x - y);
  }
  // Vectors of a cosine collection are stored at unit length.
  if (distance === "Cosine" || distance === "Dot") return dot;
  return distance === "Euclid" ? Math.sqrt(squares) : absolute;
}

/** As stored by a cosine collection. */
export function normalised(vector: readonly number[]): number[] {
  const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
  return vector.map((x) => Math.fround(length === 0 ? x : x / length));
}

export type Sparse = { readonly indices: readonly number[]; readonly values: readonly number[] };

/** Dot product over shared indices; undefined where there is none. */
export function sparseDot(a: Sparse, b: Sparse): number | undefined {
  let sum: number | undefined;
  a.indices.forEach((index, i) => {
    const at = b.indices.indexOf(index);
    if (at >= 0) sum = (sum ?? 0) + a.values[i]! * b.values[at]!;
  });
  return sum;
}

/** ln(1 + (N − n + 0.5) / (n + 0.5)) multiplied into a query's values; N counts the vectors of the population. */
export function withIdf(query: Sparse, population: readonly Sparse[]): Sparse {
  const values = query.indices.map((index, i) => {
    const n = population.filter(({ indices }) => indices.includes(index)).length;
    return query.values[i]! * Math.log(1 + (population.length - n + 0.5) / (n + 0.5));
  });
  return { indices: query.indices, values };
}

/** 1 / (k − 1 + (rank + 1) / weight), ranks from 0. */
export function rrf(lists: readonly (readonly Scored[])[], k: number, weights?: readonly number[]): Scored[] {
  const total = new Map<number | string, number>();
  lists.forEach((list, l) => {
    const weight = weights?.[l] ?? 1;
    list.forEach(({ id }, rank) => {
      const score = weight === 0 ? 0 : 1 / (k - 1 + (rank + 1) / weight);
      total.set(id, (total.get(id) ?? 0) + score);
    });
  });
  return byScore([...total].map(([id, score]) => ({ id, score })));
}

/** Each list scaled so that mean − 3σ is 0 and mean + 3σ is 1 (sample deviation), then added. */
export function dbsf(lists: readonly (readonly Scored[])[]): Scored[] {
  const total = new Map<number | string, number>();
  for (const list of lists) {
    const n = list.length;
    const mean = list.reduce((sum, { score }) => sum + score / n, 0);
    const deviation = n > 1 ? Math.sqrt(list.reduce((sum, { score }) => sum + (score - mean) ** 2, 0) / (n - 1)) : 0;
    for (const { id, score } of list) {
      const scaled = deviation === 0 ? 0.5 : (score - (mean - 3 * deviation)) / (6 * deviation);
      total.set(id, (total.get(id) ?? 0) + scaled);
    }
  }
  return byScore([...total].map(([id, score]) => ({ id, score })));
}

/** Greedy: the best of (1 − diversity) · relevance − diversity · (largest similarity to one picked). */
export function mmr(candidates: readonly Scored[], { diversity, limit, similarityOf }: MmrRequest): Scored[] {
  const left = [...candidates];
  const picked: Scored[] = [];
  while (left.length > 0 && picked.length < limit) {
    let best = 0;
    let bestValue = Number.NEGATIVE_INFINITY;
    left.forEach(({ id, score }, i) => {
      const redundancy = picked.length === 0 ? 0 : Math.max(...picked.map((other) => similarityOf(id, other.id)));
      const value = picked.length === 0 ? score : (1 - diversity) * score - diversity * redundancy;
      if (value > bestValue) [best, bestValue] = [i, value];
    });
    picked.push(...left.splice(best, 1));
  }
  return picked;
}

interface MmrRequest {
  readonly diversity: number;
  readonly limit: number;
  readonly similarityOf: (a: number | string, b: number | string) => number;
}

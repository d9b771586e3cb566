/** Tells whether a text or vector is nearly one that was taken before. */
import { minHashBands, shingleSimilarity, shingles } from "@cde-js/core";

/** The position of the taken one that is too much like it, or undefined, and then this one is taken too. */
export interface NearDuplicateFilter {
  take(position: number): { readonly like: number; readonly similarity: number } | undefined;
}

/** By Jaccard similarity of the sets of three-word shingles. MinHash finds the candidates, their sets decide. */
export function byShingles(texts: readonly string[], limit: number): NearDuplicateFilter {
  const buckets = new Map<number, number[]>();
  const taken = new Map<number, Uint32Array>();
  return {
    take(position) {
      const own = shingles(texts[position] as string);
      // A key of another band may be equal by chance; the sets decide.
      const keys = minHashBands(own);
      const seen = new Set<number>();
      for (const key of keys) {
        for (const other of buckets.get(key) ?? []) {
          if (seen.has(other)) continue;
          seen.add(other);
          const similarity = shingleSimilarity(own, taken.get(other) as Uint32Array);
          if (similarity >= limit) return { like: other, similarity };
        }
      }
      taken.set(position, own);
      for (const key of keys) {
        const bucket = buckets.get(key);
        if (bucket) bucket.push(position);
        else buckets.set(key, [position]);
      }
      return undefined;
    },
  };
}

/** By cosine of unit rows [n, dimensions]. */
export function byCosine(rows: Float32Array, dimensions: number, limit: number): NearDuplicateFilter {
  const taken: number[] = [];
  return {
    take(position) {
      for (const other of taken) {
        const similarity = dot(rows, position * dimensions, other * dimensions, dimensions);
        if (similarity >= limit) return { like: other, similarity };
      }
      taken.push(position);
      return undefined;
    },
  };
}

/** Inner product of two rows of one array; four sums, so that additions don't wait for each other. */
export function dot(rows: Float32Array, at: number, other: number, dimensions: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < dimensions; i += 4) {
    a += (rows[at + i] as number) * (rows[other + i] as number);
    b += (rows[at + i + 1] as number) * (rows[other + i + 1] as number);
    c += (rows[at + i + 2] as number) * (rows[other + i + 2] as number);
    d += (rows[at + i + 3] as number) * (rows[other + i + 3] as number);
  }
  for (; i < dimensions; i++) a += (rows[at + i] as number) * (rows[other + i] as number);
  return a + b + c + d;
}

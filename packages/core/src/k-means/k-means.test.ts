import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createRandom } from "../random.js";
import { kMeans } from "./k-means.js";
import { assignToCentroids, lloyd } from "./lloyd.js";

interface Golden {
  readonly tolerance_abs: number;
  readonly paired_rows_first_query_then_swapped: number[][];
  readonly faiss: { readonly partition: number[]; readonly centroids: number[][] };
  readonly lloyd_from_given_centroids: {
    readonly initial: number[][];
    readonly steps: { iterations: number; centroids: number[][]; assignment_of_all_rows: number[] }[];
  };
}
const golden = JSON.parse(
  readFileSync(new URL("../../../../test/parity/golden/clustering/clustering.json", import.meta.url), "utf8"),
) as Golden;
const WIDTH = 12;
const pairedRows = Float32Array.from(golden.paired_rows_first_query_then_swapped.flat());

/** Labels in order of first appearance: equal partitions are equal lists. */
function partition(clusters: Iterable<number>): number[] {
  const labels = new Map<number, number>();
  return [...clusters].map((cluster) => {
    const label = labels.get(cluster) ?? labels.size;
    labels.set(cluster, label);
    return label;
  });
}

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)), a.length === b.length ? 0 : Number.NaN);

/** `groups` tight groups of `each` unit rows around random directions. */
function grouped(groups: number, each: number, dimensions: number, seed: number): Float32Array {
  const random = createRandom(seed);
  const direction = () => Array.from({ length: dimensions }, () => random.normal());
  const rows = Array.from({ length: groups }, direction).flatMap((centre) =>
    Array.from({ length: each }, () => {
      const row = centre.map((value) => value + 0.1 * random.normal());
      const length = Math.hypot(...row);
      return row.map((value) => value / length);
    }),
  );
  return Float32Array.from(rows.flat());
}

describe("against figures of another program", () => {
  const { initial, steps } = golden.lloyd_from_given_centroids;
  test.each(steps)("centroids and clusters after $iterations iterations from given centroids", async (step) => {
    const given = Float32Array.from(initial.flat());
    const found = await lloyd(pairedRows, WIDTH, given, { iterations: step.iterations });
    expect(largestDifference(found.centroids, step.centroids.flat())).toBeLessThan(golden.tolerance_abs);
    expect([...found.clusters]).toEqual(step.assignment_of_all_rows);
    expect(largestDifference(given, step.centroids.flat())).toBeGreaterThan(1e-2); // and were not there before
    const again = await assignToCentroids(pairedRows, WIDTH, found.centroids);
    expect([...again.clusters]).toEqual(step.assignment_of_all_rows);
  });

  test("seven seeds give FAISS's partition and its centroids", async () => {
    for (let seed = 0; seed < 7; seed++) {
      const found = await kMeans(pairedRows, WIDTH, 4, { seed, starts: 3 });
      expect(partition(found.clusters.subarray(0, 40))).toEqual(golden.faiss.partition);
      expect(found.converged).toBe(true);
      const nearest = await assignToCentroids(Float32Array.from(golden.faiss.centroids.flat()), WIDTH, found.centroids);
      expect(Math.min(...nearest.similarities)).toBeGreaterThan(1 - golden.tolerance_abs);
      expect(new Set(nearest.clusters).size).toBe(4);
    }
  });
});

describe("kMeans", () => {
  test("finds 40 planted groups that random rows as a start would merge", async () => {
    const rows = grouped(40, 10, 16, 1);
    const found = await kMeans(rows, 16, 40, { seed: 3 });
    expect(found.objective).toBeGreaterThan(0.98);
    const wholes = Array.from({ length: 40 }, (_, g) => new Set(found.clusters.subarray(10 * g, 10 * g + 10)).size);
    expect(wholes.filter((labels) => labels === 1).length).toBeGreaterThanOrEqual(38);
    // Control: as many rows drawn with equal chances.
    const drawn = createRandom(3).sample(400, 40);
    const start = Float32Array.from(drawn.flatMap((row) => [...rows.subarray(row * 16, row * 16 + 16)]));
    expect((await lloyd(rows, 16, start)).objective).toBeLessThan(found.objective - 0.01);
  });

  test("equal seeds give equal bits, another seed other centroids", async () => {
    const rows = grouped(1, 300, 8, 2);
    const [a, b, c] = await Promise.all([5, 5, 6].map((seed) => kMeans(rows, 8, 6, { seed })));
    expect(a).toEqual(b);
    expect(a!.centroids).not.toEqual(c!.centroids);
  });

  test("keeps the best of several starts", async () => {
    const rows = grouped(12, 5, 3, 4);
    const one = await kMeans(rows, 3, 12, { seed: 1 });
    const best = await kMeans(rows, 3, 12, { seed: 1, starts: 8 });
    expect(best.objective).toBeGreaterThan(one.objective);
  });

  test("the objective is the mean cosine to the centroid, and centroids are unit means of their rows", async () => {
    // (1, 0), (0, 1) twice: one cluster. Sum (1, 2), centroid (1, 2)/√5; cosines 1/√5, 2/√5, 2/√5: mean 5/(3√5).
    const found = await kMeans(Float32Array.of(1, 0, 0, 1, 0, 1), 2, 1);
    expect(largestDifference(found.centroids, [1 / Math.sqrt(5), 2 / Math.sqrt(5)])).toBeLessThan(1e-7);
    expect(found.objective).toBeCloseTo(5 / (3 * Math.sqrt(5)), 6);
    expect([...found.sizes]).toEqual([3]);
  });
});

describe("awkward rows", () => {
  test("a cluster that is left empty takes over the row least like its centroid", async () => {
    // All three are nearest to the first centroid; (0.6, 0.8) is farthest from it. The second cluster becomes that row.
    const rows = Float32Array.of(1, 0, 0.96, 0.28, 0.6, 0.8);
    const { sizes, clusters, centroids } = await lloyd(rows, 2, Float32Array.of(1, 0, -1, 0), { iterations: 1 });
    expect([...clusters]).toEqual([0, 0, 1]);
    expect([...sizes]).toEqual([2, 1]);
    expect(largestDifference(centroids.subarray(2), [0.6, 0.8])).toBeLessThan(1e-7);
  });

  test("identical rows give clusters without an empty one, and end", async () => {
    const rows = Float32Array.from({ length: 20 }, (_, i) => 1 - (i % 2));
    const found = await kMeans(rows, 2, 4);
    expect([...found.sizes].sort()).toEqual([1, 1, 1, 7]);
    expect(found.converged).toBe(true);
  });

  test("opposite rows, which have no mean, keep the centroid and stay finite", async () => {
    const found = await lloyd(Float32Array.of(0, 1, 0, -1), 2, Float32Array.of(1, 0));
    expect([...found.centroids]).toEqual([1, 0]);
    expect(found.objective).toBe(0);
  });

  test("refuses what it can't cluster, with both numbers or the position", async () => {
    const rows = Float32Array.of(1, 0, 0, 1);
    await expect(kMeans(rows, 2, 3)).rejects.toThrow("kMeans: 3 clusters of 2 rows");
    await expect(kMeans(rows, 2, 1.5)).rejects.toThrow("from 1 to 2");
    await expect(kMeans(rows, 3, 1)).rejects.toThrow("4 numbers don't divide into rows of 3");
    await expect(kMeans(Float32Array.of(1, 0, 0, 0), 2, 1)).rejects.toMatchObject({ position: 1 });
    await expect(kMeans(Float32Array.of(1, 0, Number.NaN, 0), 2, 1)).rejects.toThrow("vector 1 has NaN");
    await expect(lloyd(rows, 2, Float32Array.of(1, 1))).rejects.toThrow("lloyd (centroids): vector 0 has length 1.41");
    await expect(lloyd(rows, 2, Float32Array.of(1, 0, 0, 1, 1, 0))).rejects.toThrow("3 centroids for 2 rows");
    await expect(kMeans(rows, 2, 1, { iterations: -1 })).rejects.toThrow("got -1");
    await expect(kMeans(rows, 2, 1, { starts: 0 })).rejects.toThrow("got 0");
  });

  test("leaves the event loop free, and stops when it is aborted", async () => {
    const rows = grouped(1, 12_000, 64, 5);
    const stop = new AbortController();
    // Runs at the first turn that the event loop is left; without one, the clustering would be finished before.
    setImmediate(() => stop.abort(new Error("enough")));
    await expect(kMeans(rows, 64, 400, { signal: stop.signal })).rejects.toThrow("enough");
  });
});

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createRandom } from "../../random.js";
import { clusterCount } from "./cluster-pairs.js";
import { packInOrder } from "./pack.js";
import { greedyTour } from "./tour.js";

const goldenFile = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../../../../test/parity/golden/${name}`, import.meta.url), "utf8"));

interface Packing {
  readonly tours: { points: number[][]; orders: Record<string, number[]> }[];
  readonly single_cluster_order: number[];
  readonly item_vectors_for_tsp: Record<string, number[]>;
  readonly clusters_per_domain: number[][][];
  readonly sampler_runs: {
    packing: string;
    world_size: number;
    rank: number;
    share_negatives: boolean;
    batch_size: number;
    order_of_lists: number[][][];
    batch_permutation: number[];
    row_permutations: number[][];
    yielded: number[];
  }[];
  readonly k_for: Record<string, unknown>;
}
const packing = goldenFile("packing/packing.json") as Packing;
const specification = goldenFile("golden.json") as {
  tsp: { points: number[][]; from0: number[]; from3: number[] };
  tsp_tie: { points: number[][]; from0: number[] };
  packing: { clusters: number[][]; batch: number; batches_before_shuffle: number[][]; dropped: number[] };
};

const different = { queryKey: (position: number) => position, documentKey: (position: number) => position };

describe("tours equal those of another program", () => {
  const tour = (points: number[][], start: number) =>
    greedyTour(Float32Array.from(points.flat()), points[0]!.length, start);

  test.each([...packing.tours.entries()])("point set %i from every start", async (_, { points, orders }) => {
    for (const [start, order] of Object.entries(orders)) expect(await tour(points, Number(start))).toEqual(order);
  });

  test("worked examples, and of equally near points the first", async () => {
    const { tsp, tsp_tie: tie } = specification;
    expect(await tour(tsp.points, 0)).toEqual(tsp.from0);
    expect(await tour(tsp.points, 3)).toEqual(tsp.from3);
    expect(await tour(tie.points, 0)).toEqual(tie.from0);
    expect(await tour([[5, 5]], 0)).toEqual(packing.single_cluster_order);
    await expect(tour([[5, 5]], 1)).rejects.toThrow("no point 1 of 1");
  });

  test("the sampler's own lists: clusters by the mean of their documents", async () => {
    const run = packing.sampler_runs.find(({ packing: by }) => by === "tsp_greedy")!;
    for (const [domain, clusters] of packing.clusters_per_domain.entries()) {
      const centroids = clusters.map((members) => {
        const vectors = members.map((item) => packing.item_vectors_for_tsp[item]!);
        return vectors[0]!.map((_, d) => vectors.reduce((sum, vector) => sum + vector[d]!, 0) / vectors.length);
      });
      const expected = run.order_of_lists[domain]!;
      const start = clusters.findIndex((members) => members.join() === expected[0]!.join());
      expect((await tour(centroids, start)).map((at) => clusters[at])).toEqual(expected);
    }
  });
});

describe("batches equal those of another program", () => {
  test("the worked example, with what is dropped", () => {
    const { clusters, batch, batches_before_shuffle: expected, dropped } = specification.packing;
    const { batches, leftOut } = packInOrder(clusters.flat(), batch, different);
    expect(batches.map((positions) => [...positions])).toEqual(expected);
    expect([...leftOut]).toEqual(dropped);
  });

  const runs = packing.sampler_runs.filter(({ world_size: size }) => size === 1);
  test.each([...runs.entries()])("run %i of the sampler, given its random draws", (_, run) => {
    // It went over its lists twice; the first half of them is one epoch.
    const lists = run.order_of_lists.slice(0, run.order_of_lists.length / 2).flat();
    const { batches } = packInOrder(lists.flat(), run.batch_size, different);
    const yielded = run.batch_permutation.flatMap((batch, i) =>
      run.row_permutations[i]!.map((row) => batches[batch]![row]!),
    );
    expect(yielded).toEqual(run.yielded);
  });

  test("the number of clusters", () => {
    expect([clusterCount(31, 4), clusterCount(32, 4), clusterCount(1, 512)]).toEqual([8, 8, 1]);
  });
});

describe("texts that repeat", () => {
  const keys = (queries: number[], documents: number[]) => ({
    queryKey: (position: number) => queries[position]!,
    documentKey: (position: number) => documents[position]!,
  });

  test("a pair waits for the next batch, and goes first there", () => {
    // 1 repeats the query of 0, 2 the document of 0. The first batch is 0, 3, 4; the second 1, 2, 5.
    const packed = packInOrder([0, 1, 2, 3, 4, 5], 3, keys([7, 7, 8, 9, 10, 11], [1, 2, 1, 3, 4, 5]));
    expect(packed.batches.map((batch) => [...batch])).toEqual([
      [0, 3, 4],
      [1, 2, 5],
    ]);
    expect(packed.leftOut.length).toBe(0);
  });

  test("what would repeat a text to the end is left out", () => {
    const packed = packInOrder([0, 1, 2, 3], 2, keys([1, 1, 1, 2], [1, 2, 3, 4]));
    expect(packed.batches.map((batch) => [...batch])).toEqual([[0, 3]]);
    expect([...packed.leftOut]).toEqual([1, 2]);
  });

  test("whatever repeats: batches are full, no text comes twice, every pair is in one batch or left out", () => {
    const pair = fc.tuple(fc.nat(40), fc.nat(40));
    fc.assert(
      fc.property(
        fc.array(pair, { maxLength: 150 }),
        fc.integer({ min: 1, max: 12 }),
        fc.nat(),
        (pairs, size, seed) => {
          const of = keys(
            pairs.map(([query]) => query),
            pairs.map(([, document]) => document),
          );
          const order = createRandom(seed).shuffle(pairs.keys());
          const { batches, leftOut } = packInOrder(order, size, of);
          for (const batch of batches) {
            expect(batch.length).toBe(size);
            expect(new Set(Array.from(batch, of.queryKey)).size).toBe(size);
            expect(new Set(Array.from(batch, of.documentKey)).size).toBe(size);
          }
          const all = [...batches.flatMap((batch) => [...batch]), ...leftOut];
          expect(all.sort((a, b) => a - b)).toEqual([...pairs.keys()]);
          // No full batch could be made of what is left by going on in the same way.
          expect(packInOrder(leftOut, size, of).batches.length).toBe(0);
        },
      ),
      { numRuns: process.env.CDE_FULL ? 5000 : 300, seed: 2 },
    );
  });

  test("without repetitions nothing but the rest is left out, and the order stays", () => {
    fc.assert(
      fc.property(fc.nat(300), fc.integer({ min: 1, max: 40 }), (count, size) => {
        const { batches, leftOut } = packInOrder([...Array(count).keys()], size, different);
        expect([...batches.flatMap((batch) => [...batch]), ...leftOut]).toEqual([...Array(count).keys()]);
        expect(leftOut.length).toBe(count % size);
      }),
      { numRuns: 100, seed: 3 },
    );
  });
});

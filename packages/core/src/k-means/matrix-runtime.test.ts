import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRandom } from "../random.js";
import { kMeans } from "./k-means.js";
import { assignToCentroids, lloyd } from "./lloyd.js";
import { MatrixRuntime } from "./matrix-runtime.js";

interface Golden {
  readonly tolerance_abs: number;
  readonly paired_rows_first_query_then_swapped: number[][];
  readonly lloyd_from_given_centroids: {
    readonly initial: number[][];
    readonly steps: { iterations: number; centroids: number[][]; assignment_of_all_rows: number[] }[];
  };
}
const golden = JSON.parse(
  readFileSync(new URL("../../../../test/parity/golden/clustering/clustering.json", import.meta.url), "utf8"),
) as Golden;

let runtime: MatrixRuntime;
beforeAll(async () => {
  runtime = await MatrixRuntime.start({ threads: 2 });
});
afterAll(() => runtime.dispose());

function unitRows(count: number, dimensions: number, seed: number): Float32Array {
  const random = createRandom(seed);
  const rows = Float32Array.from({ length: count * dimensions }, () => random.normal());
  for (let at = 0; at < rows.length; at += dimensions) {
    const row = rows.subarray(at, at + dimensions);
    const length = Math.hypot(...row);
    for (let i = 0; i < dimensions; i++) row[i]! /= length;
  }
  return rows;
}

describe("in the runtime", () => {
  const rows = Float32Array.from(golden.paired_rows_first_query_then_swapped.flat());
  const { initial, steps } = golden.lloyd_from_given_centroids;

  test.each(steps)("$iterations iterations give another program's centroids and clusters", async (step) => {
    const found = await lloyd(rows, 12, Float32Array.from(initial.flat()), { iterations: step.iterations, runtime });
    const away = [...found.centroids].map((value, i) => Math.abs(value - step.centroids.flat()[i]!));
    expect(Math.max(...away)).toBeLessThan(golden.tolerance_abs);
    expect([...found.clusters]).toEqual(step.assignment_of_all_rows);
  });

  test("rows of several blocks find the same centroids as without it, and others find others", async () => {
    const many = unitRows(5000, 12, 1); // three blocks, the last one not full
    const centroids = unitRows(37, 12, 2);
    const [here, there, control] = await Promise.all([
      assignToCentroids(many, 12, centroids),
      assignToCentroids(many, 12, centroids, { runtime }),
      assignToCentroids(many, 12, unitRows(37, 12, 3), { runtime }),
    ]);
    expect(there.clusters).toEqual(here.clusters);
    const away = here.similarities.map((value, i) => Math.abs(value - there.similarities[i]!));
    expect(away.reduce((a, b) => Math.max(a, b))).toBeLessThan(1e-6);
    expect(control.clusters).not.toEqual(here.clusters);
  });

  test("of two equal centroids the first one counts", async () => {
    const centroids = Float32Array.of(0, 1, 1, 0, 1, 0);
    const { clusters } = await assignToCentroids(Float32Array.of(1, 0, 0, 1), 2, centroids, { runtime });
    expect([...clusters]).toEqual([1, 0]);
  });

  test("equal seeds give equal bits", async () => {
    const many = unitRows(3000, 8, 4);
    const [a, b] = await Promise.all([1, 2].map(() => kMeans(many, 8, 20, { seed: 5, starts: 2, runtime })));
    expect(a).toEqual(b);
  });

  test("products are inner products: (3, 4)·(1, 2) = 11 and (3, 4)·(0, 1) = 4", async () => {
    const products = await runtime.product(Float32Array.of(3, 4), Float32Array.of(1, 2, 0, 1), 2);
    expect([...products]).toEqual([11, 4]);
    await expect(runtime.product(Float32Array.of(1, 2, 3), Float32Array.of(1, 2), 2)).rejects.toThrow("rows of 2");
  });

  test("an abort ends it, and the runtime serves the next one", async () => {
    const many = unitRows(20_000, 16, 6);
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error("enough")), 20);
    await expect(kMeans(many, 16, 500, { signal: stop.signal, runtime })).rejects.toThrow("enough");
    expect((await kMeans(many.subarray(0, 160), 16, 2, { runtime })).sizes.length).toBe(2);
  });
});

test("seeds are drawn with the chances of k-means++: by the distance to the nearest one before", async () => {
  // Rows at 0°, 60° and 90°; distances 1 - cos. First row any. Given (1, 0), the others have 0.5 and 1: shares 1/3, 2/3.
  // Given 60°: 0.5 and 1 - cos 30° = 0.134. Given 90°: 1 and 0.134. One cluster of two is what is left apart.
  const third = Math.sqrt(3) / 2;
  const rows = Float32Array.of(1, 0, 0.5, third, 0, 1);
  const counts = new Map<string, number>();
  const runs = 3000;
  for (let seed = 0; seed < runs; seed++) {
    const { centroids } = await kMeans(rows, 2, 2, { seed, iterations: 0 });
    const names = [0, 2].map((at) => (centroids[at] === 1 ? "0" : centroids[at] === 0 ? "90" : "60"));
    counts.set(names.join(), (counts.get(names.join()) ?? 0) + 1);
  }
  const near = 1 - third;
  const expected: Record<string, number> = {
    "0,60": 0.5 / 1.5 / 3,
    "0,90": 1 / 1.5 / 3,
    "60,0": 0.5 / (0.5 + near) / 3,
    "60,90": near / (0.5 + near) / 3,
    "90,0": 1 / (1 + near) / 3,
    "90,60": near / (1 + near) / 3,
  };
  for (const [pair, share] of Object.entries(expected)) {
    // Four standard deviations of a binomial share.
    const spread = 4 * Math.sqrt((share * (1 - share)) / runs);
    expect(Math.abs((counts.get(pair) ?? 0) / runs - share), pair).toBeLessThan(spread);
  }
});

import { ExactIndex } from "@cde-js/retriever";
import { describe, expect, test } from "vitest";
import { randomVectors } from "../support/random-vectors.js";
import { vectorIndexContract } from "./vector-index.js";

vectorIndexContract("the exact index on float32 rows", {
  create: (dimensions) => new ExactIndex(dimensions),
  // 384 products in float32: rounding of 6e-8 a step, most of it cancels.
  tolerance: 1e-6,
});

describe("int8 rows", () => {
  const [count, dimensions] = [20_000, 96];
  const vectors = randomVectors(count, dimensions, 11);
  const labels = Uint32Array.from({ length: count }, (_, i) => i);
  const base = {
    read: async (wanted: Uint32Array) => {
      const rows = new Float32Array(wanted.length * dimensions);
      for (const [i, label] of wanted.entries()) {
        rows.set(vectors.subarray(label * dimensions, (label + 1) * dimensions), i * dimensions);
      }
      return rows;
    },
  };

  test("find the true ten in the true order when candidates are scored again, and nearly so when not", async () => {
    await using exact = new ExactIndex(dimensions);
    await using rescored = new ExactIndex(dimensions, { rows: "int8", base });
    await using bare = new ExactIndex(dimensions, { rows: "int8" });
    for (const index of [exact, rescored, bare]) await index.upsert(labels, vectors);
    let kept = 0;
    let different = 0;
    for (let q = 0; q < 50; q++) {
      const query = randomVectors(1, dimensions, 100 + q);
      const truth = await exact.search(query, 10);
      const again = await rescored.search(query, 10);
      expect(again.map(({ label }) => label)).toEqual(truth.map(({ label }) => label));
      again.forEach(({ score }, i) => {
        expect(Math.abs(score - (truth[i]?.score as number))).toBeLessThan(1e-6);
      });
      const rough = await bare.search(query, 10);
      kept += rough.filter(({ label }) => truth.some((entry) => entry.label === label)).length;
      rough.forEach(({ score }, i) => {
        expect(Math.abs(score - (truth[i]?.score as number))).toBeLessThan(0.004);
        if (score !== truth[i]?.score) different++;
      });
    }
    expect(kept).toBeGreaterThanOrEqual(480);
    // The control: without rescoring the scores are others.
    expect(different).toBeGreaterThan(400);
  });

  test("keep the sign and order of extreme components", async () => {
    await using index = new ExactIndex(2, { rows: "int8" });
    await index.upsert(Uint32Array.of(0, 1, 2), Float32Array.of(1e9, 1e9, -1e-9, 1e-9, 1, -1));
    const found = await index.search(Float32Array.of(1, 1), 3);
    expect(found.map(({ label }) => label)).toEqual([0, 1, 2]);
    expect(found[0]?.score).toBeCloseTo(1, 5);
  });

  test("do not overflow where all of 16,384 components are as large as they get", async () => {
    await using index = new ExactIndex(16_384, { rows: "int8" });
    const ones = new Float32Array(16_384).fill(1);
    await index.upsert(Uint32Array.of(3), ones);
    // The sum is 127 · 1023 · 16384 = 2,128,625,664, just below 2^31.
    expect((await index.search(ones, 1))[0]?.score).toBeCloseTo(1, 6);
    await expect(async () => new ExactIndex(16_385)).rejects.toThrow(/1 to 16384, got 16385/);
  });
});

test("a query that is a small part of a large buffer is sent without the rest of it", async () => {
  await using index = new ExactIndex(4);
  const buffer = new Float32Array(40_000_000).fill(0.5); // 160 MB
  await index.upsert(Uint32Array.of(1), buffer.subarray(0, 4));
  const time = async (query: Float32Array): Promise<number> => {
    const before = process.cpuUsage();
    for (let i = 0; i < 10; i++) await index.search(query, 1);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  };
  // Ten copies of 160 MB take hundreds of milliseconds of processor time; ten searches of one row a few.
  expect(await time(buffer.subarray(4, 8))).toBeLessThan((await time(buffer.slice(4, 8))) + 100);
});

test("the event loop stays free while the exact index searches", async () => {
  const [count, dimensions] = [50_000, 384];
  await using index = new ExactIndex(dimensions);
  const block = randomVectors(1000, dimensions, 1);
  for (let first = 0; first < count; first += 1000) {
    await index.upsert(
      Uint32Array.from({ length: 1000 }, (_, i) => first + i),
      block,
    );
  }
  let searching = true;
  const searches = Promise.all(
    Array.from({ length: 40 }, (_, i) => index.search(randomVectors(1, dimensions, i + 5), 10)),
  ).finally(() => {
    searching = false;
  });
  let turns = 0;
  while (searching) {
    await new Promise((resolve) => setImmediate(resolve));
    turns++;
  }
  await searches;
  // 40 scans of 77 MB: a scan on this thread would leave 40 turns or fewer.
  expect(turns).toBeGreaterThan(200);
});

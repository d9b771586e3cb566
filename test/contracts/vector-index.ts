/** The contract of `VectorIndex`: one suite, run by every index. */
import type { VectorIndex } from "@cde-js/retriever";
import { labelSet } from "@cde-js/retriever";
import { afterEach, describe, expect, test } from "vitest";
import { randomVectors } from "../support/random-vectors.js";

export interface VectorIndexUnderTest {
  readonly create: (dimensions: number) => VectorIndex | Promise<VectorIndex>;
  /** Why the tests are skipped, where they have to be. */
  readonly skip?: string | undefined;
  /** Largest error of a score; 1e-6 for float32 sums of a few hundred products. */
  readonly tolerance: number;
}

const labelsTo = (count: number): Uint32Array => Uint32Array.from({ length: count }, (_, i) => i);

/** Cosine of every row, by the formula and in double precision, best first, equal ones by label. */
function naive(
  query: Float32Array,
  vectors: Float32Array,
  labels: Iterable<number>,
): { label: number; score: number }[] {
  const d = query.length;
  const cosine = (row: Float32Array): number => {
    const dot = row.reduce((sum, x, i) => sum + x * (query[i] as number), 0);
    return dot / (Math.hypot(...row) * Math.hypot(...query));
  };
  return [...labels]
    .map((label) => ({ label, score: cosine(vectors.subarray(label * d, (label + 1) * d)) }))
    .sort((a, b) => b.score - a.score || a.label - b.label);
}

export function vectorIndexContract(name: string, { create, tolerance, skip }: VectorIndexUnderTest): void {
  const skipped = skip === undefined ? "" : ` (skipped: ${skip})`;
  describe.skipIf(skip !== undefined)(`${name} keeps the contract of a vector index${skipped}`, () => {
    const open: VectorIndex[] = [];
    const make = async (dimensions: number): Promise<VectorIndex> => {
      const index = await create(dimensions);
      open.push(index);
      return index;
    };
    afterEach(async () => {
      await Promise.all(open.splice(0).map((index) => index.close()));
    });

    test.each([1, 3, 16, 31, 33, 384])("finds what the formula finds, in %i dimensions", async (dimensions) => {
      const count = 300;
      const vectors = randomVectors(count, dimensions, 1);
      const index = await make(dimensions);
      await index.upsert(labelsTo(count), vectors);
      const query = randomVectors(1, dimensions, 2);
      const expected = naive(query, vectors, labelsTo(count));
      const found = await index.search(query, 20);
      // By score: neighbours whose scores differ by less than the tolerance may change places.
      found.forEach(({ label, score }, i) => {
        expect(Math.abs(score - (expected[i]?.score as number))).toBeLessThan(tolerance);
        const own = expected.find((entry) => entry.label === label)?.score as number;
        expect(Math.abs(score - own)).toBeLessThan(tolerance);
      });
      expect(new Set(found.map(({ label }) => label)).size).toBe(20);
      // The control: the answers of another query.
      if (dimensions > 1) {
        const other = naive(randomVectors(1, dimensions, 3), vectors, labelsTo(count));
        expect(Math.abs((other[0]?.score as number) - (found[0]?.score as number))).toBeGreaterThan(tolerance);
      }
    });

    test("scores cosine similarity, whatever the lengths", async () => {
      const index = await make(2);
      await index.upsert(Uint32Array.of(0, 1, 2), Float32Array.of(3, 4, 0, 1e-9, -1e9, 0));
      // (1, 0) with (3, 4)/5, (0, 1) and (-1, 0)
      const found = await index.search(Float32Array.of(1e-6, 0), 3);
      expect(found.map(({ label }) => label)).toEqual([0, 1, 2]);
      [0.6, 0, -1].forEach((score, i) => {
        expect(found[i]?.score).toBeCloseTo(score, 6);
      });
    });

    test("ranks equal scores by label, whatever the order of insertion", async () => {
      const index = await make(8);
      const vector = randomVectors(1, 8, 4);
      const labels = Uint32Array.of(9, 2, 7, 4, 5);
      await index.upsert(
        labels,
        Float32Array.from({ length: 40 }, (_, i) => vector[i % 8] as number),
      );
      expect((await index.search(vector, 3)).map(({ label }) => label)).toEqual([2, 4, 5]);
      expect((await index.search(vector, 9)).map(({ label }) => label)).toEqual([2, 4, 5, 7, 9]);
    });

    test("replaces a row of a known label and removes rows", async () => {
      const index = await make(2);
      await index.upsert(Uint32Array.of(0, 1, 2), Float32Array.of(1, 0, 0, 1, -1, 0));
      await index.upsert(Uint32Array.of(0), Float32Array.of(0, -1));
      expect(index.count).toBe(3);
      expect((await index.search(Float32Array.of(1, 0.1), 1))[0]?.label).toBe(1);
      expect(await index.delete(Uint32Array.of(1, 77, 1))).toBe(1);
      expect(index.count).toBe(2);
      expect((await index.search(Float32Array.of(0, 1), 9)).map(({ label }) => label)).toEqual([2, 0]);
      await index.upsert(Uint32Array.of(1), Float32Array.of(0, 1));
      expect((await index.search(Float32Array.of(0, 1), 1))[0]?.label).toBe(1);
    });

    test("answers like the formula after many updates and removals", async () => {
      const [count, dimensions] = [500, 24];
      const vectors = randomVectors(count, dimensions, 5);
      const index = await make(dimensions);
      await index.upsert(labelsTo(count), vectors);
      const removed = labelsTo(count).filter((label) => label % 3 === 0);
      await index.delete(removed);
      const left = [...labelsTo(count)].filter((label) => label % 3 !== 0);
      const query = randomVectors(1, dimensions, 6);
      const found = await index.search(query, 5);
      const expected = naive(query, vectors, left).slice(0, 5);
      expect(found.map(({ label }) => label)).toEqual(expected.map(({ label }) => label));
      expect(naive(query, vectors, labelsTo(count)).slice(0, 5)).not.toEqual(expected);
    });

    test("finds only what is allowed, and all k of it where few are", async () => {
      const [count, dimensions] = [9000, 16];
      const vectors = randomVectors(count, dimensions, 7);
      const index = await make(dimensions);
      await index.upsert(labelsTo(count), vectors);
      const query = randomVectors(1, dimensions, 8);
      for (const allowed of [[3, 17, 8999], [...labelsTo(count)].filter((label) => label % 2 === 1)]) {
        const found = await index.search(query, 3, { allowed: labelSet(allowed) });
        expect(found.map(({ label }) => label)).toEqual(
          naive(query, vectors, allowed)
            .slice(0, 3)
            .map(({ label }) => label),
        );
      }
      expect(await index.search(query, 3, { allowed: labelSet([]) })).toEqual([]);
    });

    test("an empty index finds nothing", async () => {
      const index = await make(4);
      expect(await index.search(Float32Array.of(1, 0, 0, 0), 5)).toEqual([]);
      await index.upsert(new Uint32Array(0), new Float32Array(0));
      expect(index.count).toBe(0);
    });

    test.each([
      ["a wrong dimension", Float32Array.of(1, 0, 0), /3 numbers|6 numbers.*got 3|are 2 numbers, got 3/],
      ["NaN", Float32Array.of(Number.NaN, 0), /NaN at component 0/],
      ["infinity", Float32Array.of(0, Number.NEGATIVE_INFINITY), /-Infinity at component 1/],
      ["a zero vector", Float32Array.of(0, 0), /zero everywhere/],
    ])("refuses rows with %s and keeps what it holds", async (_, vector, message) => {
      const index = await make(2);
      await index.upsert(Uint32Array.of(5), Float32Array.of(1, 1));
      await expect(index.upsert(Uint32Array.of(6), vector)).rejects.toThrow(message);
      expect(await index.search(Float32Array.of(1, 1), 5)).toHaveLength(1);
    });

    test("refuses a label twice in one batch, a bad k and a bad query", async () => {
      const index = await make(2);
      await expect(index.upsert(Uint32Array.of(1, 1), Float32Array.of(1, 0, 0, 1))).rejects.toThrow(
        /label 1 comes twice.*1/,
      );
      for (const k of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        await expect(index.search(Float32Array.of(1, 0), k)).rejects.toThrow(/k must be an integer of at least 1/);
      }
      await expect(index.search(Float32Array.of(1), 1)).rejects.toThrow(/1 components, expected 2/);
      await expect(index.search(Float32Array.of(0, 0), 1)).rejects.toThrow(/zero everywhere/);
    });

    test("an aborted search rejects with the reason, and the next one answers", async () => {
      const index = await make(2);
      await index.upsert(Uint32Array.of(1), Float32Array.of(1, 0));
      const reason = new Error("enough");
      const controller = new AbortController();
      const search = index.search(Float32Array.of(1, 0), 1, { signal: controller.signal });
      controller.abort(reason);
      await expect(search).rejects.toBe(reason);
      expect(await index.search(Float32Array.of(1, 0), 1)).toEqual([{ label: 1, score: 1 }]);
    });

    test("refuses everything after closing", async () => {
      const index = await make(2);
      const search = index.search(Float32Array.of(1, 0), 1);
      const closed = index.close();
      await expect(search).rejects.toMatchObject({ code: "INDEX_CLOSED" });
      await closed;
      await expect(index.search(Float32Array.of(1, 0), 1)).rejects.toMatchObject({ code: "INDEX_CLOSED" });
      await expect(index.close()).resolves.toBeUndefined();
    });
  });
}

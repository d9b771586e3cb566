import { describe, expect, test } from "vitest";
import { createPairSet } from "./create-pair-set.js";
import type { PairRecord } from "./pair-record.js";
import type { PairSet } from "./pair-set.js";
import { splitPairs } from "./split.js";
import { temporaryPath } from "./temporary.test.support.js";

/** Letters alone: numbers don't tell texts apart here. */
const word = (n: number): string => String.fromCharCode(...[0, 1, 2].map((i) => 97 + (Math.floor(n / 26 ** i) % 26)));
const words = (seed: number, count: number): string[] =>
  Array.from({ length: count }, (_, i) => word(seed * 977 + i * i * 31));
const make = (records: PairRecord[]): Promise<PairSet> => createPairSet(temporaryPath("split"), records);

async function idsOf(pairs: PairSet): Promise<Set<string>> {
  const ids = new Set<string>();
  for await (const { id } of pairs.pairs()) ids.add(id);
  return ids;
}

describe("a split", () => {
  // Sixty texts of 40 words; each pair of twins differs in the last word: 37 of 39 shingles in common, Jaccard 0.95.
  const twins = Array.from({ length: 60 }, (_, i) => {
    const text = words(i, 40);
    return ["same", "other"].map((last) => ({
      id: `${i} ${last}`,
      query: `question ${i} ${last}`,
      positive: [...text.slice(0, 39), last].join(" "),
    }));
  }).flat();

  test("keeps near duplicates on one side, and leaks them where it isn't told to look", async () => {
    await using pairs = await make(twins);
    const leaks = async (options: Parameters<typeof splitPairs>[1]) => {
      const { train, dev } = await splitPairs(pairs, { dev: 20, seed: 1, ...options });
      expect(dev.size).toBe(20);
      expect(train.size).toBe(100);
      const there = await idsOf(train);
      return [...(await idsOf(dev))].filter((id) =>
        there.has(id.endsWith("same") ? id.replace("same", "other") : id.replace("other", "same")),
      ).length;
    };
    expect(await leaks({})).toBe(0);
    expect(await leaks({ nearDuplicate: false })).toBeGreaterThan(5); // the control
    expect((await splitPairs(pairs, { dev: 20 })).nearDuplicates).toBe(60);
  });

  test("keeps a query, a positive and a named group together, through chains", async () => {
    await using pairs = await make([
      { id: "1", query: "a", positive: "alpha text" },
      { id: "2", query: "A?", positive: "beta text" },
      { id: "3", query: "b", positive: "Beta text!" },
      { id: "4", query: "c", positive: "gamma text", group: "g" },
      { id: "5", query: "d", positive: "delta text", group: "g" },
      ...Array.from({ length: 20 }, (_, i) => ({ id: `x${i}`, query: `q${i}`, positive: `lone ${i} words ${i * 7}` })),
    ]);
    for (let seed = 0; seed < 20; seed++) {
      const { train, dev, groups, largestGroup } = await splitPairs(pairs, { dev: 10, seed, nearDuplicate: false });
      expect([groups, largestGroup]).toEqual([22, 3]);
      for (const side of [await idsOf(train), await idsOf(dev)]) {
        expect([0, 3]).toContain(["1", "2", "3"].filter((id) => side.has(id)).length);
        expect([0, 2]).toContain(["4", "5"].filter((id) => side.has(id)).length);
      }
    }
  });

  test("every pair is on one side; a seed gives the same sides, another one others", async () => {
    await using pairs = await make(twins);
    const sides = async (seed: number) => [...(await idsOf((await splitPairs(pairs, { dev: 0.2, seed })).dev))].join();
    const { train, dev } = await splitPairs(pairs, { dev: 0.2, seed: 4 });
    expect((await idsOf(train)).size + (await idsOf(dev)).size).toBe(120);
    expect(await sides(4)).toBe(await sides(4));
    expect(await sides(4)).not.toBe(await sides(5));
  });

  test("says so where one group holds nearly all pairs", async () => {
    const chain = Array.from({ length: 40 }, (_, i) => ({ query: `q ${i >> 1}`, positive: `d ${(i + 1) >> 1}` }));
    await using pairs = await make(chain);
    await expect(splitPairs(pairs, { dev: 8, nearDuplicate: false })).rejects.toThrow(
      'Keep together less with { by: "query" }',
    );
    const { dev } = await splitPairs(pairs, { dev: 8, by: "query" });
    expect(dev.size).toBe(8);
  });

  test("refuses shares and numbers that leave one side empty", async () => {
    await using pairs = await make(twins);
    for (const dev of [0, -1, 120, 0.001, 1.5, Number.NaN])
      await expect(splitPairs(pairs, { dev })).rejects.toThrow("splitPairs");
    await expect(splitPairs(pairs, { nearDuplicate: 0 })).rejects.toThrow("above 0 and at most 1");
  });
});

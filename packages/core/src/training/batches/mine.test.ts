import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { describe, expect, test } from "vitest";
import { createPairSet } from "../data/create-pair-set.js";
import type { PairSet } from "../data/pair-set.js";
import { readPairsJsonl } from "../data/read-jsonl.js";
import { temporaryPath } from "../data/temporary.test.support.js";
import { type MineOptions, mineHardNegatives } from "./mine.js";
import { TopLists } from "./top-lists.js";
import { topicPairs, topicSurrogate, topicVector } from "./topics.test.support.js";

const RUNTIME = { threads: 1 };
const { surrogate } = topicSurrogate();
const score = (a: string, b: string) => {
  const [x, y] = [topicVector(a), topicVector(b)];
  return x.reduce((sum, value, i) => sum + value * y[i]!, 0);
};

async function mine(pairs: PairSet, options: Partial<MineOptions> = {}) {
  const path = temporaryPath("mined.jsonl");
  const report = await mineHardNegatives(pairs, path, { surrogate, runtime: RUNTIME, ...options });
  const lines = readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { id: string; query: string; positive: string; negatives?: string[] });
  return { path, report, lines };
}

/** All documents from near to far, without the positive. */
const ranked = (documents: readonly string[], query: string, positive: string) =>
  documents.filter((text) => text !== positive).sort((a, b) => score(query, b) - score(query, a));

describe("mining", () => {
  const records = topicPairs(5, 12);
  const documents = records.map(({ positive }) => positive);

  test("gives the nearest documents that are no positive, as a search in JavaScript does", async () => {
    await using pairs = await createPairSet(temporaryPath("pairs"), records);
    const { lines, report } = await mine(pairs, { negatives: 3, relativeMargin: false });
    expect(lines.length).toBe(60);
    let scores = 0;
    for (const { query, positive, negatives } of lines) {
      const expected = ranked(documents, query, positive).slice(0, 3);
      expect(negatives).toEqual(expected);
      scores += expected.reduce((sum, text) => sum + score(query, text), 0);
    }
    expect(report).toMatchObject({ pairs: 60, documents: 60, mined: 180, pairsWithout: 0, refused: 0, resumedFrom: 0 });
    expect(report.meanNegativeScore).toBeCloseTo(scores / 180, 5);
  });

  test("margins, bounds and ranks hold, and say how many they refused", async () => {
    await using pairs = await createPairSet(temporaryPath("pairs"), records);
    const cases: [Partial<MineOptions>, (s: number, positive: number) => boolean][] = [
      [{ relativeMargin: 0.1 }, (s, positive) => s <= positive - 0.1 * Math.abs(positive)],
      [{ relativeMargin: false, absoluteMargin: 0.2 }, (s, positive) => s <= positive - 0.2],
      [{ relativeMargin: false, minScore: 0.3, maxScore: 0.7 }, (s) => s >= 0.3 && s <= 0.7],
    ];
    for (const [options, holds] of cases) {
      const { lines, report } = await mine(pairs, { negatives: 4, ranks: { from: 2, to: 30 }, ...options });
      let [refused, without] = [0, 0];
      for (const { query, positive, negatives = [] } of lines) {
        const range = ranked(documents, query, positive).slice(2, 30);
        const left = range.filter((text) => holds(score(query, text), score(query, positive)));
        expect(negatives).toEqual(left.slice(0, 4));
        refused += range.length - left.length;
        if (left.length === 0) without++;
      }
      expect([report.refused, report.pairsWithout]).toEqual([refused, without]);
      expect(refused).toBeGreaterThan(0);
    }
  });

  test("never takes another positive of the query, the query itself or a hard negative that is there, which it keeps", async () => {
    await using pairs = await createPairSet(temporaryPath("pairs"), [
      { id: "1", query: "q 0 1", positive: "d 0 1", negatives: ["d 0 2"] },
      { id: "2", query: "q 0 1", positive: "d 0 3" },
      { id: "3", query: "q 0 4", positive: "d 0 4" },
    ]);
    const corpus = ["d 0 1", "d 0 2", "d 0 3", "d 0 4", "Q 0 1!", "d 0 5", "d 0 5"];
    const { lines, report } = await mine(pairs, { corpus, negatives: 10, relativeMargin: false });
    expect(report.documents).toBe(6);
    expect(lines[0]!.negatives![0]).toBe("d 0 2");
    expect([...lines[0]!.negatives!].sort()).toEqual(["d 0 2", "d 0 4", "d 0 5"]);
    expect([...lines[1]!.negatives!].sort()).toEqual(["d 0 2", "d 0 4", "d 0 5"]);
    expect([...lines[2]!.negatives!].sort()).toEqual(["Q 0 1!", "d 0 1", "d 0 2", "d 0 3", "d 0 5"]);
  });

  test("random ones are of the same range, the same for a seed and others for another", async () => {
    await using pairs = await createPairSet(temporaryPath("pairs"), records);
    const options = {
      negatives: 3,
      relativeMargin: false as const,
      ranks: { from: 0, to: 20 },
      sampling: "random" as const,
    };
    const [a, b, c] = [
      await mine(pairs, options),
      await mine(pairs, options),
      await mine(pairs, { ...options, seed: 1 }),
    ];
    for (const { query, positive, negatives } of a.lines) {
      const range = ranked(documents, query, positive).slice(0, 20);
      expect(negatives!.every((text) => range.includes(text))).toBe(true);
    }
    expect(b.lines).toEqual(a.lines);
    expect(c.lines).not.toEqual(a.lines);
  });

  test("its file makes a pair set", async () => {
    await using pairs = await createPairSet(temporaryPath("pairs"), records);
    const { path } = await mine(pairs, { negatives: 2, relativeMargin: false });
    await using again = await createPairSet(temporaryPath("again"), readPairsJsonl(path));
    expect(again.size).toBe(60);
    expect(again.statistics().datasets[0]!.negatives).toBe(120);
  });
});

describe("a large run", () => {
  // More pairs than one slice, and more documents than one block of a product.
  const records = topicPairs(50, 100);

  test("goes on where it was stopped, and gives the same file as one that wasn't", async () => {
    await using pairs = await createPairSet(temporaryPath("pairs"), records);
    const options = { surrogate, runtime: RUNTIME, negatives: 2, ranks: { from: 0, to: 10 } };
    const [whole, parts] = [temporaryPath("whole.jsonl"), temporaryPath("parts.jsonl")];
    await mineHardNegatives(pairs, whole, options);
    const stop = new AbortController();
    const onProgress = ({ phase, done }: { phase: string; done: number }) => {
      if (phase === "searching" && done < 5000) stop.abort(new Error("enough"));
    };
    await expect(mineHardNegatives(pairs, parts, { ...options, signal: stop.signal, onProgress })).rejects.toThrow(
      "enough",
    );
    expect(existsSync(parts)).toBe(false);
    writeFileSync(`${parts}.partial`, "a slice that was cut off", { flag: "a" });
    await expect(mineHardNegatives(pairs, parts, { ...options, negatives: 3 })).rejects.toThrow(
      "of a run with other pairs, surrogate or options",
    );
    const report = await mineHardNegatives(pairs, parts, options);
    expect(report.resumedFrom).toBe(4096);
    expect(readFileSync(parts, "utf8")).toBe(readFileSync(whole, "utf8"));
    expect(readdirSync(dirname(parts)).filter((name) => /partial|corpus/.test(name))).toEqual([]);
    await expect(mineHardNegatives(pairs, parts, options)).rejects.toThrow("is there already");
    // A corpus in three parts of memory, each compared with every slice.
    const small = temporaryPath("small.jsonl");
    await mineHardNegatives(pairs, small, { ...options, maxCorpusBytes: 2048 * 16 * 4 });
    expect(readFileSync(small, "utf8")).toBe(readFileSync(whole, "utf8"));
  });
});

test("lists keep the best, of equal ones the lower row, whatever the blocks", () => {
  const values = [0.5, 0.9, 0.5, 0.1, 0.9, 0.5, 0.7];
  for (const block of [1, 2, 7]) {
    const lists = new TopLists(1, 4);
    for (let first = 0; first < values.length; first += block)
      lists.add(Float32Array.from(values.slice(first, first + block)), first, 0, 1);
    expect(lists.list(0).map(({ row }) => row)).toEqual([1, 4, 6, 0]);
  }
});

test("refuses rules that don't fit, and a corpus of nothing", async () => {
  await using pairs = await createPairSet(temporaryPath("pairs"), topicPairs(2, 3));
  const refused: [Partial<MineOptions>, string][] = [
    [{ negatives: 0 }, "negatives must be an integer of at least 1"],
    [{ ranks: { from: 5, to: 5 } }, "got 5 to 5"],
    [{ relativeMargin: Number.NaN }, "relativeMargin must be a number"],
    [{ sampling: "best" as "top" }, "top or random"],
    [{ corpus: [] }, "no documents"],
    [{ corpus: ["x", " "] }, "document 1 of the corpus is empty"],
  ];
  for (const [options, message] of refused) await expect(mine(pairs, options)).rejects.toThrow(message);
});

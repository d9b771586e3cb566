import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createPairSet } from "../data/create-pair-set.js";
import type { PairRecord } from "../data/pair-record.js";
import { temporaryPath } from "../data/temporary.test.support.js";
import type { Batches, EpochOptions, PackedBatch } from "./batches.js";
import { type BatchesOptions, createBatches } from "./create-batches.js";
import { measureBatches } from "./measure.js";
import { functionSurrogate } from "./surrogate.js";
import { topicPairs, topicSurrogate, topicVector } from "./topics.test.support.js";

const RUNTIME = { threads: 1 };
const pairSet = (records: PairRecord[]) => createPairSet(temporaryPath("pairs"), records);

async function all(batches: Batches, epoch: number, options?: EpochOptions): Promise<PackedBatch[]> {
  const found: PackedBatch[] = [];
  for await (const batch of batches.epoch(epoch, options)) found.push(batch);
  return found;
}
const ids = (batches: readonly PackedBatch[]) => batches.map(({ pairs }) => pairs.map(({ id }) => id).join());
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

describe("contextual batches", () => {
  test("are of one topic where random ones are of many, and so harder", async () => {
    await using pairs = await pairSet(topicPairs(8, 32));
    const { surrogate } = topicSurrogate();
    const options = { batchSize: 32, surrogate, clusters: { clusterSize: 32 }, runtime: RUNTIME };
    const measure = async (more: BatchesOptions) => {
      await using batches = await createBatches(pairs, { ...options, ...more });
      const found = await all(batches, 0);
      expect(found.length).toBe(8);
      const topics = found.map((batch) => new Set(batch.pairs.map(({ id }) => id.split(" ")[0])).size);
      return { topics: mean(topics), difficulty: mean(found.map(({ report }) => report.difficulty!)), found };
    };
    const contextual = await measure({});
    const random = await measure({ strategy: "random" });
    expect(contextual.topics).toBeLessThan(2.5);
    expect(random.topics).toBe(8);
    expect(contextual.difficulty).toBeGreaterThan(random.difficulty + 0.3);
    for (const { report } of contextual.found) expect(report.clusters).toBeLessThan(5);
    await using again = await createBatches(pairs, options);
    const summary = await measureBatches(again, 0);
    expect(summary.difficulty).toBeCloseTo(contextual.difficulty, 10);
    expect(summary).toMatchObject({ batches: 8, knownPositives: 0, repeatedNegatives: 0, candidates: 8 * 32 * 31 });
    expect(await measureBatches(again, 0, { limit: 3 })).toMatchObject({ batches: 3, candidates: 3 * 32 * 31 });
    const drawn = await measure({ clusterOrder: "random" });
    expect(drawn.topics).toBeLessThan(2.5);
  });

  test("have every pair once an epoch, full, of one data set, and no text twice", async () => {
    const repeated = Array.from({ length: 30 }, (_, i) => ({
      dataset: "b",
      id: `r${i}`,
      query: `q 1 ${i >> 1}`,
      positive: `d 1 ${i % 15}x`,
    }));
    await using pairs = await pairSet([...topicPairs(5, 21, "a"), ...repeated]);
    const { surrogate } = topicSurrogate();
    await using batches = await createBatches(pairs, { batchSize: 8, surrogate, runtime: RUNTIME });
    const seen = new Map<string, number>();
    const found = await all(batches, 3);
    for (const { pairs: of, dataset } of found) {
      expect(of.length).toBe(8);
      expect(new Set(of.map(({ query }) => query)).size).toBe(8);
      expect(new Set(of.map(({ positive }) => positive)).size).toBe(8);
      for (const { id } of of) {
        expect(id.startsWith("r")).toBe(dataset === "b");
        seen.set(id, (seen.get(id) ?? 0) + 1);
      }
    }
    expect(new Set(seen.values())).toEqual(new Set([1]));
    const plan = await batches.plan(3);
    expect(plan).toMatchObject({ epoch: 3, batches: found.length });
    expect(plan.leftOut + seen.size).toBe(135);
    expect(plan.datasets[0]).toEqual({ name: "a", batches: 13, leftOut: 1 }); // 105 pairs
  });

  test("a seed gives the same batches, a run goes on at any batch, and every epoch is another", async () => {
    await using pairs = await pairSet(topicPairs(6, 20));
    const { surrogate } = topicSurrogate();
    const make = (seed: number) => createBatches(pairs, { batchSize: 10, surrogate, seed, runtime: RUNTIME });
    await using batches = await make(1);
    await using same = await make(1);
    await using other = await make(2);
    const whole = await all(batches, 0);
    expect(await all(same, 0)).toEqual(whole);
    expect(same.digest).toBe(batches.digest);
    expect(ids(await all(other, 0))).not.toEqual(ids(whole));
    expect(other.digest).not.toBe(batches.digest);
    await all(same, 1); // what came between doesn't count
    expect(await all(same, 0, { from: 5, ahead: 3 })).toEqual(whole.slice(5));
    expect(await all(same, 0, { from: 12 })).toEqual([]);
    expect(whole.map(({ epoch, number }) => [epoch, number])).toEqual(whole.map((_, i) => [0, i]));
    // The reference replays the same batches in every epoch. Here the sets of pairs differ, not only their order.
    const sets = (list: readonly PackedBatch[]) =>
      list
        .map(({ pairs: of }) =>
          of
            .map(({ id }) => id)
            .sort()
            .join(),
        )
        .sort();
    expect(sets(await all(batches, 1))).not.toEqual(sets(whole));
    await expect(all(batches, 0, { from: 13 })).rejects.toThrow("there is no batch 13; epoch 0 has 12");
    await expect(all(batches, -1)).rejects.toThrow("counted from 0");
  });

  test("vectors and clusters are made once: opened again nothing is embedded but the probe", async () => {
    await using pairs = await pairSet(topicPairs(4, 20));
    const first = topicSurrogate();
    const options = { batchSize: 10, clusters: { clusterSize: 20 }, runtime: RUNTIME };
    await using made = await createBatches(pairs, { ...options, surrogate: first.surrogate });
    expect(first.embedded.length).toBe(1 + 160);
    const again = topicSurrogate();
    await using opened = await createBatches(pairs, { ...options, surrogate: again.surrogate });
    expect(again.embedded.length).toBe(1);
    expect(ids(await all(opened, 0))).toEqual(ids(await all(made, 0)));
    expect(opened.digest).toBe(made.digest);
    expect(readdirSync(join(pairs.folder, "surrogates")).filter((name) => name.startsWith("clusters-")).length).toBe(1);
    const changed = functionSurrogate(async (texts) => texts.map((text) => topicVector(`${text} new`).reverse()), {
      modelId: "topics",
    });
    await expect(createBatches(pairs, { ...options, surrogate: changed })).rejects.toMatchObject({
      code: "MODEL_CHANGED",
    });
  });

  test("a data set that doesn't fit in memory is clustered on a part, and all its pairs are assigned", async () => {
    await using pairs = await pairSet(topicPairs(4, 64));
    const { surrogate } = topicSurrogate();
    const row = 2 * 2 * 16 * 4; // two rows of two vectors
    await using batches = await createBatches(pairs, {
      batchSize: 64,
      surrogate,
      clusters: { maxTrainingBytes: 100 * row },
      runtime: RUNTIME,
    });
    const found = await all(batches, 0);
    expect(found.length).toBe(4);
    for (const { pairs: of } of found) expect(new Set(of.map(({ id }) => id.split(" ")[0])).size).toBeLessThan(3);
  });
});

describe("masks", () => {
  const score = (a: string, b: string) => {
    const [x, y] = [topicVector(a), topicVector(b)];
    return x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  };

  test("are what the rule says of the surrogate's scores, hard negatives in columns behind the positives", async () => {
    const records = topicPairs(3, 12).map((pair, i) => ({
      ...pair,
      negatives: [`n ${i % 3} ${i}`, `n ${(i + 1) % 3} ${i}`].slice(i % 2),
    }));
    await using pairs = await pairSet(records);
    const { surrogate } = topicSurrogate();
    for (const margin of [0, -0.3]) {
      await using batches = await createBatches(pairs, {
        batchSize: 12,
        surrogate,
        falseNegatives: { rule: "positive", margin },
        runtime: RUNTIME,
      });
      let masked = 0;
      for (const { pairs: of, falseNegatives, report } of await all(batches, 0)) {
        const documents = [...of.map(({ positive }) => positive), ...of.flatMap(({ negatives }) => negatives)];
        const expected = of.flatMap(({ query, positive, negatives }) =>
          documents.map((document) =>
            Number(
              document !== positive &&
                !negatives.includes(document) &&
                score(query, document) >= score(query, positive) + margin,
            ),
          ),
        );
        expect([...falseNegatives!]).toEqual(expected);
        masked += expected.reduce((a, b) => a + b, 0);
        expect(report.falseNegatives).toBe(expected.reduce((a, b) => a + b, 0));
        expect(report.candidates).toBe(12 * documents.length - 12 - (documents.length - 12));
        const counted = of.flatMap(({ query, positive, negatives }, i) =>
          documents.flatMap((document, j) =>
            document === positive || negatives.includes(document) || expected[i * documents.length + j]
              ? []
              : [score(query, document)],
          ),
        );
        expect(report.difficulty).toBeCloseTo(mean(counted), 5);
      }
      if (margin < 0) expect(masked).toBeGreaterThan(20);
    }
  });

  test("another positive of the query is masked by the data alone, and not where that is switched off", async () => {
    // Each query has two positives, and each of these is the positive of another query as well.
    const records = Array.from({ length: 20 }, (_, i) => [
      { query: `question ${i}`, positive: `answer ${i}` },
      { query: `question ${i}`, positive: `answer ${(i + 1) % 20}` },
    ]).flat();
    await using pairs = await pairSet(records);
    await using batches = await createBatches(pairs, { batchSize: 10 });
    let known = 0;
    for (const { pairs: of, falseNegatives, report } of await all(batches, 0)) {
      const expected = of.flatMap(({ query, positive }) => {
        const i = Number(query.split(" ")[1]);
        return of.map((other) =>
          Number(other.positive !== positive && [`answer ${i}`, `answer ${(i + 1) % 20}`].includes(other.positive)),
        );
      });
      expect([...falseNegatives!]).toEqual(expected);
      expect(report).toMatchObject({ difficulty: undefined, knownPositives: report.falseNegatives });
      known += report.knownPositives;
    }
    expect(known).toBeGreaterThan(0);
    await using without = await createBatches(pairs, { batchSize: 10, knownPositives: false });
    for (const batch of await all(without, 0)) expect(batch.falseNegatives).toBeUndefined();
  });

  test("a hard negative that is another pair's positive stands there once, and is still the query's own", async () => {
    await using pairs = await pairSet([
      { id: "a", query: "one", positive: "first", negatives: ["Second!", "third"] },
      { id: "b", query: "two", positive: "second", negatives: ["third"] },
    ]);
    await using batches = await createBatches(pairs, { batchSize: 2, inBatchNegatives: false });
    const [batch] = await all(batches, 0);
    const documents = [
      ...batch!.pairs.map(({ positive }) => positive),
      ...batch!.pairs.flatMap(({ negatives }) => negatives),
    ];
    expect([...documents].sort()).toEqual(["first", "second", "third"]);
    expect(batch!.report.repeatedNegatives).toBe(2);
    // Own: for "one" all three; for "two" its positive and "third", whichever pair carries it. All else is masked.
    const expected = batch!.pairs.flatMap(({ id }) => documents.map((text) => Number(id === "b" && text === "first")));
    expect([...batch!.falseNegatives!]).toEqual(expected);
  });

  test("of more hard negatives than wanted each epoch draws others", async () => {
    const records = topicPairs(2, 4).map((pair) => ({
      ...pair,
      negatives: Array.from({ length: 6 }, (_, i) => `n ${pair.id} ${i}`),
    }));
    await using pairs = await pairSet(records);
    await using batches = await createBatches(pairs, { batchSize: 8, hardNegatives: 2 });
    const drawn = async (epoch: number) =>
      new Map((await all(batches, epoch))[0]!.pairs.map(({ id, negatives }) => [id, negatives]));
    const [first, again, next] = [await drawn(0), await drawn(0), await drawn(1)];
    for (const [id, negatives] of first) {
      expect(negatives.length).toBe(2);
      for (const negative of negatives) expect(negative).toContain(`n ${id} `);
    }
    expect(again).toEqual(first);
    expect(next).not.toEqual(first);
  });
});

describe("what can't be batched", () => {
  test("a data set smaller than a batch is an error that names it, or is left out", async () => {
    const small = topicPairs(1, 3, "small").map((pair) => ({ ...pair, query: `${pair.query} small` })); // no duplicates
    await using pairs = await pairSet([...topicPairs(2, 10, "large"), ...small]);
    await expect(createBatches(pairs, { batchSize: 8 })).rejects.toThrow(
      'a batch of 8 is more than there is of "small" (3 pairs',
    );
    await using batches = await createBatches(pairs, { batchSize: 8, smallDatasets: "skip" });
    expect((await batches.plan(0)).datasets.map(({ name }) => name)).toEqual(["large"]);
    await expect(createBatches(pairs, { batchSize: 30, smallDatasets: "skip" })).rejects.toThrow(
      "Take a smaller batchSize.",
    );
  });

  test("so is one with many pairs of few queries", async () => {
    await using pairs = await pairSet(
      Array.from({ length: 40 }, (_, i) => ({ query: `q ${i % 4}`, positive: `d ${i}` })),
    );
    await expect(createBatches(pairs, { batchSize: 8 })).rejects.toThrow(
      "(40 pairs, 4 different queries, 40 different positives)",
    );
  });

  test("options that don't fit are refused", async () => {
    await using pairs = await pairSet(topicPairs(2, 10));
    const { surrogate } = topicSurrogate();
    const refused: [BatchesOptions, string][] = [
      [{ batchSize: 1 }, "a pair alone has nothing to differ from"],
      [{ strategy: "contextual" }, "needs { surrogate }: it clusters by it"],
      [{ falseNegatives: { rule: "positive" } }, "they are found by its scores"],
      [{ surrogate, falseNegatives: { rule: "absolute", threshold: 7 } }, "from -2 to 2"],
      [{ hardNegatives: -1 }, "got -1"],
      [{ seed: -1 }, "seed"],
      [{ strategy: "other" as "random" }, "contextual or random"],
      [{ batchSize: 4, surrogate, clusters: { clusterSize: 0 }, runtime: RUNTIME }, "clusterSize must be an integer"],
    ];
    for (const [options, message] of refused)
      await expect(createBatches(pairs, { batchSize: 4, ...options })).rejects.toThrow(message);
  });

  test("an abort ends preparation and an epoch", async () => {
    await using pairs = await pairSet(topicPairs(4, 20));
    const { surrogate } = topicSurrogate();
    const stop = new AbortController();
    const options = { batchSize: 10, surrogate, runtime: RUNTIME };
    const onProgress = () => stop.abort(new Error("enough"));
    await expect(createBatches(pairs, { ...options, signal: stop.signal, onProgress })).rejects.toThrow("enough");
    await using batches = await createBatches(pairs, options);
    const later = new AbortController();
    const epoch = batches.epoch(0, { signal: later.signal });
    await epoch[Symbol.asyncIterator]().next();
    later.abort(new Error("stop"));
    await expect(epoch[Symbol.asyncIterator]().next()).rejects.toThrow("stop");
  });
});

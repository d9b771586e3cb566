import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CorruptFileError, InvalidInputError } from "@cde-js/core";
import {
  type DataSet,
  evaluate,
  lengthSlices,
  type MetricName,
  missingDocuments,
  readBeirRun,
  readDataSet,
  readQrels,
  readTrecRun,
  sliceBy,
  writeBeirQrels,
  writeBeirRun,
  writeTrecRun,
} from "@cde-js/core/evaluation";
import { CorpusIndex } from "@cde-js/retriever";
import { afterAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { tableEmbedder } from "../support/table-embedder.js";

const root = mkdtempSync(join(tmpdir(), "cde-evaluate-"));
afterAll(() => rmSync(root, { recursive: true }));

let folders = 0;
function beir(files: {
  corpus: object[];
  queries: object[];
  qrels: Record<string, [string, string, number][]>;
}): string {
  const folder = join(root, `set-${folders++}`);
  mkdirSync(join(folder, "qrels"), { recursive: true });
  const lines = (records: object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join("");
  writeFileSync(join(folder, "corpus.jsonl"), lines(files.corpus));
  writeFileSync(join(folder, "queries.jsonl"), lines(files.queries));
  for (const [split, rows] of Object.entries(files.qrels))
    writeFileSync(
      join(folder, "qrels", `${split}.tsv`),
      `query-id\tcorpus-id\tscore\n${rows.map((row) => `${row.join("\t")}\n`).join("")}`,
    );
  return folder;
}

// Cosines by hand: red · (1, 0) etc.; the third document stands between, the fourth points away.
const corpus = [
  { _id: "d1", title: "Red", text: "roses" },
  { _id: "d2", title: "", text: "blue skies" },
  { _id: "d3", title: "", text: "violet" },
  { _id: "d4", title: "", text: "grey" },
];
const table = {
  "Red roses": [1, 0],
  "blue skies": [0, 1],
  violet: [0.6, 0.8],
  grey: [-1, 0],
  "what is red?": [1, 0],
  "what is blue in the long run?": [0.8, 0.6],
};
const queries = [
  { _id: "q1", text: "what is red?" },
  { _id: "q2", text: "what is blue in the long run?" },
  { _id: "q3", text: "of another split" },
];
const folder = beir({
  corpus,
  queries,
  qrels: {
    test: [
      ["q1", "d3", 1],
      ["q2", "d2", 2],
      ["q2", "d4", 1],
    ],
    dev: [["q3", "d1", 1]],
  },
});
const metrics = ["ndcg@3", "mrr@10", "recall@1", "map", "precision@2", "success@1"] as const;
// q1 ranks d1 (1), d3 (.6), d2 (0), d4 (-1): its only relevant document stands second.
const q1 = {
  "ndcg@3": 1 / Math.log2(3),
  "mrr@10": 1 / 2,
  "recall@1": 0,
  map: 1 / 2,
  "precision@2": 1 / 2,
  "success@1": 0,
};
// q2 ranks d3 (.96), d1 (.8), d2 (.6), d4 (-.8): gains 0, 0, 2 and, behind the cut of nDCG, 1.
const q2 = {
  "ndcg@3": 2 / Math.log2(4) / (2 + 1 / Math.log2(3)),
  "mrr@10": 1 / 3,
  "recall@1": 0,
  map: (1 / 3 + 2 / 4) / 2,
  "precision@2": 0,
  "success@1": 0,
};

function expectByHand(result: { perQuery: ReadonlyMap<string, Record<string, number>>; mean: Record<string, number> }) {
  for (const metric of metrics) {
    expect(result.perQuery.get("q1")![metric]).toBeCloseTo(q1[metric], 12);
    expect(result.perQuery.get("q2")![metric]).toBeCloseTo(q2[metric], 12);
    expect(result.mean[metric]).toBeCloseTo((q1[metric] + q2[metric]) / 2, 12);
  }
}

describe("figures by hand", () => {
  test("of an embedder alone: title before text, exact cosine, only the judged queries of the split", async () => {
    const progress: string[] = [];
    const result = await evaluate(tableEmbedder(table), folder, {
      metrics,
      onProgress: ({ step, done, total }) => progress.push(`${step} ${done}/${total}`),
    });
    expectByHand(result);
    expect([...result.run.keys()]).toEqual(["q1", "q2"]);
    const scores = result.run.get("q2") as ReadonlyMap<string, number>;
    expect([...scores.keys()]).toEqual(["d3", "d1", "d2", "d4"]);
    [0.96, 0.8, 0.6, -0.8].forEach((score, i) => {
      expect([...scores.values()][i]).toBeCloseTo(score, 6);
    });
    expect(result).toMatchObject({ queries: 2, missing: [], truncated: [] });
    expect(progress).toEqual(["documents 4/4", "queries 2/2"]);
  });

  test("of an index, and of any function", async () => {
    const documents = corpus.map(({ _id: id, title, text }) => ({ id, title, text }));
    await using index = await CorpusIndex.build(tableEmbedder(table), documents, { split: false, lexical: false });
    expectByHand(await evaluate(index, folder, { metrics }));
    const asked: number[] = [];
    const result = await evaluate(
      (query, { k }) => {
        asked.push(k);
        return index.search(query, { k, mode: "dense" });
      },
      folder,
      { metrics },
    );
    expectByHand(result);
    expect(asked).toEqual([100, 100]);
    const progress: number[] = [];
    await evaluate(index, folder, { onProgress: ({ done }) => progress.push(done) });
    expect(progress).toEqual([1, 2]);
  });

  test("another ranking gives other figures", async () => {
    const swapped = { ...table, violet: [1, 0], "Red roses": [0.6, 0.8] };
    const { mean } = await evaluate(tableEmbedder(swapped), folder, { metrics: ["mrr@10"] });
    expect(mean["mrr@10"]).toBeCloseTo((1 + 1 / 3) / 2, 12); // d3, with the cosine of d1, now comes first for q1
  });
});

test("documents rank by their best passage, and reports of truncated ones name them", async () => {
  const long = (word: string) => `${word} `.repeat(60).trim();
  const data = beir({
    corpus: [
      { _id: "far", text: `${long("filler")}. ${long("other")}.` },
      { _id: "near", text: `${long("ballast")}. The heron nests by the mill.` },
      { _id: "short", text: "A heron." },
    ],
    queries: [{ _id: "q", text: "heron nests by the mill" }],
    qrels: { test: [["q", "near", 1]] },
  });
  const documents = (await readDataSet(data)).documents;
  const embedder = stubEmbedder();
  await using index = await CorpusIndex.build(embedder, documents, { lexical: false });
  expect(index.passageCount).toBeGreaterThan(3);
  const split = await evaluate(index, data, { metrics: ["mrr@10", "success@1"] });
  expect(split.mean["success@1"]).toBe(1);
  const whole = await evaluate(embedder, data, { metrics: ["mrr@10", "success@1"] });
  expect(whole.truncated).toEqual(["far", "near"]);
  expect(whole.mean["success@1"]).toBe(0);
});

describe("reading a data set", () => {
  test("a sample of the queries is the same for a seed, keeps their order and all documents", async () => {
    const many = beir({
      corpus,
      queries: Array.from({ length: 40 }, (_, i) => ({ _id: `q${i}`, text: `query ${i}` })),
      qrels: { test: Array.from({ length: 40 }, (_, i) => [`q${i}`, "d1", 1]) },
    });
    const ids = async (seed: number) =>
      (await readDataSet(many, { maxQueries: 10, seed })).queries.map(({ id }) => Number(id.slice(1)));
    const first = await ids(1);
    expect(first).toHaveLength(10);
    expect(first).toEqual([...first].sort((a, b) => a - b));
    expect(await ids(1)).toEqual(first);
    expect(await ids(2)).not.toEqual(first);
    const { documents, qrels } = await readDataSet(many, { maxQueries: 10 });
    expect([documents.length, qrels.size]).toEqual([4, 10]);
    expect((await readDataSet(many, { maxQueries: 99 })).queries).toHaveLength(40);
  });

  test("judged documents that the corpus lacks are named and count as never found", async () => {
    const lacking = beir({
      corpus,
      queries,
      qrels: {
        test: [
          ["q1", "d3", 1],
          ["q1", "gone", 1],
        ],
      },
    });
    expect(missingDocuments(await readDataSet(lacking))).toEqual(["gone"]);
    const { mean } = await evaluate(tableEmbedder(table), lacking, { metrics: ["recall@100"] });
    expect(mean["recall@100"]).toBe(1 / 2);
  });

  test.each<[string, () => Promise<unknown>, RegExp]>([
    [
      "a judged query without text",
      () => readDataSet(beir({ corpus, queries: [], qrels: { test: [["q1", "d1", 1]] } })),
      /judges query "q1", which queries.jsonl lacks/,
    ],
    [
      "an empty corpus",
      () => readDataSet(beir({ corpus: [], queries, qrels: { test: [["q1", "d1", 1]] } })),
      /has no documents/,
    ],
    [
      "a split that judges nothing",
      () => readDataSet(beir({ corpus, queries, qrels: { test: [] } })),
      /judges nothing/,
    ],
    ["a sample of none", () => readDataSet(folder, { maxQueries: 0 }), /maxQueries should be .* got 0/],
    ["a split that isn't there", () => readDataSet(folder, { split: "train" }), /It has: dev, test/],
  ])("refuses %s", async (_, call, message) => {
    await expect(call()).rejects.toThrow(message);
  });
});

describe("refuses what would give wrong figures", () => {
  const data: DataSet = {
    name: "tiny",
    split: "test",
    documents: corpus.map(({ _id: id, title, text }) => ({ id, title, text })),
    queries: [{ id: "q1", text: "what is red?" }],
    qrels: new Map([["q1", new Map([["d3", 1]])]]),
  };
  const hits =
    (...ids: string[]) =>
    async () =>
      ids.map((id, i) => ({ id, score: -i }));

  test.each<[string, () => Promise<unknown>, RegExp]>([
    [
      "a metric deeper than the ranking",
      () => evaluate(hits("d1"), data, { metrics: ["recall@50"], depth: 10 }),
      /looks at 50 documents, but depth is 10/,
    ],
    ["no metric", () => evaluate(hits("d1"), data, { metrics: [] as MetricName[] }), /metrics is empty/],
    [
      "an unknown metric",
      () => evaluate(hits("d1"), data, { metrics: ["dcg@10" as MetricName] }),
      /unknown metric "dcg@10"/,
    ],
    ["a depth of 0", () => evaluate(hits("d1"), data, { depth: 0 }), /depth should be an integer of at least 1/],
    ["a document that is given twice", () => evaluate(hits("d1", "d1"), data), /gave a document twice for query "q1"/],
    [
      "more documents than were asked for",
      () => evaluate(hits("d1", "d2"), data, { metrics: ["mrr@1"], depth: 1 }),
      /asked for 1 documents and got 2/,
    ],
    [
      "a query that nobody judged",
      () => evaluate(hits("d1"), { ...data, queries: [...data.queries, { id: "q9", text: "x" }] }),
      /query "q9" of tiny is not judged/,
    ],
    [
      "a judged query without text",
      () => evaluate(hits("d1"), { ...data, queries: [] }),
      /judges query "q1", which has/,
    ],
    [
      "a query twice",
      () => evaluate(hits("d1"), { ...data, queries: [...data.queries, ...data.queries] }),
      /2 queries of 1 different ids/,
    ],
    ["a split of what is read already", () => evaluate(hits("d1"), data, { split: "dev" }), /is read already/],
    [
      "an index of another corpus",
      () => evaluate({ search: hits("d1"), get: async (id) => (id === "d3" ? undefined : {}) }, data),
      /the index lacks document "d3" of tiny/,
    ],
  ])("%s", async (_, call, message) => {
    const error = await call().then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).toBeInstanceOf(InvalidInputError);
    expect((error as Error).message).toMatch(message);
  });

  test("a ranking whose scores rise again is taken in its own order", async () => {
    const mmr = async () => [
      { id: "d1", score: 0.9 },
      { id: "d3", score: 0.2 },
      { id: "d2", score: 0.5 },
    ];
    const { run, mean } = await evaluate(mmr, data, { metrics: ["mrr@10"] });
    expect(run.get("q1")).toEqual(["d1", "d3", "d2"]);
    expect(mean["mrr@10"]).toBe(1 / 2);
  });

  test("stops with the signal's reason", async () => {
    const stop = new AbortController();
    const search = async () => {
      stop.abort(new Error("enough"));
      return [];
    };
    const two = {
      ...data,
      queries: [...data.queries, { id: "q2", text: "x" }],
      qrels: new Map([...data.qrels, ["q2", new Map([["d1", 1]])]]),
    };
    await expect(evaluate(search, two, { signal: stop.signal })).rejects.toThrow("enough");
    await expect(evaluate(tableEmbedder(table), folder, { signal: stop.signal })).rejects.toThrow("enough");
  });
});

describe("slices", () => {
  test("by length of query and of the relevant documents, in words", async () => {
    const { slices } = await evaluate(tableEmbedder(table), folder, { metrics: ["mrr@10"] });
    expect(slices.queryLength).toEqual([
      { from: 3, to: 3, queries: ["q1"], mean: { "mrr@10": 1 / 2 } },
      { from: 7, to: 7, queries: ["q2"], mean: { "mrr@10": 1 / 3 } },
    ]);
    // q1: "violet"; q2: "blue skies" and "grey", 1.5 words in the mean.
    expect(slices.documentLength.map(({ from, queries }) => [from, queries])).toEqual([
      [1, ["q1"]],
      [1.5, ["q2"]],
    ]);
  });

  const evaluation = {
    perQuery: new Map(Array.from({ length: 8 }, (_, i) => [`q${i}`, { map: i / 10 }] as const)),
    mean: { map: 0.35 },
  };
  const values = (...list: number[]) => new Map(list.map((value, i) => [`q${i}`, value]));

  test("are quarters, and equal values are never parted", () => {
    const sizes = (...list: number[]) => sliceBy(evaluation, values(...list)).map(({ queries: ids }) => ids.length);
    expect(sizes(8, 7, 6, 5, 4, 3, 2, 1)).toEqual([2, 2, 2, 2]);
    expect(sizes(1, 1, 1, 1, 1, 2, 3, 4)).toEqual([5, 1, 2]);
    expect(sizes(1, 1, 1, 1, 1, 1, 1, 1)).toEqual([8]);
    expect(sizes(1, 2)).toEqual([1, 1]);
    const [first] = sliceBy(evaluation, values(8, 7, 6, 5, 4, 3, 2, 1));
    expect(first).toEqual({ from: 1, to: 2, queries: ["q7", "q6"], mean: { map: (0.7 + 0.6) / 2 } });
  });

  test("refuse a query that was not evaluated", () => {
    expect(() => sliceBy(evaluation, new Map([["other", 1]]))).toThrow('query "other" was not evaluated');
    expect(() => sliceBy(evaluation, values(Number.NaN))).toThrow('query "q0" has the value NaN');
  });

  test("leave out queries without a relevant document in the corpus", async () => {
    const data = await readDataSet(folder);
    const qrels = new Map([...data.qrels, ["q1", new Map([["gone", 1]])]]);
    const perQuery = new Map([
      ["q1", { map: 1 }],
      ["q2", { map: 0 }],
    ]);
    const { documentLength } = lengthSlices({ ...data, qrels }, { perQuery, mean: { map: 0.5 } });
    expect(documentLength.flatMap(({ queries: ids }) => ids)).toEqual(["q2"]);
  });
});

describe("runs and judgements as files", () => {
  test("a run is the same after TREC's and after BEIR's form", async () => {
    const { run } = await evaluate(tableEmbedder(table), folder, { metrics });
    await writeTrecRun(join(root, "run.trec"), run, { tag: "table" });
    await writeBeirRun(join(root, "run.json"), run);
    expect(await readTrecRun(join(root, "run.trec"))).toEqual(run);
    expect(await readBeirRun(join(root, "run.json"))).toEqual(run);
    expect(JSON.parse(readFileSync(join(root, "run.json"), "utf8")).q1.d1).toBe(1);
  });

  test("a ranked list gets falling scores", async () => {
    await writeBeirRun(join(root, "list.json"), new Map([["q", ["a", "b"]]]));
    expect(JSON.parse(readFileSync(join(root, "list.json"), "utf8"))).toEqual({ q: { a: 2, b: 1 } });
  });

  test("BEIR's judgements are read as they were written", async () => {
    const target = join(root, "written");
    mkdirSync(join(target, "qrels"), { recursive: true });
    const { qrels } = await readDataSet(folder);
    await writeBeirQrels(join(target, "qrels", "test.tsv"), qrels);
    expect(await readQrels(target, "test")).toEqual(qrels);
  });

  test.each([
    ["no JSON", "{", /isn't JSON/],
    ["a list", "[]", /should be an object of queries/],
    ["a query that is a list", '{"q": []}', /gives query "q"/],
    ["a score in words", '{"q": {"d": "high"}}', /document "d" of query "q" "high"/],
    ["a query twice", '{"q": {}, "q": {}}', /has the key "q" twice/],
  ])("refuses a run that is %s", async (_, content, message) => {
    const path = join(root, "bad.json");
    writeFileSync(path, content);
    const error = await readBeirRun(path).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).toBeInstanceOf(CorruptFileError);
    expect((error as Error).message).toMatch(message);
  });

  test("refuses ids that the form can't carry, and leaves no file", async () => {
    const path = join(root, "never.tsv");
    await expect(writeBeirQrels(path, new Map([["a\tb", new Map([["d", 1]])]]))).rejects.toThrow("a query id");
    await expect(writeBeirQrels(path, new Map([["a", new Map([[" d", 1]])]]))).rejects.toThrow("a document id");
    await expect(writeBeirRun(path, new Map([["q", new Map([["d", Number.POSITIVE_INFINITY]])]]))).rejects.toThrow(
      "isn't finite",
    );
    expect(() => readFileSync(path)).toThrow("ENOENT");
  });
});

/** The same corpus in the embedded index and on a Qdrant server: the same hits, whatever is asked. */
import { QdrantIndex } from "@cde-js/adapters/qdrant";
import { CorpusIndex, type Filter, type SearchOptions } from "@cde-js/retriever";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { bySentence, corpus, key, newName, queries, same, testServer, unequalCorpus } from "./support.js";

const documents = unequalCorpus(90);
const embedder = stubEmbedder({ maxTokens: 512 });
const split = bySentence;
const asked = queries(200);
let embedded: CorpusIndex;
let remote: QdrantIndex;

beforeAll(async () => {
  embedded = await CorpusIndex.build(embedder, documents, { split });
  const server = await testServer();
  remote = await QdrantIndex.build(embedder, documents, {
    ...server.options,
    collection: newName(server),
    split,
    search: { exact: true },
    payloadIndexes: { court: "keyword", year: "integer", tags: "keyword", open: "bool" },
  });
});
afterAll(async () => {
  await embedded.close();
  await remote.close();
});

const filters: readonly (Filter | undefined)[] = [
  undefined,
  { must: [{ key: "court", match: { value: "supreme" } }] },
  { must: [{ key: "year", range: { gte: 2000, lt: 2012 } }], must_not: [{ key: "open", match: { value: true } }] },
  { should: [{ key: "tags", match: { any: ["ip"] } }, { has_id: ["case/3", "case/7", "case/11", 5] }] },
  { must_not: [{ is_empty: { key: "tags" } }, { has_vector: "bm25" }] },
  { must: [{ has_id: [] }] },
];

/** All 200 queries for each way of ranking; of a variant of one, a part unless the full counts are asked for. */
const some = process.env.CDE_FULL ? asked : asked.slice(0, 40);

const modes: readonly [string, SearchOptions][] = [
  ["dense", { mode: "dense" }],
  ["lexical", { mode: "lexical" }],
  ["mix", {}],
  ["mix, mostly words", { fusion: { kind: "mix", weight: 0.2, depth: 20 } }],
  ["reciprocal ranks", { fusion: { kind: "rrf", k: 60 } }],
  ["weighted reciprocal ranks", { fusion: { kind: "rrf", k: 2, weights: [3, 1], depth: 30 } }],
  ["score distributions", { fusion: { kind: "dbsf" } }],
];

describe.each(modes)("%s", (name, options) => {
  const own = name.includes("weighted") || name.includes("mostly") ? some : asked;
  test(`${own.length} queries, with and without filters, find what they find embedded`, async () => {
    const found = new Set<string>();
    await Promise.all(
      own.map(async (query, i) => {
        const filter = filters[i % filters.length];
        const search = { ...options, k: 10, ...(filter ? { filter } : {}) };
        const [there, here] = await Promise.all([remote.search(query, search), embedded.search(query, search)]);
        same(there, here);
        found.add(here.map(key).join());
      }),
    );
    // The control: the queries differ.
    expect(found.size).toBeGreaterThan(own.length / 2);
  });

  test("pages, thresholds, one hit a document, diversity, reranking, highlights", async () => {
    const variants: SearchOptions[] = [
      { k: 5, offset: 7 },
      { k: 300 },
      { k: 8, mergeByDocument: true },
      { k: 8, offset: 4, mergeByDocument: true },
      { k: 20, scoreThreshold: name === "lexical" ? 4 : name.includes("reciprocal") ? 0.01 : 0.3 },
      { k: 6, rerank: (_, hits) => hits.map(({ text }) => text.length), rerankCandidates: 12 },
      { k: 3, highlight: true },
    ];
    // Of reciprocal ranks many are equal, and any choice among them is right.
    if (!name.includes("reciprocal")) variants.push({ k: 5, mmr: { lambda: 0.4, candidates: 30 } });
    if (name === "dense")
      variants.push({ k: 40, mmr: { lambda: 0.7, candidates: 25 } }, { k: 5, offset: 3, mmr: { lambda: 0 } });
    for (const query of asked.slice(0, 6)) {
      for (const variant of variants) {
        // What ties at the cut may differ: such reranked candidates are of another choice.
        if (variant.rerank && name.includes("reciprocal")) continue;
        const search = { ...options, ...variant };
        const [found, expected] = await Promise.all([remote.search(query, search), embedded.search(query, search)]);
        if (variant.mmr) expect(found.map(key)).toEqual(expected.map(key));
        else same(found, expected);
      }
    }
  });
});

test("documents come back as they were given", async () => {
  expect(await remote.countDocuments()).toBe(documents.length);
  expect(await remote.countPassages()).toBe(embedded.passageCount);
  for (const id of ["case/0", "case/1", "case/15"]) expect(await remote.get(id)).toEqual(await embedded.get(id));
  expect(await remote.get("nobody")).toBeUndefined();
  const all: string[] = [];
  for await (const document of remote.documents()) all.push(document.id);
  expect(all.sort()).toEqual(documents.map(({ id }) => id).sort());
});

test("what the embedded index refuses is refused, in the same words", async () => {
  const bad: [string, SearchOptions][] = [
    [" ", {}],
    ["flood", { k: 0 }],
    ["flood", { mode: "sparse" as "dense" }],
    ["flood", { filter: { must: [{ key: "year", matches: 3 } as never] } }],
    ["flood", { fusion: { kind: "rrf", k: 0 } }],
    ["flood", { mmr: { lambda: 2 } }],
    ["\ud800", {}],
  ];
  for (const [query, options] of bad) {
    const message = await embedded.search(query, options).then(
      () => "",
      (error: Error) => error.message,
    );
    expect(message).not.toBe("");
    await expect(remote.search(query, options)).rejects.toThrow(message);
  }
});

test("the reserved key can't be asked for", async () => {
  for (const key of ["cde", "cde.id", '"cde".text', "cde[0]"]) {
    await expect(remote.search("flood", { filter: { must: [{ key, match: { value: "x" } }] } })).rejects.toThrow(
      /"cde" is reserved/,
    );
  }
  // The control: a key that only begins so.
  expect(await remote.search("flood", { filter: { must: [{ key: "cdes", match: { value: "x" } }] } })).toEqual([]);
});

test("titles and texts that are split by tokens are embedded and counted alike", async () => {
  const titled = corpus(60, 3);
  const server = await testServer();
  await using here = await CorpusIndex.build(stubEmbedder(), titled);
  await using there = await QdrantIndex.build(stubEmbedder(), titled, {
    ...server.options,
    collection: newName(server),
    search: { exact: true },
  });
  expect(await there.countPassages()).toBe(here.passageCount);
  for (const query of asked.slice(0, 40)) {
    for (const mode of ["dense", "lexical"] as const) {
      same(await there.search(query, { mode, k: 20 }), await here.search(query, { mode, k: 20 }));
    }
  }
});

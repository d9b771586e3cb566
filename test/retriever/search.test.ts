import {
  Bm25Index,
  CorpusIndex,
  ExactIndex,
  type Fusion,
  type Hit,
  InvalidFilterError,
  type Reranker,
  type SearchOptions,
  type VectorIndex,
} from "@cde-js/retriever";
import { afterAll, describe, expect, test } from "vitest";
import { goldenJson } from "../support/golden.js";
import { stubEmbedder } from "../support/stub-embedder.js";
import { tableEmbedder } from "../support/table-embedder.js";

// Cosines with "flood": b 1, d 0.8, a 0.6, c 0. BM25: all texts have 4 words, the average, and 2 of 4 have the word, so
// idf = ln(1 + 2.5 / 2.5) = ln 2; a, which says it twice, has ln 2 · 2 · 1.9 / (2 + 0.9), c has ln 2 · 1.9 / 1.9.
const texts = {
  a: "flood flood river bank",
  b: "water high river bank",
  c: "flood moved river bank",
  d: "rain fell river bank",
};
const tiny = tableEmbedder({
  flood: [1, 0],
  nothing: [1, 0],
  [texts.a]: [0.6, 0.8],
  [texts.b]: [1, 0],
  [texts.c]: [0, 1],
  [texts.d]: [0.8, 0.6],
});
const documents = Object.entries(texts).map(([id, text], n) => ({ id, text, metadata: { n } }));
const index = await CorpusIndex.build(tiny, documents, { split: false });
const denseOnly = await CorpusIndex.build(tiny, documents, { split: false, lexical: false });
afterAll(() => Promise.all([index.close(), denseOnly.close()]));

const ids = (hits: readonly Hit[]): string => hits.map(({ id }) => id).join("");
function expectScores(hits: readonly Hit[], expected: Record<string, number>): void {
  expect(ids(hits)).toBe(Object.keys(expected).join(""));
  for (const { id, score } of hits) expect(score, id).toBeCloseTo(expected[id] as number, 6);
}

describe("each mode on four documents, by hand", () => {
  const bm25 = { a: (Math.LN2 * 2 * 1.9) / 2.9, c: Math.LN2 };

  test("dense ranks by cosine, lexical by BM25, and each says so", async () => {
    const dense = await index.search("flood", { mode: "dense" });
    expectScores(dense, { b: 1, d: 0.8, a: 0.6, c: 0 });
    expect(dense.map(({ scoring, scores, score }) => [scoring, scores, score])).toEqual(
      dense.map(({ score }) => ["cosine", { dense: score }, score]),
    );
    const lexical = await index.search("flood", { mode: "lexical" });
    expectScores(lexical, bm25);
    expect(lexical[0]).toMatchObject({ scoring: "bm25", scores: { lexical: lexical[0]?.score }, metadata: { n: 0 } });
    expect(lexical[0]?.scores).not.toHaveProperty("dense");
  });

  test("the lexical ranking is Bm25Index's", async () => {
    const alone = new Bm25Index();
    for (const [row, { text }] of documents.entries()) alone.upsert(row, text);
    for (const query of ["flood", "river flood moved", "the bank"]) {
      const expected = alone.search(query, { k: 10 }).map(({ row, score }) => [documents[row]?.id, score]);
      const found = await index.search(query, { mode: "lexical" });
      expect(found.map(({ id, score }) => [id, score])).toEqual(expected);
    }
  });

  // Reciprocal ranks from 0: dense b d a c, lexical a c.
  const rrf = { a: 1 / 62 + 1 / 60, c: 1 / 63 + 1 / 61, b: 1 / 60, d: 1 / 61 };
  // Weight w: 1 / (k - 1 + (r + 1) / w), here with k 2 and weights 3 and 1.
  const weighted = { a: 1 / 2 + 1 / 2, b: 1 / (1 + 1 / 3), c: 1 / (1 + 4 / 3) + 1 / 3, d: 1 / (1 + 2 / 3) };
  // Dense: mean 0.6, σ = √(0.56 / 3); lexical: two scores lie √½ σ from their mean. Scaled (x / σ + 3) / 6.
  const sigma = Math.sqrt(0.56 / 3);
  const scaled = (x: number): number => (x + 3) / 6;
  const dbsf = {
    a: scaled(0) + scaled(Math.SQRT1_2),
    b: scaled(0.4 / sigma),
    c: scaled(-0.6 / sigma) + scaled(-Math.SQRT1_2),
    d: scaled(0.2 / sigma),
  };
  const order = (scores: Record<string, number>): Record<string, number> =>
    Object.fromEntries(Object.entries(scores).sort((x, y) => y[1] - x[1]));
  const cases: [string, Fusion | undefined, string, Record<string, number>][] = [
    ["reciprocal rank fusion", { kind: "rrf", k: 60 }, "rrf", rrf],
    ["weighted reciprocal rank fusion", { kind: "rrf", k: 2, weights: [3, 1] }, "rrf", weighted],
    ["distribution-based fusion", { kind: "dbsf" }, "dbsf", dbsf],
    ["a mix, which is the default", undefined, "mix", { a: 0.8, b: 0.5, d: 0.4, c: 0 }],
    ["a mix of other weight", { kind: "mix", weight: 0.9 }, "mix", { b: 0.9, d: 0.72, a: 0.64, c: 0 }],
    // Lists b and a, equal scores scaled to 1; the others come in dense order with 0.
    ["a mix of the first of each", { kind: "mix", weight: 0.5, depth: 1 }, "mix", { b: 0.5, a: 0.5, d: 0, c: 0 }],
  ];
  test.each(cases)("hybrid by %s", async (_, fusion, scoring, expected) => {
    const hits = await index.search("flood", fusion ? { fusion } : {});
    expectScores(hits, order(expected));
    expect(new Set(hits.map((hit) => hit.scoring))).toEqual(new Set([scoring]));
    expect(hits.find(({ id }) => id === "a")?.scores.lexical).toBeCloseTo(bm25.a, 6);
    if (fusion?.depth !== undefined) return;
    const weight = scoring === "mix" ? { weight: fusion?.kind === "mix" ? fusion.weight : 0.5 } : {};
    expect(hits.find(({ id }) => id === "b")?.scores).toEqual({ dense: 1, ...weight });
  });

  test("without a lexical part dense is the default, and the other modes are refused", async () => {
    expect(await denseOnly.search("flood")).toEqual(await index.search("flood", { mode: "dense" }));
    expect([denseOnly.hasLexicalPart, index.hasLexicalPart]).toEqual([false, true]);
    for (const options of [{ mode: "lexical" }, { mode: "hybrid" }, { highlight: true }] satisfies SearchOptions[]) {
      await expect(denseOnly.search("flood", options)).rejects.toThrow(/needs a lexical part, and this index has none/);
    }
  });

  test("a query without a known word finds nothing by words and all by meaning", async () => {
    expect(await index.search("nothing", { mode: "lexical" })).toEqual([]);
    expectScores(await index.search("nothing"), { b: 0.5, d: 0.4, a: 0.3, c: 0 });
  });
});

describe("what comes after the ranking", () => {
  test("a threshold keeps hits of at least this final score", async () => {
    const cut = (scoreThreshold: number, options: SearchOptions = {}): Promise<string> =>
      index.search("flood", { ...options, scoreThreshold }).then(ids);
    expect(await cut(0.5)).toBe("ab");
    expect(await cut(0.399)).toBe("abd");
    expect(await cut(0.41)).toBe("ab");
    expect(await cut(0.41, { offset: 1 })).toBe("b");
    expect(await cut(0.7, { mode: "dense" })).toBe("bd");
    expect(await cut(1.01, { mode: "dense", mmr: { lambda: 0.5 } })).toBe("");
    expect(await cut(5, { rerank: (_, hits) => hits.map((_hit, i) => i * 5) })).toBe("cdb");
  });

  test("a reranker sees hits and orders them by its scores, in every mode, before the page is cut", async () => {
    const seen: string[] = [];
    const rerank: Reranker = async (query, hits) => {
      seen.push(`${query}:${ids(hits)}:${hits[0]?.text}`);
      return hits.map(({ metadata }) => metadata.n as number);
    };
    const hits = await index.search("flood", { mode: "dense", rerank, k: 2 });
    expect(hits.map(({ id, score, scoring }) => [id, score, scoring])).toEqual([
      ["d", 3, "rerank"],
      ["c", 2, "rerank"],
    ]);
    expect(hits[0]?.scores.dense).toBeCloseTo(0.8, 6);
    expect(ids(await index.search("flood", { rerank, k: 2, offset: 2 }))).toBe("ba");
    expect(await index.search("nothing", { mode: "lexical", rerank })).toEqual([]);
    expect(ids(await index.search("flood", { mode: "dense", rerank, k: 1, rerankCandidates: 2 }))).toBe("d");
    expect(seen).toEqual([`flood:bdac:${texts.b}`, `flood:abdc:${texts.a}`, `flood:bd:${texts.b}`]);
  });

  test.each([
    ["too few scores", () => [1], /rerank gave 1 scores for 4 hits/],
    ["NaN", () => [1, Number.NaN, 2, 3], /rerank gave hit 1 the score NaN/],
    ["nothing", () => undefined as never, /must give an array/],
  ] satisfies [string, Reranker, RegExp][])("a reranker that gives %s is refused", async (_, rerank, message) => {
    await expect(index.search("flood", { rerank })).rejects.toThrow(message);
  });

  test("a reranker's own error comes through, and an abort during it counts", async () => {
    const broken = new Error("the reranker broke");
    await expect(index.search("flood", { rerank: () => Promise.reject(broken) })).rejects.toBe(broken);
    const controller = new AbortController();
    const rerank: Reranker = (_, hits) => {
      controller.abort(new Error("enough"));
      return hits.map(() => 0);
    };
    await expect(index.search("flood", { rerank, signal: controller.signal })).rejects.toThrow("enough");
  });

  test("highlights are words of the passage that the query has, stemmed", async () => {
    const [hit] = await index.search("flood", { highlight: true });
    expect(hit?.highlights?.map(({ start, end }) => hit.text.slice(start, end))).toEqual(["flood", "flood"]);
    expect((await index.search("flood"))[0]).not.toHaveProperty("highlights");
  });

  test("merging keeps the best passage of each document, and still fills k", async () => {
    const embedder = stubEmbedder();
    const long = "Pay for the flood. The flood came. Flood again. A flood. Some flood. Last flood.";
    const split = { split: { maxTokens: 6 } };
    await using passages = await CorpusIndex.build(
      embedder,
      [
        { id: "long", text: long },
        { id: "short", text: "One flood in the town." },
        { id: "none", text: "Cats sleep all day." },
      ],
      split,
    );
    for (const mode of ["dense", "lexical", "hybrid"] as const) {
      const plain = await passages.search("flood", { mode, k: 100 });
      const firsts = [...new Map(plain.toReversed().map((hit) => [hit.id, hit])).values()].sort(
        (x, y) => plain.indexOf(x) - plain.indexOf(y),
      );
      expect(plain.length).toBeGreaterThan(firsts.length);
      expect(await passages.search("flood", { mode, k: 100, mergeByDocument: true })).toEqual(firsts);
      expect(await passages.search("flood", { mode, k: 2, mergeByDocument: true })).toEqual(firsts.slice(0, 2));
      expect(await passages.search("flood", { mode, k: 1, offset: 1, mergeByDocument: true })).toEqual([firsts[1]]);
    }
  });
});

describe("maximal marginal relevance", () => {
  interface QdrantGolden {
    points: { id: string | number; vector: { dense: number[] } }[];
    queries: { name: string; points: { id: string | number; score: number }[] }[];
    dense_query: number[];
  }
  const { points, queries, dense_query } = goldenJson<QdrantGolden>("qdrant/qdrant.json");
  const embedder = tableEmbedder({
    query: dense_query,
    ...Object.fromEntries(points.map(({ id, vector }) => [`text ${id}`, vector.dense])),
  });

  test.each([0, 0.3, 0.5, 0.9, 1])("picks from the index what Qdrant picks: diversity %d", async (diversity) => {
    const docs = points.map(({ id }) => ({ id: String(id), text: `text ${id}` }));
    await using qdrant = await CorpusIndex.build(embedder, docs, { split: false });
    const expected = queries.find(({ name }) => name === `MMR, diversity ${diversity.toFixed(1)}`)?.points ?? [];
    const search = (lambda: number): Promise<Hit[]> =>
      qdrant.search("query", { mode: "dense", k: 8, mmr: { lambda, candidates: 20 } });
    const hits = await search(1 - diversity);
    expect(hits.map(({ id }) => id)).toEqual(expected.map(({ id }) => String(id)));
    for (const [i, { score }] of hits.entries()) expect(score).toBeCloseTo(expected[i]?.score as number, 4);
    // The control: lambda the wrong way round picks others.
    if (diversity !== 0.5) expect(ids(await search(diversity))).not.toBe(ids(hits));
  });

  test("weighs scores that are no cosines on the scale of cosines", async () => {
    // Fused a 1/62 + 1/60, c 1/63 + 1/61, b 1/60, d 1/61: scaled 1, 0.97, 0.02, 0. After a, c has (0.97 - 0.8) / 2 and b,
    // farther from a, (0.02 - 0.6) / 2. Unscaled, all would be near 0 beside the cosines, and b would come first.
    const fusion: Fusion = { kind: "rrf", k: 60 };
    const hits = await index.search("flood", { fusion, mmr: { lambda: 0.5 } });
    expect(hits).toEqual(await index.search("flood", { fusion }));
    expect(ids(hits)).toBe("acbd");
    // Diversity alone: after a, b is farthest (0.6); then c, cosine 0.8 to a; d has 0.96.
    expect(ids(await index.search("flood", { mmr: { lambda: 0 } }))).toBe("abcd");
    expect(ids(await index.search("flood"))).toBe("abdc");
    // Only the first two are chosen from; the rest keep their order.
    expect(ids(await index.search("flood", { mmr: { lambda: 0, candidates: 2 } }))).toBe("abdc");
  });
});

describe("refuses", () => {
  const mmr = { lambda: 0.5 };
  const bad: [string, unknown, RegExp][] = [
    ["k of 0", { k: 0 }, /k must be an integer of at least 1, got 0/],
    ["a negative k", { k: -3 }, /got -3/],
    ["a fractional k", { k: 2.5 }, /got 2.5/],
    ["a k that is NaN", { k: Number.NaN }, /got NaN/],
    ["a k that is text", { k: "5" }, /k must be an integer.*got 5/],
    ["a negative offset", { offset: -1 }, /offset must be an integer of at least 0, got -1/],
    ["a fractional offset", { offset: 0.5 }, /got 0.5/],
    ["an unknown mode", { mode: "sparse" }, /one of dense, lexical, hybrid, got "sparse"/],
    ["an unknown fusion", { fusion: { kind: "sum" } }, /one of rrf, dbsf, mix, got "sum"/],
    ["a fusion that is none", { fusion: null }, /fusion must be "auto" or an object, got null/],
    ["a fusion of another name", { fusion: "best" }, /fusion must be "auto" or an object, got "best"/],
    ["a choice of one ranking", { mode: "lexical", fusion: "auto" }, /fusion "auto".*mode is "lexical"/],
    ["mmr as a number", { mmr: 0.5 }, /mmr must be an object, got 0.5/],
    ["a fusion without kind", { fusion: {} }, /got undefined/],
    ["reciprocal rank fusion without k", { fusion: { kind: "rrf" } }, /k must be a whole number from 1, got undefined/],
    [
      "one weight for two lists",
      { fusion: { kind: "rrf", k: 60, weights: [1] } },
      /2 lists need as many weights, got 1/,
    ],
    ["a negative weight", { fusion: { kind: "rrf", k: 60, weights: [1, -1] } }, /weights\[1\] is -1/],
    ["a weight above 1", { fusion: { kind: "mix", weight: 1.5 } }, /from 0 to 1, got 1.5/],
    ["a mix without weight", { fusion: { kind: "mix" } }, /from 0 to 1, got undefined/],
    ["depth 0", { fusion: { kind: "dbsf", depth: 0 } }, /fusion.depth must be an integer of at least 1, got 0/],
    ["a fusion of one ranking", { mode: "dense", fusion: { kind: "dbsf" } }, /fusion "dbsf".*mode is "dense"/],
    ["lambda above 1", { mmr: { lambda: 2 } }, /lambda.*got 2/],
    ["mmr without lambda", { mmr: {} }, /lambda.*got undefined/],
    ["no mmr candidates", { mmr: { ...mmr, candidates: 0 } }, /mmr.candidates.*got 0/],
    ["a threshold that is NaN", { scoreThreshold: Number.NaN }, /scoreThreshold must be a finite number, got NaN/],
    ["a reranker that is none", { rerank: [1] }, /rerank must be a function, got an array of 1/],
    ["no candidates to rerank", { rerankCandidates: 1.5 }, /rerankCandidates.*got 1.5/],
  ];
  test.each(bad)("%s, before it searches", async (_, options, message) => {
    const search = index.search("flood", options as SearchOptions);
    await expect(search).rejects.toMatchObject({ code: "INVALID_INPUT", message: expect.stringMatching(message) });
  });

  test("filters that can't be evaluated, by place", async () => {
    for (const filter of [{ must: [{ key: "n", matches: { value: 1 } }] }, { musst: [] }, { must: { key: "n" } }, 7]) {
      await expect(index.search("flood", { filter: filter as never })).rejects.toBeInstanceOf(InvalidFilterError);
    }
    expect(await index.search("flood", { filter: { must: { key: "missing", match: { value: 1 } } } })).toEqual([]);
  });
});

test("an abort reaches the index of vectors, and ends the search", async () => {
  const controller = new AbortController();
  const patient = (dimensions: number): VectorIndex => {
    const exact = new ExactIndex(dimensions);
    return {
      dimensions,
      get count() {
        return exact.count;
      },
      upsert: (labels, vectors) => exact.upsert(labels, vectors),
      delete: (labels) => exact.delete(labels),
      search: (_query, _k, { signal } = {}) =>
        new Promise((_, reject) => {
          if (!signal) throw new Error("no signal came");
          signal.addEventListener("abort", () => reject(signal.reason));
          controller.abort(new Error("enough"));
        }),
      close: () => exact.close(),
      [Symbol.asyncDispose]: () => exact.close(),
    };
  };
  await using slow = await CorpusIndex.build(tiny, documents, { split: false, vectorIndex: patient });
  await expect(slow.search("flood", { signal: controller.signal })).rejects.toThrow("enough");
});

test("the metadata of a hit is the caller's: what is changed there shows in no other hit, also of the same document", async () => {
  const long = { id: "long", text: "flood one. flood two.", metadata: { tags: ["a"] } };
  const halves = () => [
    { start: 0, end: 10 },
    { start: 11, end: 21 },
  ];
  const table = tableEmbedder({ flood: [1, 0], "flood one.": [1, 0], "flood two.": [0.6, 0.8] });
  await using parted = await CorpusIndex.build(table, [long], { split: halves });
  const rerank: Reranker = (_, hits) => {
    ((hits[0] as Hit).metadata.tags as string[]).push("of the reranker");
    return [1, 2];
  };
  const hits = await parted.search("flood", { rerank });
  expect(hits.map(({ metadata }) => metadata)).toEqual([{ tags: ["a"] }, { tags: ["a"] }]);
  ((hits[0] as Hit).metadata.tags as string[]).push("mine");
  expect(hits[1]?.metadata).toEqual({ tags: ["a"] });
  expect((await parted.get("long"))?.metadata).toEqual({ tags: ["a"] });
  expect((await parted.search("flood"))[0]?.metadata).toEqual({ tags: ["a"] });
});

/** `fusion: "auto"` on a server: the embedded engine's weights, one request a query, and nothing silent. */
import { type QdrantCreateOptions, QdrantIndex } from "@cde-js/adapters/qdrant";
import type { Embedder } from "@cde-js/core";
import { CorpusIndex, describeFusion, type Filter, type Hit, type SearchOptions } from "@cde-js/retriever";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import {
  bySentence,
  doubleOnly,
  key,
  largeCorpus,
  misbehave,
  mixedQueries,
  newName,
  same,
  type TestServer,
  testServer,
} from "./support.js";

const embedder = stubEmbedder({ maxTokens: 128 });
const documents = largeCorpus(260);
const split = bySentence;
const even = { fusion: { kind: "mix", weight: 0.5 } } as const;
const asked = mixedQueries(200);
/** All queries only where the full counts are asked for. */
const some = process.env.CDE_FULL ? asked : asked.slice(0, 40);

/** Of vectors so close together that their falls are stretched: then it matters which passages were asked. */
function closeEmbedder(): Embedder {
  const close = (vector: Float32Array): Float32Array => {
    const moved = vector.map((x, i) => x + (i === 1 ? 1.6 : 0));
    const length = Math.hypot(...moved);
    return moved.map((x) => x / length);
  };
  return {
    ...embedder,
    fingerprint: embedder.fingerprint.replace(/^.{8}/, "c105ec10"),
    embedQuery: async (text, options) => close(await embedder.embedQuery(text, options)),
    embedDocuments: async (texts, options) => {
      const { vectors, truncated } = await embedder.embedDocuments(texts, options);
      return { vectors: vectors.map(close), truncated };
    },
  };
}

function build(
  server: TestServer,
  options: Partial<QdrantCreateOptions> & { of?: Embedder; count?: number } = {},
): Promise<QdrantIndex> {
  const { of = embedder, count = documents.length, ...rest } = options;
  return QdrantIndex.build(of, documents.slice(0, count), {
    ...server.options,
    collection: newName(server),
    split,
    search: { exact: true },
    ...rest,
  });
}

const filters: readonly (Filter | undefined)[] = [
  undefined,
  { must: [{ key: "court", match: { value: "supreme" } }] },
  undefined,
  { must: [{ key: "year", range: { gte: 2000, lt: 2004 } }], must_not: [{ key: "open", match: { value: true } }] },
  { must_not: [{ has_id: ["case/3", "case/7"] }] },
];
const payloadIndexes = { court: "keyword", year: "integer", open: "bool" } as const;

/** How many of these queries have other scores with the weight 0.5. */
async function differing(index: QdrantIndex, queries: readonly string[]): Promise<number> {
  let count = 0;
  for (const query of queries) {
    const [auto, half] = await Promise.all([index.search(query), index.search(query, even)]);
    if (auto.some(({ score }, i) => Math.abs(score - half[i]!.score) > 1e-3)) count++;
  }
  return count;
}

describe.each([
  ["cosines as usual", embedder, asked],
  ["cosines close together", closeEmbedder(), some],
])("520 passages with %s", (name, of, queries) => {
  let embedded: CorpusIndex;
  let remote: QdrantIndex;
  beforeAll(async () => {
    const server = await testServer();
    embedded = await CorpusIndex.build(of, documents, { split });
    remote = await build(server, { of, payloadIndexes });
  });
  afterAll(async () => {
    await embedded.close();
    await remote.close();
  });

  test("the same passages are asked, whatever order they lie in", () => {
    expect(embedded.fusion).toMatchObject({ asked: 64, passages: 520 });
    expect(remote.fusion).toMatchObject({ asked: 64, passages: 520 });
    expect(remote.fusion!.fall).toBeCloseTo(embedded.fusion!.fall, 5);
    // What each half of the test is for.
    if (name.includes("usual")) expect(describeFusion(remote.fusion)).toMatch(/as usual/);
    else expect(describeFusion(remote.fusion)).toMatch(/multiplied by/);
  });

  test(`${queries.length} queries without options find what they find embedded`, async () => {
    const found = new Set<string>();
    for (const [i, query] of queries.entries()) {
      const filter = filters[i % filters.length];
      const search: SearchOptions = filter ? { filter } : {};
      const [there, here] = await Promise.all([remote.search(query, search), embedded.search(query, search)]);
      expect(there[0]?.scoring).toBe("mix");
      same(there, here);
      found.add(here.map(key).join());
    }
    expect(found.size).toBeGreaterThan(queries.length / 2);
  });

  test("named, with pages, thresholds, one hit a document, diversity and reranking too", async () => {
    const variants: SearchOptions[] = [
      { k: 5, offset: 7 },
      { k: 150 },
      { k: 8, mergeByDocument: true },
      { k: 20, scoreThreshold: 0.3 },
      { k: 6, rerank: (_: string, hits: readonly Hit[]) => hits.map(({ text }) => text.length), rerankCandidates: 12 },
      { k: 5, mmr: { lambda: 0.4, candidates: 30 } },
    ];
    for (const query of queries.slice(0, 6)) {
      for (const variant of variants) {
        const search = { ...variant, fusion: "auto" } as const;
        const [found, expected] = await Promise.all([remote.search(query, search), embedded.search(query, search)]);
        if (variant.mmr) expect(found.map(key)).toEqual(expected.map(key));
        else same(found, expected);
      }
    }
  });

  test("the control: the weight 0.5 gives other scores", async () => {
    expect(await differing(remote, some)).toBeGreaterThan(some.length * 0.9);
  });
});

/** Requests since the last call, and their paths after the collection's name. */
function sinceThen(server: TestServer): string[] {
  const { requests } = server.double!;
  return requests.splice(0).map(({ method, path }) => `${method} ${path.split("/").slice(3).join("/")}`);
}

const CHOOSING = ["POST points/count", "GET ", "POST points/scroll", "POST points/query/batch", "PATCH "];

async function metadataOf({ options }: TestServer, collection: string): Promise<Record<string, unknown>> {
  const headers = options.apiKey === undefined ? {} : { "api-key": options.apiKey };
  const response = await fetch(`${options.url}/collections/${collection}`, { headers });
  const { result } = (await response.json()) as { result: { config: { metadata: Record<string, unknown> } } };
  return result.config.metadata;
}

const chosenIn = (metadata: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(metadata).filter(([name]) => name.startsWith("cde.fusion.")));

describe("requests", () => {
  test("a query takes one, with a search a word in it; choosing takes five, once", async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    await using index = await build(server);
    // After the last write, and never again.
    expect(sinceThen(server).slice(-5)).toEqual(CHOOSING);
    await index.search("flood flood court insurance term2000");
    expect(server.double.requests).toHaveLength(1);
    const { searches } = server.double.requests[0]!.body as { searches: Record<string, unknown>[] };
    expect(searches).toHaveLength(2 + 4);
    expect(searches.slice(2).every(({ limit, with_payload }) => limit === 1 && with_payload === false)).toBe(true);
    expect(sinceThen(server)).toEqual(["POST points/query/batch"]);
    // The control: where no weight is to be chosen nothing is asked about words.
    for (const options of [even, { mode: "dense" }, { mode: "lexical" }] as const) {
      await index.search("flood court", options);
      const [{ body }] = server.double.requests as unknown as [{ body: { searches?: unknown[] } }];
      expect(body.searches?.length ?? 1).toBeLessThanOrEqual(2);
      expect(sinceThen(server)).toHaveLength(1);
    }
  });

  test("an object that opens the collection counts its passages once, and takes what is kept", async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    await using built = await build(server);
    const query = "flood court term40";
    const hits = await built.search(query);
    await using opened = await QdrantIndex.open(embedder, {
      ...server.options,
      collection: built.collection,
      search: { exact: true },
    });
    expect(opened.fusion).toEqual(built.fusion);
    sinceThen(server);
    expect(await Promise.all([opened.search(query), opened.search(query)])).toEqual([hits, hits]);
    expect(sinceThen(server)).toEqual(["POST points/count", "POST points/query/batch", "POST points/query/batch"]);
  });

  test("a small collection is counted, and one without words isn't even that", async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    await using small = await build(server, { count: 249 });
    expect(sinceThen(server).slice(-2)).toEqual(["PUT points", "POST points/count"]);
    expect(small.fusion).toBeUndefined();
    expect(await small.search("flood court")).toEqual(await small.search("flood court", even));
    sinceThen(server);
    await using silent = await build(server, { lexical: false });
    expect(sinceThen(server)).not.toContain("POST points/count");
    await silent.search("flood court");
    expect(sinceThen(server)).toEqual(["POST points/query"]);
  });
});

describe("what is chosen", () => {
  test("lies in the metadata beside the record, and a changed one is refused", async ({ skip }) => {
    const server = await testServer();
    await using index = await build(server);
    const vector = `context-${embedder.fingerprint.slice(0, 16)}`;
    const metadata = await metadataOf(server, index.collection);
    expect(chosenIn(metadata)).toEqual({ [`cde.fusion.${vector}`]: index.fusion });
    expect(Object.keys(metadata).sort()).toEqual(["cde", `cde.fusion.${vector}`]);
    if (!server.double) return skip(doubleOnly);
    misbehave(server, {
      method: "GET",
      path: /collections\/[^/]+$/,
      fault: { kind: "answer", change: (body) => JSON.parse(JSON.stringify(body).replace('"asked":64', '"asked":-1')) },
    });
    const open = QdrantIndex.open(embedder, { ...server.options, collection: index.collection });
    await expect(open).rejects.toMatchObject({ code: "QDRANT_COLLECTION", message: /fusion that is none.*null/ });
  });

  test("is chosen anew when the collection has doubled", async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    const collection = newName(server);
    await using index = await build(server, { collection });
    const before = index.fusion;
    const more = largeCorpus(530).slice(260);
    await index.upsert(more.slice(0, 250));
    sinceThen(server);
    await index.search("flood");
    expect(index.fusion).toEqual(before);
    // What was written is counted once, and not with each query.
    await index.search("flood");
    const batch = "POST points/query/batch";
    expect(sinceThen(server)).toEqual(["POST points/count", batch, batch]);
    await index.upsert(more.slice(250));
    sinceThen(server);
    await Promise.all([index.search("flood"), index.search("court")]);
    expect(sinceThen(server)).toEqual([...CHOOSING, batch, batch]);
    expect(index.fusion?.passages).toBe(1060);
    await using whole = await CorpusIndex.build(embedder, [...documents, ...more], { split });
    expect(index.fusion?.fall).toBeCloseTo(whole.fusion!.fall, 5);
    expect(Object.values(chosenIn(await metadataOf(server, collection)))).toEqual([index.fusion]);
  });

  test("another context is asked before it answers; a way back keeps its own, and what is dropped leaves none", async () => {
    const server = await testServer();
    const next = stubEmbedder({ maxTokens: 128, context: "next" });
    await using index = await build(server);
    const first = index.fusion;
    const nameOf = ({ fingerprint }: Embedder): string => `cde.fusion.context-${fingerprint.slice(0, 16)}`;
    if (server.double) sinceThen(server);
    await index.recontext({ embedder: next });
    const second = index.fusion;
    expect(second).toMatchObject({ asked: 64, passages: 520 });
    expect(second!.fall).not.toBe(first!.fall);
    // Chosen before the switch: no search waits for it, and none is weighed by the context before.
    if (server.double) {
      const kinds = sinceThen(server);
      expect(kinds.lastIndexOf("POST points/scroll")).toBeLessThan(kinds.lastIndexOf("PATCH "));
      await index.search("flood court");
      expect(sinceThen(server)).toEqual(["POST points/query/batch"]);
    }
    await using local = await CorpusIndex.build(next, documents, { split });
    for (const query of asked.slice(0, 10)) same(await index.search(query), await local.search(query));
    expect(chosenIn(await metadataOf(server, index.collection))).toEqual({
      [nameOf(embedder)]: first,
      [nameOf(next)]: second,
    });
    await index.rollback();
    expect(index.fusion).toEqual(first);
    await index.rollback();
    await index.dropPrevious();
    expect(chosenIn(await metadataOf(server, index.collection))).toEqual({ [nameOf(next)]: second });
  });

  test("a tenant's own passages and words decide, and its choice stays with the object", async () => {
    const server = await testServer();
    const collection = newName(server);
    const tenants = { tenants: true, collection } as const;
    await using one = await build(server, { ...tenants, tenant: "one" });
    await using two = await QdrantIndex.build(embedder, largeCorpus(300).slice(290), {
      ...server.options,
      ...tenants,
      tenant: "two",
      split,
    });
    expect(one.fusion).toMatchObject({ asked: 64, passages: 520 });
    expect(two.fusion).toBeUndefined();
    expect(chosenIn(await metadataOf(server, collection))).toEqual({});
    await using alone = await CorpusIndex.build(embedder, documents, { split });
    expect(one.fusion!.fall).toBeCloseTo(alone.fusion!.fall, 5);
    for (const query of asked.slice(0, 20)) same(await one.search(query), await alone.search(query));
  });
});

describe("strict mode", () => {
  const strict = (limits: object) => ({ parameters: { strict_mode_config: { enabled: true, ...limits } } });

  test.each([1, 3])("batches hold at most %i searches, and find the same", async (most) => {
    const server = await testServer();
    await using free = await build(server);
    await using index = await build(server, strict({ search_max_batchsize: most }));
    expect(index.fusion).toEqual(free.fusion);
    const query = "flood court insurance term40 term50";
    const expected = await free.search(query);
    if (server.double) sinceThen(server);
    expect(await index.search(query)).toEqual(expected);
    if (server.double) expect(sinceThen(server)).toHaveLength(Math.ceil((2 + 5) / most));
  });

  test("a hundred passages a search are enough; with less nothing is chosen, and a search says what it would take", async () => {
    const server = await testServer();
    await using enough = await build(server, strict({ max_query_limit: 100 }));
    expect(enough.fusion).toMatchObject({ asked: 64, passages: 520 });
    expect((await enough.search("flood court")).length).toBe(10);
    await using less = await build(server, strict({ max_query_limit: 99 }));
    expect(less.fusion).toBeUndefined();
    await expect(less.search("flood court")).rejects.toMatchObject({ code: "QDRANT_LIMIT" });
  });

  test("filters ask for nothing that has no index", async () => {
    const server = await testServer();
    const limits = { unindexed_filtering_retrieve: false, filter_max_conditions: 4 };
    await using index = await build(server, { ...strict(limits), tenants: true, tenant: "one" });
    expect(index.fusion).toMatchObject({ asked: 64 });
    expect((await index.search("flood court")).length).toBe(10);
  });
});

describe("a server that answers nonsense", () => {
  type Scored = { score: unknown; vector?: { bm25?: { indices: unknown[]; values: unknown[] } } };
  type Batch = { result: { points: Scored[] }[] };
  const words = (change: (point: Scored, points: Scored[]) => void) => (body: unknown) => {
    for (const { points } of (body as Batch).result.slice(2)) for (const point of [...points]) change(point, points);
    return body;
  };
  let server: TestServer;
  let index: QdrantIndex;
  let hits: Hit[];
  beforeAll(async () => {
    server = await testServer();
    if (!server.double) return;
    index = await build(server, { retries: 0 });
    hits = await index.search("flood court term40");
    return () => index.close();
  });

  test.for<[string, (body: unknown) => unknown, RegExp]>([
    ["no vector", words((point) => delete point.vector), /for one word gives the score .* weighs it NaN/],
    ["another word", words(({ vector }) => vector!.bm25!.indices.fill(1)), /weighs it NaN/],
    ["no weight", words(({ vector }) => vector!.bm25!.values.fill(0)), /weighs it 0/],
    ["a weight beyond BM25's", words(({ vector }) => vector!.bm25!.values.fill(2)), /weighs it 2/],
    ["a score below nothing", words((point) => (point.score = -1)), /gives the score -1/],
    ["no number", words((point) => (point.score = "high")), /has the score "high"/],
    ["lists of other lengths", words(({ vector }) => vector!.bm25!.values.pop()), /neither numbers nor indices/],
    ["indices that are none", words(({ vector }) => vector!.bm25!.indices.fill(0.5)), /neither numbers nor indices/],
    ["two points for one", words((point, points) => points.push(point)), /2 points, asked for 1/],
    ["no passage by any word", words((_, points) => points.splice(0)), /by the query's words, and none by any of them/],
    ["too few answers", (body) => ({ ...(body as Batch), result: (body as Batch).result.slice(1) }), /4 answers to 5/],
  ])("about words: %s", async ([, change, message], { skip }) => {
    if (!server.double) return skip(doubleOnly);
    misbehave(server, { path: /query\/batch/, times: 2, fault: { kind: "answer", change } });
    const error: unknown = await index.search("flood court term40").catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "QDRANT_ANSWER", message: expect.stringMatching(message) });
    // Not remembered.
    server.double.behave();
    expect(await index.search("flood court term40")).toEqual(hits);
  });

  type Page = { result: { points: { vector?: Record<string, number[]> }[] } };
  const vectors = (change: (point: Page["result"]["points"][number]) => void) => (body: unknown) => {
    (body as Page).result.points.forEach(change);
    return body;
  };

  test.for<[string, RegExp, (body: unknown) => unknown, RegExp]>([
    ["no vectors", /scroll/, vectors((point) => delete point.vector), /of point .* is missing/],
    ["short vectors", /scroll/, vectors(({ vector }) => Object.values(vector!)[0]!.pop()), /has 63 components/],
    ["zero vectors", /scroll/, vectors(({ vector }) => Object.values(vector!)[0]!.fill(0)), /zero everywhere/],
    ["none at all", /scroll/, () => ({ result: { points: [], next_page_offset: null } }), /none, of 520 passages/],
    [
      "points of nobody",
      /scroll/,
      (body) => JSON.parse(JSON.stringify(body).replace('"n":', '"m":')),
      /names no document/,
    ],
    ["a count that is none", /count/, () => ({ result: { count: -1 } }), /expected a count/],
    [
      "too many neighbours",
      /query\/batch/,
      (body) => {
        for (const { points } of (body as Batch).result) points.push(...points.slice(0, 3));
        return body;
      },
      /103 points, asked for 100/,
    ],
  ])("about passages: %s", async ([, path, change, message], { skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    const collection = newName(server);
    const options = { ...server.options, collection, split, search: { exact: true }, retries: 0 };
    await using index = await QdrantIndex.create(embedder, options);
    await index.upsert(documents);
    misbehave(server, { path, fault: { kind: "answer", change } });
    const error: unknown = await index.search("flood court").catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "QDRANT_ANSWER", message: expect.stringMatching(message) });
    expect(index.fusion).toBeUndefined();
    // The next search tries again.
    expect((await index.search("flood court")).length).toBe(10);
    expect(index.fusion).toMatchObject({ asked: 64, passages: 520 });
  });

  test("a key that may only read chooses for itself; any other refusal is an error, and the next search tries again", async ({
    skip,
  }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    const collection = newName(server);
    const options = { ...server.options, collection, split, search: { exact: true }, retries: 0 };
    await using index = await QdrantIndex.create(embedder, options);
    await index.upsert(documents);
    const refuse = (status: number) =>
      misbehave(server, { method: "PATCH", fault: { kind: "status", status, message: "Forbidden" } });
    await using reader = await QdrantIndex.open(embedder, options);
    refuse(403);
    const hits = await reader.search("flood court");
    expect(reader.fusion).toMatchObject({ asked: 64, passages: 520 });
    expect(chosenIn(await metadataOf(server, collection))).toEqual({});
    sinceThen(server);
    await reader.search("flood court");
    expect(sinceThen(server)).toEqual(["POST points/query/batch"]);
    refuse(500);
    await expect(index.search("flood court")).rejects.toMatchObject({ code: "QDRANT_REQUEST", status: 500 });
    expect(await index.search("flood court")).toEqual(hits);
    expect(Object.values(chosenIn(await metadataOf(server, collection)))).toEqual([reader.fusion]);
  });
});

test("who gives up while passages are asked is free at once, and others get their answer", async ({ skip }) => {
  const server = await testServer();
  if (!server.double) return skip(doubleOnly);
  const collection = newName(server);
  await using index = await QdrantIndex.create(embedder, { ...server.options, collection, split });
  await index.upsert(documents);
  const controller = new AbortController();
  const reason = new Error("never mind");
  misbehave(server, {
    path: /scroll/,
    fault: () => {
      controller.abort(reason);
      return { kind: "slow", milliseconds: 50 };
    },
  });
  const given = index.search("flood court", { signal: controller.signal });
  const waiting = index.search("flood court");
  await expect(given).rejects.toBe(reason);
  expect(index.fusion).toBeUndefined();
  expect((await waiting).length).toBe(10);
  expect(index.fusion).toMatchObject({ asked: 64 });
});

test("a query that shares no word with any passage is weighed evenly, and one of blanks for words has none", async () => {
  const server = await testServer();
  await using index = await build(server);
  const [none, half] = await Promise.all([index.search("zygote xylem"), index.search("zygote xylem", even)]);
  expect(none).toEqual(half);
  expect(none.length).toBe(10);
  expect((await index.search("the of")).length).toBe(10);
});

/** The LangChain store on Qdrant: the contract, and each defect that the store published beside it has. */
import { inspect } from "node:util";
import {
  ContextualEmbeddings,
  CorpusTranslator,
  QdrantCorpusStore,
  type QdrantCorpusStoreOptions,
} from "@cde-js/adapters/langchain";
import { retrieverContract, type VectorStoreLike, vectorStoreContract } from "@cde-js/adapters/testing";
import { SelfQueryRetriever } from "@langchain/classic/retrievers/self_query";
import { Document } from "@langchain/core/documents";
import { RunnableLambda } from "@langchain/core/runnables";
import { Comparison, StructuredQuery } from "@langchain/core/structured_query";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { doubleOnly, newName, type TestServer, testServer } from "./support.js";

const embeddings = () => new ContextualEmbeddings(stubEmbedder());
const shared = testServer();

async function newStore(options: Partial<QdrantCorpusStoreOptions> = {}): Promise<QdrantCorpusStore> {
  const server = await shared;
  return await QdrantCorpusStore.create(embeddings(), { ...server.options, collection: newName(server), ...options });
}

vectorStoreContract({ describe, test }, "QdrantCorpusStore", {
  create: async () => (await newStore()) as unknown as VectorStoreLike,
  close: (store) => (store as unknown as QdrantCorpusStore).close(),
  openWithOtherContext: async (store) => {
    const { index } = store as unknown as QdrantCorpusStore;
    const other = new ContextualEmbeddings(stubEmbedder({ context: "other" }));
    const { options } = await shared;
    return await QdrantCorpusStore.fromExistingCollection(other, { ...options, collection: index.collection });
  },
});

retrieverContract({ describe, test }, "QdrantCorpusStore.asRetriever", {
  create: async (k) => {
    const store = await newStore();
    await store.addDocuments(["foo", "foo bar", "baz", "bar"].map((pageContent) => new Document({ pageContent })));
    return store.asRetriever(k === undefined ? {} : { k });
  },
});

const texts = ["foo", "foo foo", "baz", "bar foo", "roof"];
const documents = (): Document[] => texts.map((pageContent, i) => new Document({ pageContent, metadata: { i } }));

describe("the eleven defects of @langchain/qdrant 1.0.3 are none here", () => {
  test("1: MMR with lambda 0 is diverse, and the server is sent diversity 1 - lambda", async () => {
    await using store = await newStore();
    await store.addDocuments(documents());
    const ask = async (lambda: number): Promise<string[]> => {
      const found = await store.maxMarginalRelevanceSearch("foo", { k: 2, fetchK: 5, lambda });
      return found.map(({ pageContent }) => pageContent);
    };
    expect(await ask(1)).toEqual(["foo", "foo foo"]);
    expect(await ask(0)).not.toContain("foo foo");
    const { double } = await shared;
    const sent = double?.requests.at(-1)?.body as { query: { mmr: { diversity: number } } } | undefined;
    if (sent) expect(sent.query.mmr.diversity).toBe(1);
  });

  test("2: addDocuments and addVectors resolve to the ids", async () => {
    await using store = await newStore();
    expect(await store.addDocuments(documents().slice(0, 2), { ids: ["a", "b"] })).toEqual(["a", "b"]);
    const vectors = await store.embeddings.embedDocuments(["baz"]);
    const [id] = await store.addVectors(vectors, [new Document({ pageContent: "baz", id: "mine" })]);
    expect(id).toBe("mine");
    expect(await store.similaritySearch("baz", 1)).toMatchObject([{ id: "mine" }]);
  });

  test("3: more than 32 MiB go out in several requests", async () => {
    await using store = await newStore();
    const heavy = Array.from({ length: 18 }, (_, i) => {
      return new Document({ pageContent: `foo ${i}`, metadata: { note: "x".repeat(2_000_000) } });
    });
    expect(await store.addDocuments(heavy)).toHaveLength(18);
    expect(await store.index.countDocuments()).toBe(18);
  });

  test("4 and 9: ids of any kind go in, and come back as they were", async () => {
    await using store = await newStore();
    const ids = ["1", "no-uuid", "a/b?c", "Ünïcödé 🙂", "00000000-0000-5000-8000-000000000001"];
    expect(await store.addDocuments(documents(), { ids })).toEqual(ids);
    const found = await store.similaritySearch("foo", 9);
    expect(found.map(({ id }) => id).sort()).toEqual([...ids].sort());
    expect((await store.getByIds(ids)).map(({ id }) => id)).toEqual(ids);
  });

  test("5: no request asks for other collections, and a search is one request", async ({ skip }) => {
    await using store = await newStore();
    await store.addDocuments(documents());
    const { double } = await shared;
    if (!double) return skip(doubleOnly);
    const before = double.requests.length;
    await store.similaritySearch("foo", 2);
    expect(double.requests.length - before).toBe(1);
    expect(double.requests.some(({ path }) => path === "/collections")).toBe(false);
  });

  test("6: opening an existing collection makes none", async () => {
    const { options } = await shared;
    const collection = newName(await shared);
    for (let i = 0; i < 2; i++) {
      const opened = QdrantCorpusStore.fromExistingCollection(embeddings(), { ...options, collection });
      await expect(opened).rejects.toMatchObject({ code: "QDRANT_COLLECTION", status: 404 });
    }
  });

  test("7: the size comes from the embeddings, nothing is embedded for it, and another size is refused", async () => {
    const asked: string[] = [];
    const own = embeddings();
    const watched = Object.assign(Object.create(own), {
      embedQuery: (text: string) => {
        asked.push(text);
        return own.embedQuery(text);
      },
      embedDocuments: (all: string[]) => {
        asked.push(...all);
        return own.embedDocuments(all);
      },
    }) as ContextualEmbeddings;
    const server = await shared;
    const options = { ...server.options, collection: newName(server) };
    await using store = await QdrantCorpusStore.fromTexts(["foo"], {}, watched, options);
    expect(asked).toEqual(["foo"]);
    const small = Object.assign(Object.create(own), { dimensions: 32 }) as ContextualEmbeddings;
    await expect(QdrantCorpusStore.fromExistingCollection(small, options)).rejects.toThrow(
      /has 64 dimensions.* has 32/,
    );
    expect(store.index.dimensions).toBe(64);
  });

  test("8: words, hybrid search, payload indexes and thresholds are there", async () => {
    await using store = await newStore({ payloadIndexes: { i: "integer" } });
    await store.addDocuments(documents());
    const hits = await store.index.search("roof", {
      fusion: { kind: "rrf", k: 60 },
      filter: { must: [{ key: "i", range: { gte: 2 } }] },
    });
    expect(hits[0]).toMatchObject({ text: "roof", scoring: "rrf" });
    const lexical = await store.index.search("roof", { mode: "lexical" });
    expect(lexical.map(({ text }) => text)).toEqual(["roof"]);
    expect((await store.index.search("roof", { mode: "dense", scoreThreshold: 0.9 })).length).toBe(1);
  });

  test("9: errors keep their cause", async ({ skip }) => {
    const { double, options } = await shared;
    if (!double) return skip(doubleOnly);
    await using store = await newStore({ ...options, retries: 0 });
    double.misbehave({ path: /query/, fault: { kind: "status", status: 503 } });
    const error: Error = await store.similaritySearch("foo", 1).then(
      () => expect.fail("nothing failed"),
      (reason: Error) => reason,
    );
    double.behave();
    expect(error).toMatchObject({ code: "QDRANT_REQUEST", status: 503 });
    expect(error.cause).toMatchObject({ status: 503 });
  });

  test("10: MMR asks for no vectors that it throws away, and every search says its limit", async ({ skip }) => {
    const { double } = await shared;
    if (!double) return skip(doubleOnly);
    await using store = await newStore();
    await store.addDocuments(documents());
    const before = double.requests.length;
    expect(await store.maxMarginalRelevanceSearch("foo", { k: 4 })).toHaveLength(4);
    expect(await store.similaritySearch("foo")).toHaveLength(4);
    for (const { body } of double.requests.slice(before)) {
      expect(body).toMatchObject({ limit: 4 });
      expect(body).not.toHaveProperty("with_vector");
    }
  });

  test("11: there is no default name, and two contexts can't share a collection", async () => {
    const server = await shared;
    const unnamed = QdrantCorpusStore.create(embeddings(), { ...server.options } as QdrantCorpusStoreOptions);
    await expect(unnamed).rejects.toThrow(/name of a collection must be a string/);
    await using store = await newStore();
    const other = new ContextualEmbeddings(stubEmbedder({ context: "other" }));
    const options = { ...server.options, collection: store.index.collection };
    await expect(QdrantCorpusStore.create(other, options)).rejects.toMatchObject({ code: "FINGERPRINT_MISMATCH" });
    expect(() => new QdrantCorpusStore(other, store.index)).toThrow(/has the fingerprint/);
  });
});

test("retrievers of every kind, with filters, leave the caller's documents alone", async () => {
  const server: TestServer = await shared;
  const given = documents();
  const options = { ...server.options, collection: newName(server) };
  await using store = await QdrantCorpusStore.fromDocuments(given, embeddings(), options);
  expect(given).toEqual(documents());
  const filter = { must: [{ key: "i", match: { any: [2, 4] } }] };
  expect((await store.asRetriever({ k: 3, filter }).invoke("foo")).map(({ metadata }) => metadata.i).sort()).toEqual([
    2, 4,
  ]);
  const diverse = store.asRetriever({ k: 2, searchType: "mmr", searchKwargs: { fetchK: 5, lambda: 0 } });
  expect(await diverse.invoke("foo")).toHaveLength(2);
  await store.delete({ filter });
  expect(await store.index.countDocuments()).toBe(3);
  for (const wrong of [{}, { ids: ["1"], filter }])
    await expect(store.delete(wrong)).rejects.toThrow(/either ids or filter/);
});

test("blank documents are found by their vectors, and metadata that JSON would change are refused", async () => {
  await using store = await newStore();
  await store.addDocuments([new Document({ pageContent: "", id: "blank" })]);
  expect(await store.similaritySearch("anything", 1)).toMatchObject([{ id: "blank", pageContent: "" }]);
  for (const metadata of [{ at: new Date(0) }, { x: Number.NaN }, { x: undefined }, { cde: 1 }]) {
    const added = store.addDocuments([new Document({ pageContent: "x", metadata })]);
    await expect(added).rejects.toMatchObject({ code: "INVALID_INPUT" });
  }
  await expect(store.addDocuments(documents(), { ids: ["a"] })).rejects.toThrow(/5 documents and 1 ids/);
  const twice = store.addDocuments(documents().slice(0, 2), { ids: ["a", "a"] });
  await expect(twice).rejects.toThrow(/has the id "a" of the one at 0/);
});

test("a serialised store shows neither key nor address", async () => {
  const server = await shared;
  await using store = await newStore(server.double ? { apiKey: "qd-secret-3f9a" } : {});
  const all = `${JSON.stringify(store)} ${JSON.stringify(store.toJSON())} ${inspect(store, { depth: 9 })}`;
  expect(all).not.toContain("qd-secret-3f9a");
  expect(JSON.stringify(store.toJSON())).not.toContain("127.0.0.1");
  expect(store.toJSON()).toMatchObject({ type: "not_implemented" });
});

test("refuses vectors of its context where the collection has moved to another", async () => {
  const server = await testServer();
  const [first, second] = [stubEmbedder(), stubEmbedder({ context: "moved" })];
  const embeddings = new ContextualEmbeddings(first);
  await using store = await QdrantCorpusStore.fromTexts(["flood", "cat"], {}, embeddings, {
    ...server.options,
    collection: newName(server),
  });
  await store.index.recontext({ embedder: second });
  const moved = { code: "FINGERPRINT_MISMATCH", expected: second.fingerprint, actual: first.fingerprint };
  await expect(store.similaritySearch("flood", 1)).rejects.toMatchObject(moved);
  await expect(store.maxMarginalRelevanceSearch("flood", { k: 1 })).rejects.toMatchObject(moved);
  await expect(store.addDocuments([{ pageContent: "x", metadata: {} }])).rejects.toMatchObject(moved);
  // The control: back in its context, it answers.
  await store.index.rollback();
  expect(await store.similaritySearch("flood", 1)).toMatchObject([{ pageContent: "flood" }]);
});

test("finds what a self-query's filter lets through, within the filter of the application", async () => {
  const server = await testServer();
  const documents = [0, 1, 2, 3].map(
    (page) =>
      new Document({ pageContent: `Page ${page} of a lease.`, metadata: { page, tenant: page < 2 ? "a" : "b" } }),
  );
  await using store = await QdrantCorpusStore.fromDocuments(documents, new ContextualEmbeddings(stubEmbedder()), {
    ...server.options,
    collection: newName(server),
  });
  const ask = async (page: number): Promise<number[]> => {
    const filter = new Comparison("gte", "page", page);
    const retriever = new SelfQueryRetriever({
      vectorStore: store,
      queryConstructor: new RunnableLambda({
        func: async (_: { query: string }) => new StructuredQuery("lease", filter),
      }),
      structuredQueryTranslator: new CorpusTranslator<QdrantCorpusStore>({ attributes: ["page"] }),
      searchParams: { k: 9, filter: { must: [{ key: "tenant", match: { value: "b" } }] } },
    });
    return (await retriever.invoke("leases")).map(({ metadata }) => metadata.page).toSorted();
  };
  expect(await ask(1)).toEqual([2, 3]);
  expect(await ask(3)).toEqual([3]);
});

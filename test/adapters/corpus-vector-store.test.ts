import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  ContextualEmbeddings,
  CorpusRetriever,
  CorpusVectorStore,
  type CorpusVectorStoreOptions,
} from "@cde-js/adapters/langchain";
import { type VectorStoreLike, vectorStoreContract } from "@cde-js/adapters/testing";
import { CorruptFileError, FingerprintMismatchError } from "@cde-js/core";
import { CorpusIndex, ExactIndex, hnsw, hnswAvailability, type VectorIndex } from "@cde-js/retriever";
import { CacheBackedEmbeddings } from "@langchain/classic/embeddings/cache_backed";
import { MemoryVectorStore } from "@langchain/classic/vectorstores/memory";
import { Document } from "@langchain/core/documents";
import { index as indexDocuments, RecordManager, type UpdateOptions } from "@langchain/core/indexing";
import { InMemoryStore } from "@langchain/core/stores";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus, newFolder } from "./support.js";

const vitest = { describe, test };
const embeddings = new ContextualEmbeddings(stubEmbedder());
const other = new ContextualEmbeddings(stubEmbedder({ context: "legal" }));
const filter = (key: string, value: string | number) => ({ must: [{ key, match: { value } }] });

const availability = await hnswAvailability();
const hnswReason = availability.state === "ready" ? undefined : `hnswlib-node is ${availability.state}`;

/** The indexes of vectors that the store is held to its contract over: a line for each. */
const indexes: [name: string, options: CorpusVectorStoreOptions][] = [
  ["exact search", {}],
  ["int8 rows", { vectorIndex: (dimensions, base) => new ExactIndex(dimensions, { rows: "int8", base }) }],
  ...(hnswReason === undefined ? [["HNSW", { vectorIndex: hnsw() }] as [string, CorpusVectorStoreOptions]] : []),
];
test.skipIf(hnswReason !== undefined)(
  `CorpusVectorStore keeps its contract over HNSW too${hnswReason === undefined ? "" : ` (skipped: ${hnswReason})`}`,
  () => {
    expect(indexes.map(([name]) => name)).toContain("HNSW");
  },
);

/** Saved and loaded again after every write. */
class ReopenedStore implements VectorStoreLike {
  readonly #directory = newFolder();
  readonly #options: CorpusVectorStoreOptions;
  #store: CorpusVectorStore;

  constructor(options: CorpusVectorStoreOptions) {
    this.#options = options;
    this.#store = new CorpusVectorStore(embeddings, options);
  }

  async #reopen(): Promise<void> {
    await this.save(this.#directory);
    await this.#store.close();
    this.#store = await CorpusVectorStore.load(this.#directory, embeddings, this.#options);
  }

  async addDocuments(documents: Document[], options?: { ids?: string[] }): Promise<string[]> {
    const ids = await this.#store.addDocuments(documents, options);
    await this.#reopen();
    return ids;
  }

  async delete(params?: { ids: string[] }): Promise<void> {
    await this.#store.delete(params);
    await this.#reopen();
  }

  similaritySearch(query: string, k?: number): Promise<Document[]> {
    return this.#store.similaritySearch(query, k) as Promise<Document[]>;
  }

  similaritySearchWithScore(query: string, k?: number): Promise<[Document, number][]> {
    return this.#store.similaritySearchWithScore(query, k) as Promise<[Document, number][]>;
  }

  maxMarginalRelevanceSearch(query: string, options: { k: number; lambda?: number }): Promise<Document[]> {
    return this.#store.maxMarginalRelevanceSearch(query, options);
  }

  getByIds(ids: string[]): Promise<Document[]> {
    return this.#store.getByIds(ids);
  }

  save(directory: string): Promise<void> {
    return this.#store.save(directory);
  }

  close(): Promise<void> {
    return this.#store.close();
  }
}

for (const [name, options] of indexes) {
  const close = (store: VectorStoreLike): Promise<void> => (store as CorpusVectorStore).close();
  const openWithOtherContext = async (store: VectorStoreLike): Promise<unknown> => {
    const directory = newFolder();
    await (store as CorpusVectorStore).save(directory);
    return CorpusVectorStore.load(directory, other, options);
  };
  vectorStoreContract(vitest, `CorpusVectorStore over ${name}`, {
    create: () => new CorpusVectorStore(embeddings, options),
    close,
    openWithOtherContext,
  });
  vectorStoreContract(vitest, `CorpusVectorStore over ${name}, reopened from disk after every write,`, {
    create: () => new ReopenedStore(options),
    close,
    openWithOtherContext,
  });
}

const [noIds, noDelete, noGet] = ["addDocuments returns no ids", "it has no delete", "it has no getByIds"];
vectorStoreContract(vitest, "LangChain's memory store, a control,", {
  create: () => new MemoryVectorStore(embeddings),
  expectedFailures: {
    add_documents: noIds,
    add_nothing: noIds,
    add_documents_documents: noIds,
    add_documents_with_existing_ids: noIds,
    deleting_documents: noDelete,
    deleting_bulk_documents: noDelete,
    delete_missing_content: noDelete,
    add_documents_with_ids_is_idempotent: "it takes no ids and appends",
    add_documents_by_id_with_mutation: "it takes no ids and appends",
    repeated_search: "it gives out its own metadata objects",
    get_by_ids: noGet,
    get_by_ids_missing: noGet,
  },
});

const pages = (): Document[] =>
  corpus.map((pageContent, page) => new Document({ pageContent, metadata: { page, part: { name: `p${page % 2}` } } }));

describe("CorpusVectorStore", () => {
  test("filters by metadata and by id, in searches, in MMR, in retrievers and for deleting", async () => {
    await using store = await CorpusVectorStore.fromDocuments(pages(), embeddings);
    const odd = filter("part.name", "p1");
    const numbers = (found: Document[]): number[] => found.map(({ metadata }) => metadata.page as number).toSorted();
    expect(numbers((await store.similaritySearch("tenant", 9, odd)) as Document[])).toEqual([1, 3, 5]);
    expect(numbers(await store.maxMarginalRelevanceSearch("tenant", { k: 9, filter: odd }))).toEqual([1, 3, 5]);
    const retriever = store.asRetriever({ k: 9, filter: odd, searchType: "mmr", searchKwargs: { lambda: 1 } });
    expect(numbers((await retriever.invoke("tenant")) as Document[])).toEqual([1, 3, 5]);
    expect(retriever.tags).toEqual(["cde"]);
    expect(await store.similaritySearch("tenant", 9, filter("page", 77))).toEqual([]);
    await store.delete({ filter: odd });
    expect(numbers((await store.similaritySearch("tenant", 9)) as Document[])).toEqual([0, 2, 4]);
    const bad = { must: [{ key: "page", equals: 1 }] } as never;
    await expect(store.similaritySearch("tenant", 1, bad)).rejects.toMatchObject({ code: "INVALID_FILTER" });
    await expect(store.delete({ filter: bad })).rejects.toMatchObject({ code: "INVALID_FILTER" });
    for (const params of [undefined, {}, { ids: ["1"], filter: odd }]) {
      await expect(store.delete(params)).rejects.toThrow(/either ids or filter/);
    }
    expect(store.count).toBe(3);
  });

  test("gives cosine similarity, also for vectors given as they are", async () => {
    await using store = new CorpusVectorStore(new ContextualEmbeddings(stubEmbedder({ dimensions: 2 })));
    await store.addVectors([[3, 4], [0, -2]], [new Document({ pageContent: "a" }), new Document({ pageContent: "b" })]); // biome-ignore format: a row a vector
    const found = await store.similaritySearchVectorWithScore([10, 0], 5);
    expect(found.map(([{ pageContent }]) => pageContent)).toEqual(["a", "b"]);
    // (3, 4)/5 · (1, 0) = 0.6 and (0, −1) · (1, 0) = 0
    expect(found[0]?.[1]).toBeCloseTo(0.6, 6);
    expect(found[1]?.[1]).toBeCloseTo(0, 6);
  });

  test("adds all or nothing, and refuses what it can't keep", async () => {
    await using store = new CorpusVectorStore(embeddings);
    const [a, b] = [new Document({ pageContent: "a" }), new Document({ pageContent: "b" })];
    const vector = await embeddings.embedQuery("a");
    await expect(store.addDocuments([a, b], { ids: ["1"] })).rejects.toThrow(/2 documents and 1 ids/);
    await expect(store.addDocuments([a, b], { ids: ["1", "1"] })).rejects.toThrow(
      /position 1 has the id "1" of the one at 0/,
    );
    await expect(store.addDocuments([a, { ...b, id: "" }])).rejects.toThrow(/position 1 has an empty id/);
    await expect(store.addVectors([vector], [a, b])).rejects.toThrow(/2 documents and 1 vectors/);
    await expect(store.addVectors([vector, [1]], [a, b])).rejects.toThrow(/position 1 has 1 components, expected 64/);
    await expect(store.addVectors([vector, vector.map(() => 0)], [a, b])).rejects.toThrow(/position 1 is zero/);
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    for (const metadata of [{ at: new Date(0) }, { x: Number.NaN }, { y: undefined }, { big: 1n }, circle]) {
      await expect(store.addDocuments([a, { pageContent: "b", metadata }])).rejects.toMatchObject({ position: 1 });
    }
    expect(store.count).toBe(0);
    await expect(CorpusVectorStore.fromTexts(["a", "b"], [{}], embeddings)).rejects.toThrow(/2 texts and 1 metadata/);
  });

  test("keeps copies: neither side changes what the other has", async () => {
    await using store = new CorpusVectorStore(embeddings);
    const document = new Document({ pageContent: "flood", metadata: { tags: ["a"] }, id: "1" });
    await store.addDocuments([document]);
    document.metadata.tags.push("b");
    const [found] = await store.similaritySearch("flood", 1);
    found?.metadata.tags.push("c");
    const [[got]] = (await store.similaritySearchWithScore("flood", 1)) as [[Document, number]];
    got.metadata.tags.push("d");
    expect((await store.getByIds(["1"]))[0]?.metadata).toEqual({ tags: ["a"] });
  });

  test("isn't serialised, keeps its embeddings, and is refused embeddings without a context", async () => {
    await using store = new CorpusVectorStore(embeddings);
    expect(JSON.parse(JSON.stringify(store))).toMatchObject({
      type: "not_implemented",
      id: ["langchain", "vectorstores", "cde", "CorpusVectorStore"],
    });
    expect(() => {
      (store as { embeddings: unknown }).embeddings = other;
    }).toThrow(TypeError);
    const cached = CacheBackedEmbeddings.fromBytesStore(embeddings, new InMemoryStore<Uint8Array>(), {
      namespace: embeddings.cacheNamespace,
    });
    expect(() => new CorpusVectorStore(cached as never)).toThrow(/don't say which context/);
    const { modelId, fingerprint, dimensions } = embeddings;
    const bound = Object.assign(cached, { modelId, fingerprint, dimensions });
    await using withCache = await CorpusVectorStore.fromTexts(["flood"], {}, bound);
    expect(await withCache.similaritySearch("flood", 1)).toMatchObject([{ pageContent: "flood" }]);
  });

  test("a write is seen whole by every search beside it", async () => {
    await using store = new CorpusVectorStore(embeddings);
    const ids = corpus.map((_, i) => `${i}`);
    let writing = true;
    const writer = (async () => {
      for (let round = 0; round < 20; round++) {
        await store.addDocuments(pages(), { ids });
        await store.delete({ ids });
      }
    })().finally(() => {
      writing = false;
    });
    let searches = 0;
    while (writing) {
      expect([0, corpus.length]).toContain((await store.similaritySearch("tenant", 9)).length);
      expect([0, corpus.length]).toContain((await store.maxMarginalRelevanceSearch("tenant", { k: 9 })).length);
      searches++;
      // A search of an empty store needs no worker: alone, it would let nothing else run.
      await new Promise((resolve) => setImmediate(resolve));
    }
    await writer;
    expect(searches).toBeGreaterThan(5);
    expect(store.count).toBe(0);
  });
});

describe("a retriever of CorpusVectorStore", () => {
  const texts = ["flood flood", "flood", "cat"];

  test("searches by similarity, and by MMR in LangChain's direction: lambda 1 is relevance, 0 diversity", async () => {
    await using store = await CorpusVectorStore.fromTexts(texts, {}, embeddings);
    const ask = async (fields: Parameters<CorpusVectorStore["asRetriever"]>[0]): Promise<string[]> =>
      (await store.asRetriever(fields).invoke("flood")).map(({ pageContent }) => pageContent);
    const similar = await ask({ k: 2 });
    expect(similar.toSorted()).toEqual(["flood", "flood flood"]);
    expect(await ask({ k: 2, searchType: "similarity" })).toEqual(similar);
    expect(await ask({ k: 2, searchType: "mmr", searchKwargs: { lambda: 1 } })).toEqual(similar);
    expect(await ask({ k: 2, searchType: "mmr", searchKwargs: { lambda: 0 } })).toEqual([similar[0], "cat"]);
    // Where only two are looked at, there is nothing else to choose.
    const narrow = { lambda: 0, fetchK: 2 };
    expect((await ask({ k: 2, searchType: "mmr", searchKwargs: narrow })).toSorted()).toEqual(similar.toSorted());
    expect(await ask(3)).toHaveLength(3);
  });
});

describe("words of CorpusVectorStore", () => {
  test("are counted, also of documents whose vectors were given, and found beside meaning", async () => {
    await using store = new CorpusVectorStore(embeddings);
    await store.addDocuments(pages(), { ids: corpus.map((_, i) => `${i}`) });
    // The vector of another text: by meaning it is found last, by its words first.
    const misled = new Document({ pageContent: "The flood pump is in the cellar.", id: "pump" });
    await store.addVectors([await embeddings.embedQuery("Two cats.")], [misled]);
    const query = "flood pump cellar";
    const [best] = await store.search(query, { mode: "lexical" });
    expect(best).toMatchObject({ id: "pump", scoring: "bm25", text: misled.pageContent });
    expect((await store.search(query, { k: 1 }))[0]).toMatchObject({ id: "pump", scoring: "mix" });
    // The control: LangChain's searches stay cosines.
    const [[first, score]] = (await store.similaritySearchWithScore(query, 1)) as [[Document, number]];
    expect(first.id).not.toBe("pump");
    expect(score).toBeLessThanOrEqual(1);
    const retriever = new CorpusRetriever({ index: store, k: 2, mode: "lexical", parentDocuments: true });
    const found = await retriever.invoke(query);
    expect(found.map(({ id, pageContent }) => [id, pageContent])).toContainEqual(["pump", misled.pageContent]);
    await store.addDocuments([new Document({ pageContent: "It was sold.", id: "pump" })]);
    expect((await store.search("pump", { mode: "lexical" })).length).toBe(0);
    expect(await store.get("pump")).toEqual({ id: "pump", text: "It was sold.", metadata: {} });
  });

  test("are found as the store was told, or not at all", async () => {
    // English words are found by their stems, those of a language without a stemmer as they are written.
    const repair = async (store: CorpusVectorStore): Promise<number> =>
      (await store.search("repair", { mode: "lexical" })).length;
    await using english = await CorpusVectorStore.fromTexts(["Repairs are paid."], {}, embeddings);
    await using plain = await CorpusVectorStore.fromTexts(["Repairs are paid."], {}, embeddings, {
      lexical: { stem: false },
    });
    const directory = newFolder();
    await plain.save(directory);
    await using loaded = await CorpusVectorStore.load(directory, embeddings);
    expect([await repair(english), await repair(plain), await repair(loaded)]).toEqual([1, 0, 0]);
    expect((await loaded.search("repairs", { mode: "lexical" })).length).toBe(1);
    const asked = { lexical: {} } as object;
    await expect(CorpusVectorStore.load(directory, embeddings, asked)).rejects.toThrow(/Leave lexical out/);
    await using mute = new CorpusVectorStore(embeddings, { lexical: false });
    await mute.addDocuments(pages());
    await expect(mute.search("flood", { mode: "lexical" })).rejects.toThrow(/needs a lexical part/);
    expect((await mute.search("flood", { k: 1 }))[0]?.scoring).toBe("cosine");
  });
});

describe("a CorpusVectorStore that lives in a folder", () => {
  test("has every write there when it is acknowledged, for whoever opens it", async () => {
    const directory = join(newFolder(), "store");
    const made = await CorpusVectorStore.fromDocuments(pages(), embeddings, { directory });
    await made.delete({ filter: filter("page", 0) });
    await using reader = await CorpusVectorStore.load(directory, embeddings);
    expect([made.count, reader.count]).toEqual([5, 5]);
    await made.addDocuments([new Document({ pageContent: "A new clause.", id: "new" })]);
    // One writes: another opens the folder and reads.
    await using second = await CorpusVectorStore.open(directory, embeddings);
    expect((await second.getByIds(["new"])).map(({ pageContent }) => pageContent)).toEqual(["A new clause."]);
    await expect(second.addDocuments(pages())).rejects.toMatchObject({ code: "INDEX_LOCKED" });
    await made.close();
    // What was loaded into memory before is of before, and stays in memory.
    await reader.addDocuments([new Document({ pageContent: "Only here.", id: "here" })]);
    await using third = await CorpusVectorStore.open(directory, embeddings);
    expect(third.count).toBe(6);
    expect(await third.getByIds(["here"])).toEqual([]);
    await third.addDocuments([new Document({ pageContent: "And more.", id: "more" })]);
    await using last = await CorpusVectorStore.load(directory, embeddings);
    expect(last.count).toBe(7);
  });

  test("is never made over one that is there, nor by a constructor, which can't wait", async () => {
    const directory = join(newFolder(), "store");
    await (await CorpusVectorStore.fromTexts(["flood"], {}, embeddings, { directory })).close();
    await expect(CorpusVectorStore.fromTexts(["cat"], {}, embeddings, { directory })).rejects.toThrow(
      /holds a store already.*CorpusVectorStore.open/,
    );
    expect(() => new CorpusVectorStore(embeddings, { directory } as object)).toThrow(/constructor can't wait/);
    await expect(CorpusVectorStore.open(newFolder(), embeddings)).rejects.toMatchObject({ code: "MISSING_FILE" });
    await expect(CorpusVectorStore.open(directory, other)).rejects.toMatchObject({ code: "FINGERPRINT_MISMATCH" });
    // Nothing is made where the texts can't be embedded: the next attempt begins anew.
    const broken = Object.assign(Object.create(embeddings) as ContextualEmbeddings, {
      embedDocuments: () => Promise.reject(new Error("no connection")),
    });
    const next = join(newFolder(), "store");
    await expect(CorpusVectorStore.fromTexts(["a"], {}, broken, { directory: next })).rejects.toThrow("no connection");
    await (await CorpusVectorStore.fromTexts(["a"], {}, embeddings, { directory: next })).close();
  });

  test("is an index: CorpusIndex opens it, and a store refuses an index whose documents are split", async () => {
    const directory = join(newFolder(), "store");
    const embedder = stubEmbedder();
    await (await CorpusVectorStore.fromDocuments(pages(), embeddings, { directory })).close();
    await using index = await CorpusIndex.open(directory, embedder);
    expect(index.count).toBe(corpus.length);
    expect((await index.search("two cats, but no dog", { k: 1 }))[0]?.text).toBe(corpus[3]);
    const split = join(newFolder(), "index");
    const text = corpus.join(" ");
    await (await CorpusIndex.build(embedder, [{ id: "all", text }], { directory: split })).close();
    await expect(CorpusVectorStore.load(split, embeddings)).rejects.toThrow(/passages of 1 documents.*CorpusRetriever/);
  });
});

describe("another index of vectors behind CorpusVectorStore", () => {
  const int8 = indexes[1]?.[1] as CorpusVectorStoreOptions;

  test("finds what exact search finds, and saves the same files, to the bit", async () => {
    const ids = corpus.map((_, i) => `${i}`);
    const saved: Map<string, string>[] = [];
    const found: unknown[] = [];
    for (const options of [{}, int8]) {
      await using store = new CorpusVectorStore(embeddings, options);
      await store.addDocuments(pages(), { ids });
      found.push((await store.similaritySearch("who pays for the flood", 6)).map(({ id }) => id));
      found.push((await store.maxMarginalRelevanceSearch("tenant", { k: 3, lambda: 0.3 })).map(({ id }) => id));
      const directory = newFolder();
      await store.save(directory);
      const names = (await readdir(directory)).toSorted();
      const files = names.map(async (name) => [name, await readFile(join(directory, name), "latin1")] as const);
      saved.push(new Map(await Promise.all(files)));
    }
    expect(found.slice(2)).toEqual(found.slice(0, 2));
    expect(saved[0]?.size).toBeGreaterThan(2);
    expect(saved[1]).toEqual(saved[0]);
  });

  test("is made once, when it is needed, with the dimensions; and closed with the store", async () => {
    const made: ExactIndex[] = [];
    const vectorIndex = async (dimensions: number): Promise<VectorIndex> => {
      made.push(new ExactIndex(dimensions));
      return made[0] as VectorIndex;
    };
    const unused = new CorpusVectorStore(embeddings, { vectorIndex });
    await unused.close();
    await expect(unused.similaritySearch("x", 1)).rejects.toMatchObject({ code: "INDEX_CLOSED" });
    expect(made).toEqual([]);
    const store = new CorpusVectorStore(embeddings, { vectorIndex });
    await Promise.all(corpus.map((text) => store.addDocuments([new Document({ pageContent: text })])));
    expect(made.map(({ dimensions, count }) => [dimensions, count])).toEqual([[64, corpus.length]]);
    await store.close();
    await expect(made[0]?.search(new Float32Array(64).fill(1), 1)).rejects.toMatchObject({ code: "INDEX_CLOSED" });
    await expect(store.save(newFolder())).rejects.toMatchObject({ code: "INDEX_CLOSED" });
  });

  test("is refused with other dimensions, with both", async () => {
    await using store = new CorpusVectorStore(embeddings, { vectorIndex: () => new ExactIndex(3) });
    await expect(store.similaritySearch("x", 1)).rejects.toThrow(/an index of 3 dimensions, the embedder has 64/);
  });

  test("that refuses a write leaves the store, and the vectors it saves, as they were", async () => {
    let broken = false;
    const vectorIndex = (dimensions: number): VectorIndex => {
      const index = new ExactIndex(dimensions);
      const upsert: VectorIndex["upsert"] = async (labels, vectors) => {
        if (broken) throw new Error("no room");
        await index.upsert(labels, vectors);
      };
      return new Proxy(index, {
        get(target, key) {
          if (key === "upsert") return upsert;
          const value: unknown = Reflect.get(target, key, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    };
    await using store = new CorpusVectorStore(embeddings, { vectorIndex });
    await store.addDocuments([new Document({ pageContent: "flood", id: "1" })]);
    broken = true;
    const changed = ["1", "2"].map((id) => new Document({ pageContent: "cat", id }));
    await expect(store.addDocuments(changed)).rejects.toThrow("no room");
    const directory = newFolder();
    await store.save(directory);
    await using loaded = await CorpusVectorStore.load(directory, embeddings);
    expect(loaded.count).toBe(1);
    // The vector of "flood", not of "cat": cosine 1.
    expect((await loaded.similaritySearchWithScore("flood", 1))[0]?.[1]).toBeCloseTo(1, 5);
  });
});

describe("a saved CorpusVectorStore", () => {
  test("answers as before, to the bit, and can be written over", async () => {
    const directory = newFolder();
    await using store = await CorpusVectorStore.fromDocuments(pages(), embeddings);
    await store.save(directory);
    await store.delete({ filter: filter("page", 0) });
    await store.save(join(directory, "new", "folder"));
    await using first = await CorpusVectorStore.load(directory, embeddings);
    await using second = await CorpusVectorStore.fromExistingIndex(embeddings, {
      directory: join(directory, "new", "folder"),
    });
    expect([first.count, second.count]).toEqual([6, 5]);
    const query = "who pays for the flood";
    expect(await second.similaritySearchWithScore(query, 9)).toEqual(await store.similaritySearchWithScore(query, 9));
    expect(await first.similaritySearchWithScore(query, 9)).not.toEqual(
      await store.similaritySearchWithScore(query, 9),
    );
    await second.save(directory);
    await using again = await CorpusVectorStore.load(directory, embeddings);
    expect(again.count).toBe(5);
    // Of the generation before nothing is left.
    expect(
      (await readdir(directory)).filter((name) => !/^(new|manifest\.json|lock|\w+-000002\.\w+)$/.test(name)),
    ).toEqual([]);
  });

  test("of more than one block, and an empty one, come back whole", async () => {
    const directory = newFolder();
    const texts = Array.from({ length: 2500 }, (_, i) => `text ${i}`);
    await using store = await CorpusVectorStore.fromTexts(texts, {}, embeddings);
    await store.save(directory);
    await using loaded = await CorpusVectorStore.load(directory, embeddings);
    expect(loaded.count).toBe(2500);
    expect(await loaded.similaritySearch("text 2400", 1)).toEqual(await store.similaritySearch("text 2400", 1));
    await using empty = new CorpusVectorStore(embeddings);
    await empty.save(directory);
    await using reloaded = await CorpusVectorStore.load(directory, embeddings);
    expect(await reloaded.similaritySearch("text", 1)).toEqual([]);
  });

  test("is refused with another context, with both fingerprints", async () => {
    const directory = newFolder();
    await using store = await CorpusVectorStore.fromDocuments(pages(), embeddings);
    await store.save(directory);
    const refused = CorpusVectorStore.load(directory, other);
    await expect(refused).rejects.toBeInstanceOf(FingerprintMismatchError);
    await expect(refused).rejects.toMatchObject({ expected: embeddings.fingerprint, actual: other.fingerprint });
  });

  test("is missed, or found damaged wherever a byte is altered or the end is cut", async () => {
    const directory = newFolder();
    await expect(CorpusVectorStore.load(directory, embeddings)).rejects.toMatchObject({ code: "MISSING_FILE" });
    await using store = await CorpusVectorStore.fromDocuments(pages().slice(0, 2), embeddings);
    await store.save(directory);
    const names = (await readdir(directory)).toSorted();
    expect(names.length).toBeGreaterThan(2);
    for (const name of names) {
      const path = join(directory, name);
      const whole = await readFile(path);
      // The manifest ends in a line break, which says nothing.
      const damaged = [Buffer.alloc(0), whole.subarray(0, 20), whole.subarray(0, -2), Buffer.concat([whole, whole])];
      for (let at = 0; at < whole.length; at += 61) {
        const copy = Buffer.from(whole);
        copy[at] = (copy[at] as number) ^ 0x11;
        damaged.push(copy);
      }
      for (const bytes of damaged) {
        await writeFile(path, bytes);
        const failure: unknown = await CorpusVectorStore.load(directory, embeddings).then(
          () => "loaded",
          (error) => error,
        );
        const typed = failure instanceof CorruptFileError || failure instanceof FingerprintMismatchError;
        expect(typed, `${name} of ${bytes.length} bytes gave ${String(failure)}`).toBe(true);
      }
      await writeFile(path, whole);
    }
    await using again = await CorpusVectorStore.load(directory, embeddings);
    expect(again.count).toBe(2);
  });

  test("stays what it was where a new one can't be written", async () => {
    const directory = newFolder();
    await using store = await CorpusVectorStore.fromDocuments(pages(), embeddings);
    await store.save(directory);
    const files = await readdir(directory);
    await expect(store.save(join(directory, "manifest.json"))).rejects.toMatchObject({ code: "STORAGE" });
    const closing = await CorpusVectorStore.fromDocuments(pages(), embeddings);
    await closing.close();
    await expect(closing.save(directory)).rejects.toMatchObject({ code: "INDEX_CLOSED" });
    expect(await readdir(directory)).toEqual(files);
    await using again = await CorpusVectorStore.load(directory, embeddings);
    expect(again.count).toBe(corpus.length);
  });
});

/** LangChain publishes the contract of a record manager; its memory implementation is in a package of integrations. */
class MemoryRecordManager extends RecordManager {
  override lc_namespace = ["test"];
  readonly #namespace: string;
  readonly #records: Map<string, { at: number; group: string | null }>;
  #clock = 0;

  constructor(namespace: string, records: Map<string, { at: number; group: string | null }>) {
    super({});
    this.#namespace = namespace;
    this.#records = records;
    this.#clock = Math.max(0, ...Array.from(records.values(), ({ at }) => at));
  }

  async createSchema(): Promise<void> {}

  async getTime(): Promise<number> {
    return ++this.#clock;
  }

  async update(keys: string[], { groupIds }: UpdateOptions = {}): Promise<void> {
    const at = ++this.#clock;
    keys.forEach((key, i) => {
      this.#records.set(this.#namespace + key, { at, group: groupIds?.[i] ?? null });
    });
  }

  async exists(keys: string[]): Promise<boolean[]> {
    return keys.map((key) => this.#records.has(this.#namespace + key));
  }

  async listKeys({
    before = Number.POSITIVE_INFINITY,
    groupIds,
  }: {
    before?: number;
    groupIds?: (string | null)[];
  } = {}) {
    const old = [...this.#records].filter(
      ([, { at, group }]) => at < before && (!groupIds || groupIds.includes(group)),
    );
    return old.flatMap(([key]) => (key.startsWith(this.#namespace) ? [key.slice(this.#namespace.length)] : []));
  }

  async deleteKeys(keys: string[]): Promise<void> {
    for (const key of keys) this.#records.delete(this.#namespace + key);
  }
}

describe("index() of LangChain over CorpusVectorStore", () => {
  const run = (store: CorpusVectorStore, recordManager: RecordManager, docsSource: Document[], options = {}) =>
    indexDocuments({ docsSource, recordManager, vectorStore: store, options: { cleanup: "full", ...options } });

  test("adds, skips, changes and removes, whatever the batch", async () => {
    await using store = new CorpusVectorStore(embeddings);
    const manager = new MemoryRecordManager("a", new Map());
    expect(await run(store, manager, pages(), { batchSize: 4 })).toMatchObject({ numAdded: 6, numSkipped: 0 });
    expect(await run(store, manager, pages())).toMatchObject({ numAdded: 0, numSkipped: 6, numDeleted: 0 });
    const changed = [...pages().slice(1), new Document({ pageContent: "A new clause.", metadata: {} })];
    expect(await run(store, manager, changed)).toMatchObject({ numAdded: 1, numSkipped: 5, numDeleted: 1 });
    expect(store.count).toBe(6);
    expect((await store.similaritySearch(corpus[0] as string, 1))[0]?.pageContent).not.toBe(corpus[0]);
    expect(await run(store, manager, changed, { forceUpdate: true })).toMatchObject({ numUpdated: 6 });
    expect(store.count).toBe(6);
  });

  test("fills a store of a new context, where the record manager's namespace carries the fingerprint", async () => {
    const records = new Map<string, { at: number; group: string | null }>();
    const fill = async (bound: ContextualEmbeddings, namespace: string): Promise<number> => {
      await using store = new CorpusVectorStore(bound);
      await run(store, new MemoryRecordManager(namespace, records), pages(), { cleanup: undefined });
      return store.count;
    };
    expect(await fill(embeddings, embeddings.cacheNamespace)).toBe(6);
    expect(await fill(other, other.cacheNamespace)).toBe(6);
    // The control: by one name for both, the second store stays empty, since every text was seen before.
    expect(await fill(embeddings, "corpus")).toBe(6);
    expect(await fill(other, "corpus")).toBe(0);
  });
});

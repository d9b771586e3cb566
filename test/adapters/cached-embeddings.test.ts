import { CachedEmbeddings, ContextualEmbeddings, CorpusVectorStore } from "@cde-js/adapters/langchain";
import { embeddingsContract } from "@cde-js/adapters/testing";
import type { Embedder } from "@cde-js/core";
import { LocalFileStore } from "@langchain/classic/storage/file_system";
import { InMemoryStore } from "@langchain/core/stores";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus, newFolder } from "./support.js";

const shared = new InMemoryStore<Uint8Array>();
embeddingsContract({ describe, test }, "CachedEmbeddings, contexts sharing one cache,", {
  create: () => new CachedEmbeddings(new ContextualEmbeddings(stubEmbedder()), shared, { queries: true }),
  createWithOtherContext: () =>
    new CachedEmbeddings(new ContextualEmbeddings(stubEmbedder({ context: "legal" })), shared, { queries: true }),
  tolerance: 0,
});

/** Embeddings that count the texts they are asked for; queries differ from documents. */
function counted(context: string): { embeddings: ContextualEmbeddings; asked: string[] } {
  const stub = stubEmbedder({ context });
  const asked: string[] = [];
  const embedder: Embedder = {
    ...stub,
    embedDocuments: (texts) => {
      asked.push(...texts);
      return stub.embedDocuments(texts);
    },
    embedQueries: (texts) => {
      asked.push(...texts.map((text) => `query ${text}`));
      return stub.embedQueries(texts.map((text) => `query ${text}`));
    },
  };
  return { embeddings: new ContextualEmbeddings(embedder), asked };
}

const keysOf = async (store: InMemoryStore<Uint8Array>): Promise<string[]> => {
  const keys: string[] = [];
  for await (const key of store.yieldKeys()) keys.push(key);
  return keys;
};

describe("CachedEmbeddings", () => {
  test("embed a text once, and give it as it is without a cache, repeats and order included", async () => {
    const store = new InMemoryStore<Uint8Array>();
    const { embeddings, asked } = counted("a");
    const cached = new CachedEmbeddings(embeddings, store);
    const texts = ["flood", "cat", "flood"];
    const expected = await new ContextualEmbeddings(stubEmbedder({ context: "a" })).embedDocuments([...texts, "roof"]);
    expect(await cached.embedDocuments(texts)).toEqual(expected.slice(0, 3));
    expect(asked).toEqual(["flood", "cat"]);
    expect(await cached.embedDocuments([...texts, "roof"])).toEqual(expected);
    expect(asked).toEqual(["flood", "cat", "roof"]);
    expect(await cached.embedDocuments([])).toEqual([]);
    const [one, , three] = await cached.embedDocuments(texts);
    (one as number[])[0] = 99;
    expect(three).toEqual(expected[0]);
  });

  test("keep queries apart from documents, and only where asked to", async () => {
    const { embeddings, asked } = counted("a");
    const expected = await embeddings.embedQuery("flood");
    for (const [queries, calls] of [
      [false, 2],
      [true, 1],
    ] as const) {
      // biome-ignore format: a pair a round
      const cached = new CachedEmbeddings(embeddings, new InMemoryStore<Uint8Array>(), { queries });
      await cached.embedDocuments(["flood"]);
      asked.length = 0;
      for (let i = 0; i < 2; i++) expect(await cached.embedQuery("flood")).toEqual(expected);
      expect(asked).toHaveLength(calls);
    }
  });

  test("never share a vector between two contexts, in one store", async () => {
    const store = new InMemoryStore<Uint8Array>();
    const [here, there] = [counted("here"), counted("there")];
    const first = await new CachedEmbeddings(here.embeddings, store).embedDocuments(["flood"]);
    const second = await new CachedEmbeddings(there.embeddings, store).embedDocuments(["flood"]);
    expect(second).toEqual(await there.embeddings.embedDocuments(["flood"]));
    expect(first).not.toEqual(second);
    expect(await keysOf(store)).toHaveLength(2);
  });

  test("refuse a vector of another context that came under their own key", async () => {
    const store = new InMemoryStore<Uint8Array>();
    const [here, there] = [counted("here").embeddings, counted("there").embeddings];
    await new CachedEmbeddings(here, store).embedDocuments(["flood"]);
    const [key = ""] = await keysOf(store);
    const [value] = await store.mget([key]);
    await store.mset([[key.replace(here.fingerprint, there.fingerprint), value as Uint8Array]]);
    await expect(new CachedEmbeddings(there, store).embedDocuments(["flood"])).rejects.toMatchObject({
      code: "FINGERPRINT_MISMATCH",
      expected: there.fingerprint,
      actual: here.fingerprint,
    });
  });

  test("refuse a value that is cut, altered at any byte, of another text or of another program", async () => {
    const store = new InMemoryStore<Uint8Array>();
    const { embeddings } = counted("a");
    const cached = new CachedEmbeddings(embeddings, store);
    await cached.embedDocuments(["flood", "cat"]);
    const [flood = "", cat = ""] = await keysOf(store);
    const [whole, other] = (await store.mget([flood, cat])) as [Uint8Array, Uint8Array];
    const damaged = [new Uint8Array(0), whole.subarray(0, -1), other, new TextEncoder().encode("[0.1,0.2]\n")];
    for (let at = 0; at < whole.length; at += 7) {
      const copy = Uint8Array.from(whole);
      copy[at] = (copy[at] as number) ^ 0x40;
      damaged.push(copy);
    }
    for (const value of damaged) {
      await store.mset([[flood, value]]);
      await expect(cached.embedDocuments(["flood"])).rejects.toMatchObject({ code: "CORRUPT_CACHE", key: flood });
    }
    await store.mset([[flood, whole]]);
    expect(await cached.embedDocuments(["flood"])).toEqual(await embeddings.embedDocuments(["flood"]));
  });

  test("work in a folder, and are taken by a store like the embeddings behind them", async () => {
    const folder = newFolder();
    const { embeddings, asked } = counted("a");
    for (let round = 0; round < 2; round++) {
      const cached = new CachedEmbeddings(embeddings, await LocalFileStore.fromPath(folder));
      await using store = await CorpusVectorStore.fromTexts([...corpus], {}, cached);
      expect(store.fingerprint).toBe(embeddings.fingerprint);
      expect(await store.similaritySearch(corpus[2] as string, 1)).toMatchObject([{ pageContent: corpus[2] }]);
    }
    expect(asked.filter((text) => !text.startsWith("query "))).toEqual(corpus);
  });

  test("pass on what goes wrong behind them, once, and keep nothing of it", async () => {
    const store = new InMemoryStore<Uint8Array>();
    let calls = 0;
    const broken = new ContextualEmbeddings({
      ...stubEmbedder(),
      embedDocuments: async () => {
        calls++;
        throw new Error("out of order");
      },
    });
    await expect(new CachedEmbeddings(broken, store).embedDocuments(["x"])).rejects.toThrow("out of order");
    expect(calls).toBe(1);
    const { modelId, fingerprint, dimensions } = broken;
    const short = { modelId, fingerprint, dimensions, embedQuery: async () => [1], embedDocuments: async () => [[1]] };
    await expect(new CachedEmbeddings(short, store).embedDocuments(["x"])).rejects.toThrow(
      /gave 1 vectors of 1 dimensions for 1 texts, expected 64/,
    );
    expect(await keysOf(store)).toEqual([]);
  });
});

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { ContextualEmbeddings, CorpusVectorStore, type TruncatedTexts } from "@cde-js/adapters/langchain";
import { CdeError, ContextualEncoder, CorpusContext, type Embedder, FingerprintMismatchError } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { CorpusIndex } from "@cde-js/retriever";
import { CacheBackedEmbeddings } from "@langchain/classic/embeddings/cache_backed";
import { LocalFileStore } from "@langchain/classic/storage/file_system";
import { MemoryVectorStore } from "@langchain/classic/vectorstores/memory";
import { Embeddings } from "@langchain/core/embeddings";
import { InMemoryStore } from "@langchain/core/stores";
import { FakeTracer } from "@langchain/core/utils/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus, newFolder, otherCorpus } from "./support.js";

/** Somebody else's model, and what it was asked. */
class OtherModel extends Embeddings {
  readonly asked: string[] = [];
  readonly #give: (text: string) => number[];

  constructor(give: (text: string) => number[] = bagOfLetters) {
    super({});
    this.#give = give;
  }

  async embedDocuments(texts: string[]): Promise<number[][]> {
    this.asked.push(...texts);
    return texts.map(this.#give);
  }

  async embedQuery(text: string): Promise<number[]> {
    this.asked.push(text);
    return this.#give(text);
  }
}

/** Counts of letters: far from unit length. */
function bagOfLetters(text: string): number[] {
  const counts = new Array<number>(26).fill(0.01);
  for (const letter of text.toLowerCase()) {
    const at = letter.charCodeAt(0) - 97;
    if (at >= 0 && at < 26) counts[at] = (counts[at] as number) + 1;
  }
  return counts;
}

const length = (vector: readonly number[]): number => Math.hypot(...vector);
const modelId = "letters/1";

describe("ContextualEmbeddings", () => {
  test("passes the vectors of its embedder on as plain numbers, to the bit", async () => {
    const embedder = stubEmbedder();
    const embeddings = new ContextualEmbeddings(embedder);
    expect(await embeddings.embedQuery("flood")).toEqual(Array.from(await embedder.embedQuery("flood")));
    const { vectors } = await embedder.embedDocuments(corpus);
    expect(await embeddings.embedDocuments([...corpus])).toEqual(vectors.map((vector) => Array.from(vector)));
    expect(embeddings).toMatchObject({
      modelId: "stub/bag-of-words",
      dimensions: 64,
      fingerprint: embedder.fingerprint,
    });
  });

  test("asks a failing embedder once: a retry would fail again", async () => {
    let calls = 0;
    const fail = async (): Promise<never> => {
      calls++;
      throw new Error("out of order");
    };
    const embeddings = new ContextualEmbeddings({ ...stubEmbedder(), embedQueries: fail, embedDocuments: fail });
    await expect(embeddings.embedQuery("x")).rejects.toThrow("out of order");
    await expect(embeddings.embedDocuments(["x"])).rejects.toThrow("out of order");
    expect(calls).toBe(2);
    await expect(embeddings.caller.call(fail)).rejects.toThrow("out of order");
    expect(calls).toBe(3);
  });

  test("counts the texts that were cut, and tells which", async () => {
    const long = "word ".repeat(40);
    const cuts: TruncatedTexts[] = [];
    const embeddings = new ContextualEmbeddings(stubEmbedder(), { onTruncated: (cut) => cuts.push(cut) });
    await embeddings.embedDocuments(["short", long, "short", long]);
    await embeddings.embedQuery(long);
    await embeddings.embedQuery("short");
    expect(embeddings.truncatedCount).toBe(3);
    expect(cuts).toEqual([
      { kind: "document", positions: [1, 3], texts: [long, long] },
      { kind: "query", positions: [0], texts: [long] },
    ]);
  });

  test("uses the prompt of a query for queries and that of a document for documents", async () => {
    const stub = stubEmbedder();
    const prompted: Embedder = {
      ...stub,
      embedQueries: (texts) => stub.embedQueries(texts.map((text) => `query ${text}`)),
      embedDocuments: (texts) => stub.embedDocuments(texts.map((text) => `document ${text}`)),
    };
    const embeddings = new ContextualEmbeddings(prompted);
    expect(await embeddings.embedQuery("a")).toEqual(Array.from(await stub.embedQuery("query a")));
    expect(await embeddings.embedDocuments(["a"])).toEqual([Array.from(await stub.embedQuery("document a"))]);
  });
});

describe("a context drawn from texts", () => {
  let encoder: ContextualEncoder;
  beforeAll(async () => {
    encoder = await ContextualEncoder.load(modelDirectory);
  });
  afterAll(() => encoder.dispose());
  const options = { size: 4, seed: 3 };

  test("depends on the texts and the seed, not on their order, repeats or blanks", async () => {
    const one = await ContextualEmbeddings.fromTexts(corpus, encoder, options);
    const shuffled = ["", ...corpus.toReversed(), corpus[0] as string, " \n"];
    const two = await ContextualEmbeddings.fromTexts(shuffled, encoder, options);
    expect(two.fingerprint).toBe(one.fingerprint);
    expect(one.context?.size).toBe(4);
    const fingerprints = await Promise.all(
      [
        ContextualEmbeddings.fromTexts(corpus, encoder, { ...options, seed: 4 }),
        ContextualEmbeddings.fromTexts(corpus, encoder, { ...options, size: 5 }),
        ContextualEmbeddings.fromTexts(corpus, encoder, { ...options, strength: { a: 0.5, s: 0.3, b: 0.5 } }),
        ContextualEmbeddings.fromTexts(otherCorpus, encoder, options),
      ].map(async (embeddings) => (await embeddings).fingerprint),
    );
    expect(new Set([one.fingerprint, ...fingerprints]).size).toBe(5);
  });

  test("is the same from documents, and all of a corpus that is smaller than the sample", async () => {
    const documents = corpus.map((pageContent) => ({ pageContent, metadata: {} }));
    const embeddings = await ContextualEmbeddings.fromDocuments(documents, encoder);
    expect(embeddings.context?.size).toBe(corpus.length);
    expect((await ContextualEmbeddings.fromTexts(corpus, encoder)).fingerprint).toBe(embeddings.fingerprint);
    expect(documents).toEqual(corpus.map((pageContent) => ({ pageContent, metadata: {} })));
  });

  test("can be saved and bound again, and gives the same vectors", async () => {
    const path = join(newFolder(), "context.safetensors");
    const embeddings = await ContextualEmbeddings.fromTexts(corpus, encoder, options);
    await embeddings.saveContext(path);
    const again = new ContextualEmbeddings(encoder.withContext(await CorpusContext.load(path)));
    expect(again.fingerprint).toBe(embeddings.fingerprint);
    expect(await again.embedQuery("flood")).toEqual(await embeddings.embedQuery("flood"));
  });

  test("of strength off has the model's own fingerprint; of nothing, is refused", async () => {
    const off = await ContextualEmbeddings.fromTexts(corpus, encoder, { strength: "off" });
    expect(off.fingerprint).toBe(encoder.fingerprint);
    await expect(ContextualEmbeddings.fromTexts(["", " "], encoder)).rejects.toThrow(/no text to draw a context from/);
    await expect(ContextualEmbeddings.fromTexts(corpus, encoder, { size: 0 })).rejects.toThrow(/size .* got 0/);
    const signal = AbortSignal.abort(new Error("no"));
    await expect(ContextualEmbeddings.fromTexts(corpus, encoder, { signal })).rejects.toThrow("no");
  });

  test("cuts or refuses long texts as asked", async () => {
    const long = "flood ".repeat(600);
    const embeddings = await ContextualEmbeddings.fromTexts(corpus, encoder);
    await embeddings.embedDocuments([long, "short"]);
    expect(embeddings.truncatedCount).toBe(1);
    const strict = await ContextualEmbeddings.fromTexts(corpus, encoder, { truncation: "error" });
    await expect(strict.embedDocuments([long])).rejects.toMatchObject({ code: "INVALID_INPUT" });
    expect(strict.fingerprint).toBe(embeddings.fingerprint);
  });

  test("works in LangChain's memory store, which finds what an index of ours finds", async () => {
    const embeddings = await ContextualEmbeddings.fromTexts(corpus, encoder);
    const store = await MemoryVectorStore.fromTexts([...corpus], {}, embeddings);
    await using index = await CorpusIndex.build(
      embeddings.embedder,
      corpus.map((text, i) => ({ id: `${i}`, text })),
      { split: false },
    );
    for (const query of ["who pays for water damage?", "pets", "when does the lease end?"]) {
      const found = await store.similaritySearchWithScore(query, 3);
      const hits = await index.search(query, { k: 3, mode: "dense" });
      expect(found.map(([{ pageContent }]) => pageContent)).toEqual(hits.map(({ text }) => text));
      found.forEach(([, score], i) => {
        expect(score).toBeCloseTo(hits[i]?.score ?? 0, 5);
      });
    }
  });
});

describe("another model, wrapped,", () => {
  test("gives the spectral map of its normalised vectors, of unit length", async () => {
    const embeddings = await ContextualEmbeddings.wrap(new OtherModel(), corpus, { modelId });
    const unit = Float32Array.from(bagOfLetters("flood"), (x) => x / length(bagOfLetters("flood")));
    const [mapped] = embeddings.context?.map?.apply([unit]) ?? [];
    const vector = await embeddings.embedQuery("flood");
    expect(vector).toEqual(Array.from(mapped ?? []));
    expect(length(vector)).toBeCloseTo(1, 6);
    // The control: the map does something.
    expect(Math.max(...vector.map((x, i) => Math.abs(x - (unit[i] as number))))).toBeGreaterThan(0.05);
    const off = await ContextualEmbeddings.wrap(new OtherModel(), corpus, { modelId, strength: "off" });
    expect(await off.embedQuery("flood")).toEqual(Array.from(unit));
  });

  test("is asked for a sample and a probe, and for the probe alone where its context was saved", async () => {
    const path = join(newFolder(), "context.safetensors");
    const model = new OtherModel();
    const embeddings = await ContextualEmbeddings.wrap(model, corpus, { modelId, size: 3, seed: 5 });
    expect(model.asked).toHaveLength(4);
    expect(embeddings.context?.size).toBe(3);
    await embeddings.saveContext(path);
    const fresh = new OtherModel();
    const again = await ContextualEmbeddings.openWrapped(fresh, path, { modelId });
    expect(fresh.asked).toHaveLength(1);
    expect(again.fingerprint).toBe(embeddings.fingerprint);
    expect(await again.embedDocuments([...corpus])).toEqual(await embeddings.embedDocuments([...corpus]));
    const renamed = ContextualEmbeddings.openWrapped(fresh, path, { modelId: "letters/2" });
    await expect(renamed).rejects.toBeInstanceOf(FingerprintMismatchError);
    const changed = new OtherModel((text) => bagOfLetters(text).toReversed());
    await expect(ContextualEmbeddings.openWrapped(changed, path, { modelId })).rejects.toMatchObject({
      code: "MODEL_CHANGED",
    });
    await expect(new ContextualEmbeddings(stubEmbedder()).saveContext(path)).rejects.toThrow(/chose no context/);
  });

  test("has a fingerprint of its name, sample, seed and strength", async () => {
    const print = async (texts: readonly string[], options: object): Promise<string> =>
      (await ContextualEmbeddings.wrap(new OtherModel(), texts, { modelId, size: 4, ...options })).fingerprint;
    const same = await Promise.all([print(corpus, {}), print(corpus.toReversed(), {})]);
    const different = await Promise.all([
      print(corpus, { modelId: "letters/2" }),
      print(corpus, { seed: 1 }),
      print(corpus, { strength: "off" }),
      print(otherCorpus, {}),
    ]);
    expect(new Set(same).size).toBe(1);
    expect(new Set([...same, ...different]).size).toBe(5);
    // Without context the sample doesn't matter.
    expect(await print(otherCorpus, { strength: "off" })).toBe(different[2]);
  });

  test("is refused without a name, without texts, and with vectors that can't be used", async () => {
    const wrap = (give: (text: string) => number[]): Promise<ContextualEmbeddings> =>
      ContextualEmbeddings.wrap(new OtherModel(give), corpus, { modelId });
    await expect(ContextualEmbeddings.wrap(new OtherModel(), corpus, {} as never)).rejects.toThrow(/modelId/);
    await expect(ContextualEmbeddings.wrap(new OtherModel(), [], { modelId })).rejects.toThrow(/no text/);
    const unusable = [() => [0, 0], () => [Number.NaN, 1], (text: string) => (text.includes("cats") ? [1] : [1, 2])];
    for (const give of unusable) await expect(wrap(give)).rejects.toBeInstanceOf(CdeError);
    const later = await wrap((text) => (text === "later" ? [1, 2, 3] : bagOfLetters(text)));
    await expect(later.embedQuery("later")).rejects.toThrow(/3 .*26|26 .*3/);
  });

  test("is an embedder for an index, whose fingerprint is checked like any other", async () => {
    const { embedder } = await ContextualEmbeddings.wrap(new OtherModel(), corpus, { modelId });
    const { embedder: other } = await ContextualEmbeddings.wrap(new OtherModel(), otherCorpus, { modelId });
    const directory = newFolder();
    const documents = corpus.map((text, i) => ({ id: `${i}`, text }));
    await using index = await CorpusIndex.build(embedder, documents, { split: false, directory });
    expect(await index.search(corpus[3] as string, { k: 1 })).toMatchObject([{ id: "3" }]);
    await expect(CorpusIndex.open(directory, other)).rejects.toBeInstanceOf(FingerprintMismatchError);
    const streamed: number[] = [];
    for await (const { position, vector } of embedder.embedStream(corpus)) {
      streamed.push(position);
      expect(Array.from(vector)).toEqual(
        Array.from((await embedder.embedDocuments([corpus[position] as string])).vectors[0] ?? []),
      );
    }
    expect(streamed).toEqual([0, 1, 2, 3, 4, 5]);
  });
});

test("a key that another model holds is in nothing that is logged, serialised or thrown", async () => {
  const secret = "sk-0123456789";
  class KeyedModel extends OtherModel {
    readonly apiKey = secret;
    failing = false;

    override async embedDocuments(texts: string[]): Promise<number[][]> {
      return this.failing ? [[1]] : super.embedDocuments(texts);
    }
  }
  const model = new KeyedModel();
  const embeddings = await ContextualEmbeddings.wrap(model, corpus, { modelId });
  const store = await MemoryVectorStore.fromTexts(["flood"], {}, embeddings);
  await using own = await CorpusVectorStore.fromTexts(["flood"], {}, embeddings);
  const retriever = own.asRetriever(1);
  const tracer = new FakeTracer();
  await retriever.invoke("flood", { callbacks: [tracer] });
  model.failing = true;
  const failure: unknown = await embeddings.embedDocuments(["a", "b"]).then(
    () => "no failure",
    (error) => error,
  );
  expect(failure).toBeInstanceOf(CdeError);
  for (const shown of [embeddings, store, own, retriever, retriever.toJSON(), tracer.runs, failure]) {
    expect(inspect(shown, { depth: 20, showHidden: true })).not.toContain(secret);
    expect(JSON.stringify(shown)).not.toContain(secret);
  }
  // The control: the model itself shows it.
  expect(inspect(model)).toContain(secret);
});

describe("a cache of vectors (CacheBackedEmbeddings)", () => {
  const here = new ContextualEmbeddings(stubEmbedder({ context: "here" }));
  const there = new ContextualEmbeddings(stubEmbedder({ context: "there" }));

  test("never gives a vector of another context under the cache namespace", async () => {
    const store = new InMemoryStore<Uint8Array>();
    const cached = (embeddings: ContextualEmbeddings): CacheBackedEmbeddings =>
      CacheBackedEmbeddings.fromBytesStore(embeddings, store, { namespace: embeddings.cacheNamespace });
    expect(await cached(here).embedDocuments(["flood"])).toEqual(await here.embedDocuments(["flood"]));
    expect(await cached(there).embedDocuments(["flood"])).toEqual(await there.embedDocuments(["flood"]));
    expect(await here.embedDocuments(["flood"])).not.toEqual(await there.embedDocuments(["flood"]));
    // It is a cache: the second time nothing is embedded.
    const dead = new ContextualEmbeddings({
      ...here.embedder,
      embedDocuments: () => Promise.reject(new Error("asked again")),
    });
    expect(await cached(dead).embedDocuments(["flood"])).toEqual(await here.embedDocuments(["flood"]));
  });

  test("can be a folder: the namespace holds only what a file's name may", async () => {
    const folder = newFolder();
    for (let round = 0; round < 2; round++) {
      const store = await LocalFileStore.fromPath(folder);
      const cached = CacheBackedEmbeddings.fromBytesStore(here, store, { namespace: here.cacheNamespace });
      expect(await cached.embedDocuments(["flood"])).toEqual(await here.embedDocuments(["flood"]));
    }
    expect(await readdir(folder)).toHaveLength(1);
  });

  test("does so without it, which is why there is one", async () => {
    const store = new InMemoryStore<Uint8Array>();
    await CacheBackedEmbeddings.fromBytesStore(here, store).embedDocuments(["flood"]);
    const stale = await CacheBackedEmbeddings.fromBytesStore(there, store).embedDocuments(["flood"]);
    expect(stale).toEqual(await here.embedDocuments(["flood"]));
  });
});

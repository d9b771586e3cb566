/** Our embeddings, unchanged, in the stores that people have: each finds what our own index finds. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { CachedEmbeddings, ContextualEmbeddings } from "@cde-js/adapters/langchain";
import { ContextualEncoder } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { CorpusIndex } from "@cde-js/retriever";
import { MemoryVectorStore } from "@langchain/classic/vectorstores/memory";
import { HNSWLib } from "@langchain/community/vectorstores/hnswlib";
import { InMemoryStore } from "@langchain/core/stores";
import { QdrantVectorStore } from "@langchain/qdrant";
import { startQdrantStub } from "./qdrant-stub.mjs";

const texts = [
  "The tenant pays for damage by flood unless the landlord was warned in writing.",
  "The landlord insures the roof against storm, fire and flood.",
  "Rent is due on the first day of each month.",
  "The tenant may keep two cats, but no dog.",
  "Repairs below one hundred crowns are paid by the tenant.",
  "The contract ends on the last day of a quarter, after three months of notice.",
];
const pages = texts.map((_, page) => ({ page }));
const queries = ["who pays for water damage?", "pets", "when does the lease end?", "when do I pay?"];

let encoder;
let index;
let embeddings;
let plain;
before(async () => {
  encoder = await ContextualEncoder.load(modelDirectory);
  embeddings = await ContextualEmbeddings.fromTexts(texts, encoder);
  plain = new ContextualEmbeddings(encoder.withoutContext());
  const documents = texts.map((text, i) => ({ id: `${i}`, text }));
  index = await CorpusIndex.build(embeddings.embedder, documents, { split: false, lexical: false });
});
after(async () => {
  await index.close();
  await encoder.dispose();
});

/** The same passages in the same order as our index, with the score that `toCosine` makes of the store's. */
async function findsTheSame(store, toCosine = (score) => score) {
  for (const query of queries) {
    const hits = await index.search(query, { k: 4 });
    const found = await store.similaritySearchWithScore(query, 4);
    assert.deepEqual(
      found.map(([{ metadata }]) => `${metadata.page}`),
      hits.map(({ id }) => id),
    );
    found.forEach(([, score], i) => {
      assert.ok(Math.abs(toCosine(score) - hits[i].score) < 1e-4, `${score}, our index ${hits[i].score}`);
    });
  }
}

/** The control: without the context the scores are others. */
async function differs(store, toCosine = (score) => score) {
  const [[, score]] = await store.similaritySearchWithScore(queries[0], 1);
  const [hit] = await index.search(queries[0], { k: 1 });
  assert.ok(Math.abs(toCosine(score) - hit.score) > 0.01, `${score} without context, ${hit.score} with it`);
}

test("@langchain/classic's memory store, also through a cache", async () => {
  await findsTheSame(await MemoryVectorStore.fromTexts(texts, pages, embeddings));
  const cached = new CachedEmbeddings(embeddings, new InMemoryStore());
  for (let round = 0; round < 2; round++) await findsTheSame(await MemoryVectorStore.fromTexts(texts, pages, cached));
  await differs(await MemoryVectorStore.fromTexts(texts, pages, plain));
});

describe("@langchain/qdrant 1.0.3, its requests answered by a stub", () => {
  let stub;
  before(async () => {
    stub = await startQdrantStub();
  });
  after(() => stub.close());
  /** A collection a context: this store checks nothing of what it finds in one. */
  const open = (bound) => ({ url: stub.url, collectionName: `leases-${bound.fingerprint.slice(0, 12)}` });

  test("finds what our index finds", async () => {
    await findsTheSame(await QdrantVectorStore.fromTexts(texts, pages, embeddings, open(embeddings)));
    assert.ok(stub.requests.some((line) => line.startsWith("PUT") && line.endsWith("/points")));
    await findsTheSame(await QdrantVectorStore.fromExistingCollection(embeddings, open(embeddings)));
    await differs(await QdrantVectorStore.fromTexts(texts, pages, plain, open(plain)));
  });

  test("its probe text has no part in the context", async () => {
    const { fingerprint } = embeddings;
    await embeddings.embedQuery("test");
    assert.equal(embeddings.fingerprint, fingerprint);
    assert.equal((await ContextualEmbeddings.fromTexts(texts, encoder)).fingerprint, fingerprint);
  });

  test("refuses vectors that aren't plain arrays, which is why ours are", async () => {
    const typed = {
      embedQuery: async (text) => Float32Array.from(await embeddings.embedQuery(text)),
      embedDocuments: async (list) => (await embeddings.embedDocuments(list)).map((row) => Float32Array.from(row)),
    };
    const store = QdrantVectorStore.fromTexts(texts, pages, typed, { url: stub.url, collectionName: "typed" });
    await assert.rejects(store, /400/);
  });
});

const native = await import("hnswlib-node").then(
  () => undefined,
  (error) => `hnswlib-node can't be loaded: ${error.message.split("\n")[0]}`,
);
test("@langchain/community's HNSWLib, also saved and loaded", { skip: native ?? false }, async () => {
  const directory = mkdtempSync(join(tmpdir(), "cde-hnswlib-"));
  try {
    // Its score is a distance: 1 minus the cosine.
    const toCosine = (distance) => 1 - distance;
    const store = await HNSWLib.fromTexts(texts, pages, embeddings, { space: "cosine" });
    await findsTheSame(store, toCosine);
    await store.save(directory);
    await findsTheSame(await HNSWLib.load(directory, embeddings), toCosine);
    await differs(await HNSWLib.fromTexts(texts, pages, plain, { space: "cosine" }), toCosine);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

/** The LangChain adapter on whatever @langchain/core is installed here, without @langchain/classic. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import {
  CachedEmbeddings,
  ContextualEmbeddings,
  CorpusRetriever,
  CorpusTranslator,
  CorpusVectorStore,
} from "@cde-js/adapters/langchain";
import { embeddingsContract, retrieverContract, vectorStoreContract } from "@cde-js/adapters/testing";
import { ContextualEncoder } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { CorpusIndex, ExactIndex } from "@cde-js/retriever";
import { Document } from "@langchain/core/documents";
import { Embeddings } from "@langchain/core/embeddings";
import { index as indexDocuments, RecordManager } from "@langchain/core/indexing";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { RunnablePassthrough, RunnableSequence } from "@langchain/core/runnables";
import { InMemoryStore } from "@langchain/core/stores";
import { Comparison, StructuredQuery } from "@langchain/core/structured_query";
import { FakeListChatModel, FakeTracer } from "@langchain/core/utils/testing";
import { VectorStore } from "@langchain/core/vectorstores";
import { stubEmbedder } from "./stub-embedder.js";

const framework = { describe, test };
const here = new URL("./", import.meta.url);
const read = (path) => JSON.parse(readFileSync(new URL(path, here), "utf8"));
const embeddings = new ContextualEmbeddings(stubEmbedder());
const other = new ContextualEmbeddings(stubEmbedder({ context: "legal" }));
const texts = ["The tenant pays for the flood.", "The tenant keeps two cats.", "Rent is due on the first.", "Notice."];
const documents = texts.map((text, i) => ({ id: `${i}`, text, metadata: { page: i } }));

test("the version asked for is the one that the adapter stands on", () => {
  const asked = read("package.json").dependencies["@langchain/core"];
  assert.equal(read("node_modules/@langchain/core/package.json").version, asked);
  assert.ok(embeddings instanceof Embeddings);
  assert.ok(new CorpusVectorStore(embeddings) instanceof VectorStore);
});

embeddingsContract(framework, "ContextualEmbeddings", {
  create: () => embeddings,
  createWithOtherContext: () => other,
  tolerance: 0,
});
embeddingsContract(framework, "CachedEmbeddings", {
  create: () => new CachedEmbeddings(embeddings, new InMemoryStore(), { queries: true }),
  createWithOtherContext: () => new CachedEmbeddings(other, new InMemoryStore()),
  tolerance: 0,
});
const options = { vectorIndex: (dimensions, base) => new ExactIndex(dimensions, { rows: "int8", base }) };
for (const [name, own] of [
  ["exact search", {}],
  ["int8 rows", options],
]) {
  // biome-ignore format: a pair a round
  vectorStoreContract(framework, `CorpusVectorStore over ${name}`, {
    create: () => new CorpusVectorStore(embeddings, own),
    close: (store) => store.close(),
    openWithOtherContext: async (store) => {
      const directory = mkdtempSync(join(tmpdir(), "cde-peers-"));
      try {
        await store.save(directory);
        await CorpusVectorStore.load(directory, other, own);
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  });
}
const index = await CorpusIndex.build(stubEmbedder(), documents);
retrieverContract(framework, "CorpusRetriever", {
  create: (k) => new CorpusRetriever(k === undefined ? { index } : { index, k }),
  invokeWithK: (retriever, query, k) => retriever.invoke(query, { configurable: { k } }),
  query: "tenant",
});

test("the bundled model, bound to a context, in a chain with a tracer", async () => {
  const encoder = await ContextualEncoder.load(modelDirectory);
  const bound = await ContextualEmbeddings.fromTexts(texts, encoder);
  const own = await CorpusIndex.build(bound.embedder, documents);
  const tracer = new FakeTracer();
  const chain = RunnableSequence.from([
    {
      context: new CorpusRetriever({ index: own, k: 1, mode: "dense" }).pipe((found) => found[0].pageContent),
      question: new RunnablePassthrough(),
    },
    ChatPromptTemplate.fromTemplate("{context} {question}"),
    new FakeListChatModel({ responses: ["Two cats."] }),
    new StringOutputParser(),
  ]);
  assert.equal(await chain.invoke("pets", { callbacks: [tracer] }), "Two cats.");
  const names = [];
  const walk = (runs) => {
    for (const { run_type, child_runs, inputs, outputs } of runs) {
      if (run_type === "retriever") names.push([inputs.query, outputs.documents.map(({ id }) => id)]);
      walk(child_runs);
    }
  };
  walk(tracer.runs);
  assert.deepEqual(names, [["pets", ["1"]]]);
  await own.close();
  await encoder.dispose();
});

class Records extends RecordManager {
  lc_namespace = ["test"];
  records = new Map();
  clock = 0;
  async createSchema() {}
  async getTime() {
    return ++this.clock;
  }
  async update(keys) {
    for (const key of keys) this.records.set(key, ++this.clock);
  }
  async exists(keys) {
    return keys.map((key) => this.records.has(key));
  }
  async listKeys({ before }) {
    return [...this.records].flatMap(([key, at]) => (at < before ? [key] : []));
  }
  async deleteKeys(keys) {
    for (const key of keys) this.records.delete(key);
  }
}

test("index() adds, skips and removes; filters of self-query hold", async () => {
  const store = new CorpusVectorStore(embeddings);
  const recordManager = new Records({});
  const run = (from) =>
    indexDocuments({
      docsSource: texts
        .slice(from)
        .map((pageContent, i) => new Document({ pageContent, metadata: { page: from + i } })),
      recordManager,
      vectorStore: store,
      options: { cleanup: "full" },
    });
  assert.deepEqual({ ...(await run(0)) }, { numAdded: 4, numDeleted: 0, numUpdated: 0, numSkipped: 0 });
  assert.deepEqual({ ...(await run(1)) }, { numAdded: 0, numDeleted: 1, numUpdated: 0, numSkipped: 3 });
  const query = new StructuredQuery("tenant", new Comparison("lt", "page", 2));
  const { filter } = new CorpusTranslator().visitStructuredQuery(query);
  const found = await store.asRetriever({ k: 9, filter }).invoke("tenant");
  assert.deepEqual(
    found.map(({ metadata }) => metadata.page),
    [1],
  );
  const diverse = await store.asRetriever({ k: 2, searchType: "mmr", searchKwargs: { lambda: 0 } }).invoke("tenant");
  assert.equal(diverse.length, 2);
  await store.close();
});
after(() => index.close());

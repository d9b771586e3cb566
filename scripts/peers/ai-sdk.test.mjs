/** The embedding models in AI SDK 7 and in Mastra. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { createCde } from "@cde-js/adapters/ai-sdk";
import { MessageList } from "@mastra/core/agent";
import { SemanticRecall } from "@mastra/core/processors";
import { RequestContext } from "@mastra/core/request-context";
import { embedV3, isSupportedEmbeddingModel, MastraVector } from "@mastra/core/vector";
import { embed, embedMany } from "ai";
import { stubEmbedder } from "./stub-embedder.js";

globalThis.AI_SDK_LOG_WARNINGS = false;
const embedder = stubEmbedder();
const cde = createCde(embedder);
const texts = Array.from({ length: 10 }, (_, i) => `clause ${i} of the lease`);
const expected = await Promise.all(texts.map(async (text) => Array.from(await embedder.embedQuery(text))));

test("the versions asked for are installed", () => {
  const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
  const { dependencies } = read("./package.json");
  for (const name of ["ai", "@mastra/core"]) {
    assert.equal(read(`./node_modules/${name}/package.json`).version, dependencies[name]);
  }
});

describe("AI SDK 7", () => {
  test("embeds a query and documents, in order, in calls of at most maxEmbeddingsPerCall, one after another", async () => {
    const { embedding, warnings } = await embed({ model: cde.query(), value: texts[3] });
    assert.deepEqual(embedding, expected[3]);
    assert.deepEqual(warnings ?? [], []);
    const sizes = [];
    let running = 0;
    const counted = {
      ...embedder,
      embedDocuments: async (list, options) => {
        sizes.push(list.length);
        assert.equal(++running, 1);
        const result = await embedder.embedDocuments(list, options);
        running--;
        return result;
      },
    };
    const model = createCde(counted, { maxEmbeddingsPerCall: 4 }).document();
    const { embeddings, values } = await embedMany({ model, values: texts });
    assert.deepEqual(values, texts);
    assert.deepEqual(embeddings, expected);
    assert.deepEqual(sizes, [4, 4, 2]);
  });

  test("stops with the signal, before and during a call", async () => {
    const model = cde.document();
    const aborted = AbortSignal.abort(new Error("enough"));
    await assert.rejects(embedMany({ model, values: texts, abortSignal: aborted }), /enough/);
    const controller = new AbortController();
    const values = Array.from({ length: 1000 }, (_, i) => `text ${i}`);
    const running = embedMany({ model, values, abortSignal: controller.signal });
    setImmediate(() => controller.abort(new Error("later")));
    await assert.rejects(running, /later/);
  });

  test("asks a failing model once, and hands on what was cut", async () => {
    let calls = 0;
    const embedQueries = async () => {
      calls++;
      throw new Error("out of order");
    };
    const broken = createCde({ ...embedder, embedQueries });
    await assert.rejects(embed({ model: broken.query(), value: "x" }), /out of order/);
    assert.equal(calls, 1);
    const { warnings } = await embedMany({ model: cde.document(), values: ["short", "word ".repeat(40)] });
    assert.match(warnings[0].message, /1 of 2 texts were longer than 32 tokens and were cut: positions 1/);
  });
});

/** Mastra's vector store, in memory, and what was done with it. */
class MemoryVector extends MastraVector {
  indexes = new Map();

  constructor() {
    super({ id: "memory" });
  }

  async createIndex({ indexName, dimension, metric }) {
    assert.equal(metric, "cosine");
    if (!this.indexes.has(indexName)) this.indexes.set(indexName, { dimension, rows: [] });
  }

  async upsert({ indexName, vectors, ids, metadata }) {
    vectors.forEach((vector, i) => {
      assert.equal(vector.length, this.indexes.get(indexName).dimension);
      this.indexes.get(indexName).rows.push({ id: ids[i], vector, metadata: metadata[i] });
    });
    return ids;
  }

  async query({ indexName, queryVector, topK }) {
    const scored = this.indexes.get(indexName).rows.map(({ id, vector, metadata }) => {
      return { id, metadata, score: vector.reduce((sum, x, i) => sum + x * queryVector[i], 0) };
    });
    return scored.sort((a, b) => b.score - a.score).slice(0, topK);
  }

  async listIndexes() {
    return [...this.indexes.keys()];
  }
  async describeIndex() {
    throw new Error("not asked for");
  }
  async deleteIndex() {}
  async updateVector() {}
  async deleteVector() {}
  async deleteVectors() {}
}

describe("Mastra", () => {
  test("takes both models as its own, and embeds by them", async () => {
    for (const model of [cde.query(), cde.document()]) {
      assert.ok(isSupportedEmbeddingModel(model));
      assert.deepEqual((await embedV3({ model, value: texts[2] })).embedding, expected[2]);
    }
  });

  test("remembers by them (SemanticRecall): the message that is alike is found", async () => {
    const recalled = await remember(cde.document());
    assert.deepEqual(recalled.found, ["m1"]);
  });

  test("keeps two contexts apart, in its indexes and in its cache for the whole process", async () => {
    // Longer than the 49 characters that Mastra keeps of a model's id.
    const modelId = "somebody/a-model-whose-name-alone-fills-what-mastra-keeps-of-it";
    const remembered = (context) => remember(createCde({ ...stubEmbedder({ context }), modelId }).document());
    const [here, there] = [await remembered("none"), await remembered("legal")];
    assert.notDeepEqual(here.indexes, there.indexes);
    assert.notDeepEqual(here.vectors, there.vectors);
    assert.deepEqual(there.found, ["m1"]);
  });
});

/** Saves three messages through Mastra's processor and recalls one by a question. */
async function remember(embedder) {
  const vector = new MemoryVector();
  const message = (id, text, role = "user") => {
    const content = { format: 2, parts: [{ type: "text", text }], content: text };
    return { id, role, content, createdAt: new Date(0), threadId: "t", resourceId: "r", type: "text" };
  };
  const messages = [
    message("m0", "The roof was repaired in May."),
    message("m1", "My two cats live in the kitchen."),
    message("m2", "Rent is due on the first."),
  ];
  const asked = [];
  const storage = {
    listMessages: async ({ include }) => {
      asked.push(...include.map(({ id }) => id));
      return { messages: messages.filter(({ id }) => include.some((one) => one.id === id)) };
    },
  };
  const recall = new SemanticRecall({ storage, vector, embedder, topK: 1, messageRange: 0, scope: "thread" });
  const requestContext = new RequestContext();
  requestContext.set("MastraMemory", { thread: { id: "t" }, resourceId: "r" });
  const abort = () => {
    throw new Error("aborted");
  };
  await recall.processOutputResult({ messages, abort, requestContext });
  const question = [message("q", "in which kitchen live my cats")];
  const messageList = new MessageList({ threadId: "t", resourceId: "r" }).add(question, "input");
  await recall.processInput({ messages: question, messageList, abort, requestContext });
  const rows = [...vector.indexes.values()].flatMap((index) => index.rows);
  return { found: asked, indexes: await vector.listIndexes(), vectors: rows.map((row) => row.vector) };
}

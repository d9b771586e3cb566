import { ContextualEmbeddings, CorpusRetriever, CorpusVectorStore } from "@cde-js/adapters/langchain";
import { retrieverContract } from "@cde-js/adapters/testing";
import { CorpusIndex } from "@cde-js/retriever";
import { createRetrieverTool } from "@langchain/classic/tools/retriever";
import { MemoryVectorStore } from "@langchain/classic/vectorstores/memory";
import type { DocumentInterface } from "@langchain/core/documents";
import type { Serialized } from "@langchain/core/load/serializable";
import { StringOutputParser } from "@langchain/core/output_parsers";
import type { BasePromptValue } from "@langchain/core/prompt_values";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import type { BaseRetriever } from "@langchain/core/retrievers";
import { RunnableLambda, RunnablePassthrough, RunnableSequence } from "@langchain/core/runnables";
import { FakeListChatModel } from "@langchain/core/utils/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus } from "./support.js";

const vitest = { describe, test };
const embedder = stubEmbedder();
const documents = corpus.map((text, i) => ({ id: `${i}`, text, title: `§ ${i}`, metadata: { page: i } }));

let index: CorpusIndex;
beforeAll(async () => {
  index = await CorpusIndex.build(embedder, documents);
});
afterAll(() => index.close());

const query = "who pays for damage by flood?";
const withK = (retriever: BaseRetriever, question: string, k: number) =>
  retriever.invoke(question, { configurable: { k } });

retrieverContract(vitest, "CorpusRetriever", {
  create: (k) => new CorpusRetriever({ index, ...(k === undefined ? {} : { k }) }),
  invokeWithK: withK,
  query,
});
const stores: CorpusVectorStore[] = [];
afterAll(async () => {
  await Promise.all(stores.map((store) => store.close()));
});
retrieverContract(vitest, "CorpusVectorStore.asRetriever", {
  create: async (k) => {
    const store = await CorpusVectorStore.fromTexts([...corpus], {}, new ContextualEmbeddings(embedder));
    stores.push(store);
    return store.asRetriever(k);
  },
  query,
});
retrieverContract(vitest, "LangChain's memory store as a retriever, a control,", {
  create: async (k) => {
    const store = await MemoryVectorStore.fromTexts([...corpus], {}, new ContextualEmbeddings(embedder));
    return store.asRetriever(k);
  },
  invokeWithK: withK,
  query,
  expectedFailures: {
    invoke_with_k_kwarg: "VectorStoreRetriever takes no k for one call",
    concurrent_queries: "VectorStoreRetriever takes no k for one call",
    repeated_invocation: "the store gives out its own metadata objects",
  },
});

describe("CorpusRetriever", () => {
  test("gives what the index finds, with all that a citation needs", async () => {
    const hits = await index.search(query, { k: 4 });
    const found = await new CorpusRetriever({ index }).invoke(query);
    expect(found).toHaveLength(4);
    for (const [i, { id, pageContent, metadata }] of found.entries()) {
      const hit = hits[i];
      expect([id, pageContent, metadata.page]).toEqual([hit?.id, hit?.text, Number(hit?.id)]);
      expect(metadata.cde).toMatchObject({ score: hit?.score, title: `§ ${id}`, start: 0, end: pageContent.length });
    }
  });

  test("hands filter, mode and score threshold to the index", async () => {
    const filter = { must: [{ key: "page", match: { value: 3 } }] };
    const found = await new CorpusRetriever({ index, filter }).invoke(query);
    expect(found.map(({ id }) => id)).toEqual(["3"]);
    const dense = await index.search(query, { k: 6, mode: "dense" });
    const scoreThreshold = dense[1]?.score as number;
    const above = await new CorpusRetriever({ index, k: 6, mode: "dense", scoreThreshold }).invoke(query);
    expect(above.map(({ id }) => id)).toEqual(dense.slice(0, 2).map(({ id }) => id));
    await expect(new CorpusRetriever({ index, k: 0 }).invoke(query)).rejects.toMatchObject({ code: "INVALID_INPUT" });
  });

  test("reports start, end and errors to callbacks, with tags and metadata of itself and of the call", async () => {
    const events: unknown[] = [];
    const callbacks = [
      {
        handleRetrieverStart: (serialized: Serialized, asked: string, ...rest: unknown[]) => {
          events.push(["start", serialized.id, asked, rest[2], rest[3], rest[4]]);
        },
        handleRetrieverEnd: (found: unknown[]) => void events.push(["end", found.length]),
        handleRetrieverError: (error: Error) => void events.push(["error", error.message]),
      },
    ];
    const retriever = new CorpusRetriever({ index, callbacks, tags: ["own"], metadata: { team: "legal" }, k: 2 });
    await retriever.invoke(query, { tags: ["call"], metadata: { user: 7 }, runName: "ask" });
    await expect(retriever.invoke(" ")).rejects.toThrow(/blank/);
    expect(events).toEqual([
      [
        "start",
        ["cde", "retrievers", "CorpusRetriever"],
        query,
        expect.arrayContaining(["own", "call"]),
        expect.objectContaining({ team: "legal", user: 7 }),
        "ask",
      ],
      ["end", 2],
      ["start", expect.anything(), " ", ["own"], { team: "legal" }, undefined],
      ["error", expect.stringMatching(/blank/)],
    ]);
  });

  test("stops with the call's signal", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(new CorpusRetriever({ index }).invoke(query, { signal })).rejects.toThrow("enough");
  });

  test("isn't serialised: an index is no argument that JSON can carry", () => {
    expect(JSON.parse(JSON.stringify(new CorpusRetriever({ index })))).toEqual({
      lc: 1,
      type: "not_implemented",
      id: ["cde", "retrievers", "CorpusRetriever"],
    });
  });

  test("refuses to hide metadata of the corpus behind its own", async () => {
    await using other = await CorpusIndex.build(embedder, [{ id: "a", text: "flood", metadata: { cde: 1 } }]);
    await expect(new CorpusRetriever({ index: other }).invoke("flood")).rejects.toThrow(
      /document "a" has the key "cde"/,
    );
  });

  test("stands in a chain, whose config reaches it", async () => {
    const retriever = new CorpusRetriever({ index });
    const prompts: string[] = [];
    const chain = RunnableSequence.from([
      {
        context: retriever.pipe(
          new RunnableLambda({ func: (found: DocumentInterface[]) => found.map(({ id }) => `[${id}]`).join(" ") }),
        ),
        question: new RunnablePassthrough(),
      },
      ChatPromptTemplate.fromTemplate("{context} {question}"),
      new RunnableLambda({
        func: (prompt: BasePromptValue) => {
          prompts.push(prompt.toString());
          return prompt;
        },
      }),
      new FakeListChatModel({ responses: ["The tenant [0]."] }),
      new StringOutputParser(),
    ]);
    expect(await chain.invoke(query, { configurable: { k: 1 } })).toBe("The tenant [0].");
    expect(await chain.invoke(query)).toBe("The tenant [0].");
    expect(prompts.map((prompt) => prompt.match(/\[\d\]/g)?.length)).toEqual([1, 4]);
  });

  test("is a tool for an agent", async () => {
    const retriever = new CorpusRetriever({ index, k: 1, mode: "dense" });
    const tool = createRetrieverTool(retriever, { name: "lease", description: "Searches the lease." });
    expect(await tool.invoke({ query: "two cats, but no dog" })).toContain(corpus[3]);
  });
});

import {
  ContextualEmbeddings,
  CorpusRetriever,
  type CorpusRetrieverInput,
  CorpusVectorStore,
  type PassageMetadata,
} from "@cde-js/adapters/langchain";
import { retrieverContract } from "@cde-js/adapters/testing";
import { CorpusIndex, type SearchOptions } from "@cde-js/retriever";
import { createRetrieverTool } from "@langchain/classic/tools/retriever";
import { MemoryVectorStore } from "@langchain/classic/vectorstores/memory";
import type { DocumentInterface } from "@langchain/core/documents";
import type { Serialized } from "@langchain/core/load/serializable";
import { StringOutputParser } from "@langchain/core/output_parsers";
import type { BasePromptValue } from "@langchain/core/prompt_values";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import type { BaseRetriever } from "@langchain/core/retrievers";
import { RunnableLambda, RunnablePassthrough, RunnableSequence } from "@langchain/core/runnables";
import { FakeListChatModel, FakeTracer } from "@langchain/core/utils/testing";
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
retrieverContract(vitest, "CorpusRetriever of parent documents", {
  create: (k) => new CorpusRetriever({ index, parentDocuments: true, ...(k === undefined ? {} : { k }) }),
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

describe("CorpusRetriever of parent documents", () => {
  // Split into one passage a sentence.
  const long = [
    { id: "lease", title: "Lease", text: `${corpus[0]} ${corpus[2]} ${corpus[1]}`, metadata: { page: 1 } },
    { id: "pets", text: `${corpus[3]} ${corpus[4]}` },
    { id: "notice", text: corpus[5] as string },
  ];
  let split: CorpusIndex;
  beforeAll(async () => {
    split = await CorpusIndex.build(embedder, long, { split: { maxTokens: 20, overlap: 0 } });
  });
  afterAll(() => split.close());

  test("gives each document whole and once, ranked by its best passage, and says where that is", async () => {
    const passages = await split.search(query, { k: 9 });
    // The control: without it the lease comes more than once, in parts.
    expect(passages.filter(({ id }) => id === "lease").length).toBeGreaterThan(1);
    const best = new Map(passages.toReversed().map((hit) => [hit.id, hit]));
    const found = await new CorpusRetriever({ index: split, k: 9, parentDocuments: true, highlight: true }).invoke(
      query,
    );
    expect(found.map(({ id }) => id)).toEqual([...new Set(passages.map(({ id }) => id))]);
    for (const { id, pageContent, metadata } of found) {
      const whole = long.find((document) => document.id === id);
      expect(pageContent).toBe(whole?.text);
      const { start, end, score, title, highlights } = metadata.cde as PassageMetadata;
      expect(pageContent.slice(start, end)).toBe(best.get(id as string)?.text);
      expect([score, title]).toEqual([best.get(id as string)?.score, whole?.title]);
      for (const word of highlights ?? []) {
        expect(query.toLowerCase()).toContain(pageContent.slice(word.start, word.end).toLowerCase().slice(0, 4));
        expect(word.start >= start && word.end <= end).toBe(true);
      }
    }
    expect(found[0]?.metadata).toMatchObject({
      page: 1,
      cde: { highlights: expect.arrayContaining([expect.anything()]) },
    });
  });

  test("fills k with documents, not with passages", async () => {
    const retriever = new CorpusRetriever({ index: split, k: 2, parentDocuments: true });
    expect(await retriever.invoke(query)).toHaveLength(2);
    expect(await retriever.invoke(query, { configurable: { k: 3 } })).toHaveLength(3);
  });

  test("leaves out what was removed or replaced since the search", async () => {
    for (const now of [undefined, { id: "lease", text: "Another text." }]) {
      const index = {
        search: split.search.bind(split),
        get: async (id: string) => (id === "lease" ? now : split.get(id)),
      };
      const found = await new CorpusRetriever({ index, k: 9, parentDocuments: true }).invoke(query);
      expect(found.map(({ id }) => id).toSorted()).toEqual(["notice", "pets"]);
    }
  });
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

  test("searches by words, by meaning, or by both as it is told, reranks and diversifies", async () => {
    const ask = async (fields: Omit<CorpusRetrieverInput, "index">): Promise<(string | undefined)[]> =>
      (await new CorpusRetriever({ index, k: 3, ...fields }).invoke(query)).map(({ id }) => id);
    const searched = async (options: SearchOptions): Promise<string[]> =>
      (await index.search(query, { k: 3, ...options })).map(({ id }) => id);
    const cases: SearchOptions[] = [
      { mode: "lexical" },
      { mode: "dense" },
      { fusion: { kind: "rrf", k: 60 } },
      { mmr: { lambda: 0.1 } },
      // The shortest first: an order that no search has by itself.
      { rerank: (_, hits) => hits.map(({ text }) => -text.length), rerankCandidates: 6 },
    ];
    const found = await Promise.all(cases.map(ask));
    expect(found).toEqual(await Promise.all(cases.map(searched)));
    expect(new Set(found.map(String)).size).toBeGreaterThanOrEqual(3);
    expect(found.at(-1)).toEqual(corpus.map((_, i) => `${i}`).toSorted((a, b) => corpus[+a]!.length - corpus[+b]!.length).slice(0, 3)); // biome-ignore format: one idea
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

  test("is a run of its own in a tracer, below that of the chain, with query and documents", async () => {
    const tracer = new FakeTracer();
    const chain = new CorpusRetriever({ index, k: 2, tags: ["leases"] })
      .pipe(new RunnableLambda({ func: (found: DocumentInterface[]) => found.length }))
      .withConfig({ runName: "chain" });
    expect(await chain.invoke(query, { callbacks: [tracer], metadata: { user: 7 } })).toBe(2);
    const [root, ...others] = tracer.runs;
    expect(others).toEqual([]);
    expect(root).toMatchObject({ name: "chain", run_type: "chain", outputs: { output: 2 } });
    const run = root?.child_runs.find(({ run_type }) => run_type === "retriever");
    expect(run).toMatchObject({
      name: "CorpusRetriever",
      parent_run_id: root?.id,
      inputs: { query },
      extra: { metadata: { user: 7 } },
    });
    expect(run?.tags).toContain("leases");
    expect(run?.error).toBeUndefined();
    const hits = await index.search(query, { k: 2 });
    const traced = run?.outputs?.documents as DocumentInterface[];
    expect(traced.map(({ pageContent }) => pageContent)).toEqual(hits.map(({ text }) => text));
    expect(traced.map(({ metadata }) => metadata.cde.score)).toEqual(hits.map(({ score }) => score));
    // What LangSmith is sent is JSON.
    expect(JSON.parse(JSON.stringify(traced))).toMatchObject([{ id: hits[0]?.id }, { id: hits[1]?.id }]);
  });

  test("leaves its error in the tracer's run", async () => {
    const tracer = new FakeTracer();
    await expect(new CorpusRetriever({ index }).invoke(" ", { callbacks: [tracer] })).rejects.toThrow(/blank/);
    expect(tracer.runs).toMatchObject([{ run_type: "retriever", error: expect.stringMatching(/blank/) }]);
  });

  test("takes a k for each call of a batch", async () => {
    const retriever = new CorpusRetriever({ index, k: 2 });
    const found = await retriever.batch(
      [query, query, query],
      [{ configurable: { k: 1 } }, {}, { configurable: { k: 3 } }],
    );
    expect(found.map(({ length }) => length)).toEqual([1, 2, 3]);
    for (const k of [0, "3", 1.5, null]) {
      await expect(retriever.invoke(query, { configurable: { k } })).rejects.toMatchObject({ code: "INVALID_INPUT" });
    }
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

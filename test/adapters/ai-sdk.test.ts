import type { EmbeddingModelV3 } from "@ai-sdk/provider";
import { type CdeEmbeddingModel, createCde } from "@cde-js/adapters/ai-sdk";
import type { Embedder } from "@cde-js/core";
import { embed, embedMany } from "ai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus } from "./support.js";

// The AI SDK prints warnings; here they are read from the result.
beforeAll(() => {
  globalThis.AI_SDK_LOG_WARNINGS = false;
});
afterAll(() => {
  globalThis.AI_SDK_LOG_WARNINGS = undefined;
});

const embedder = stubEmbedder();
const stub = async (text: string): Promise<number[]> => Array.from(await embedder.embedQuery(text));
/** Queries and documents of this one differ, as they do with prompts. */
const prompted: Embedder = {
  ...embedder,
  embedQueries: (texts, options) =>
    embedder.embedQueries(
      texts.map((text) => `query ${text}`),
      options,
    ),
};

describe("the embedding models of the AI SDK", () => {
  test("are EmbeddingModelV3 of the published types", () => {
    const cde = createCde(embedder);
    const both: EmbeddingModelV3[] = [cde.query(), cde.document()];
    for (const model of both) {
      expect(model).toMatchObject({ specificationVersion: "v3", provider: "cde", supportsParallelCalls: false });
    }
    expect(cde.query()).toBe(both[0]);
  });

  test("embed a query and documents with ai 6, each in its own way", async () => {
    const cde = createCde(prompted);
    const asked = await embed({ model: cde.query(), value: "flood" });
    expect(asked.embedding).toEqual(await stub("query flood"));
    const { embeddings, values } = await embedMany({ model: cde.document(), values: [...corpus] });
    expect(values).toEqual(corpus);
    expect(embeddings).toEqual(await Promise.all(corpus.map(stub)));
    expect(embeddings[0]).not.toEqual((await embed({ model: cde.query(), value: corpus[0] as string })).embedding);
  });

  test("carry model, side and fingerprint in the id, so that no two vector spaces share one", () => {
    const models = [embedder, stubEmbedder({ context: "legal" })].map((each) => createCde(each));
    expect(models[0]?.query().modelId).toBe(`query@${embedder.fingerprint}/stub/bag-of-words`);
    const ids = models.flatMap((cde) => [cde.query().modelId, cde.document().modelId]);
    expect(new Set(ids).size).toBe(4);
  });

  test("differ in what Mastra keeps of an id, by which it names its indexes and a cache for the whole process", () => {
    const modelId = "somebody/a-model-whose-name-alone-fills-what-mastra-keeps-of-it";
    const names = [embedder, stubEmbedder({ context: "legal" })].flatMap((each) => {
      const cde = createCde({ ...each, modelId });
      return [cde.query(), cde.document()].map((model) => `mastra_memory_${model.modelId.replace(/\W/g, "_")}`);
    });
    expect(new Set(names.map((name) => name.slice(0, 63))).size).toBe(4);
  });

  test("send at most maxEmbeddingsPerCall texts at once, in order, one call after the other", async () => {
    const sizes: number[] = [];
    let running = 0;
    const counted: Embedder = {
      ...embedder,
      async embedDocuments(texts, options) {
        sizes.push(texts.length);
        expect(++running).toBe(1);
        const result = await embedder.embedDocuments(texts, options);
        running--;
        return result;
      },
    };
    const document = createCde(counted, { maxEmbeddingsPerCall: 4 }).document();
    const { embeddings } = await embedMany({ model: document, values: [...corpus] });
    expect(sizes).toEqual([4, 2]);
    expect(embeddings).toEqual(await Promise.all(corpus.map(stub)));
    await expect(document.doEmbed({ values: [...corpus] })).rejects.toThrow(/6 values, at most 4/);
    expect(() => createCde(embedder, { maxEmbeddingsPerCall: 0 })).toThrow(/got 0/);
  });

  test("stop with the signal, before and during a call", async () => {
    const document = createCde(embedder).document();
    const aborted = AbortSignal.abort(new Error("enough"));
    await expect(embedMany({ model: document, values: [...corpus], abortSignal: aborted })).rejects.toThrow("enough");
    const controller = new AbortController();
    const values = Array.from({ length: 1000 }, (_, i) => `text ${i}`);
    const running = embedMany({ model: document, values, abortSignal: controller.signal });
    setImmediate(() => controller.abort(new Error("later")));
    await expect(running).rejects.toThrow("later");
  });

  test("are asked once where they fail: the SDK retries only what it takes for a network's fault", async () => {
    let calls = 0;
    const broken = createCde({
      ...embedder,
      embedQueries: async () => {
        calls++;
        throw new Error("out of order");
      },
    });
    await expect(embed({ model: broken.query(), value: "x" })).rejects.toThrow("out of order");
    expect(calls).toBe(1);
  });

  test("warn of texts that were cut, and of nothing else", async () => {
    const document: CdeEmbeddingModel = createCde(embedder).document();
    const values = ["short", "word ".repeat(40), "short"];
    expect((await embedMany({ model: document, values })).warnings).toEqual([
      { type: "other", message: "1 of 3 texts were longer than 32 tokens and were cut: positions 1." },
    ]);
    expect((await embedMany({ model: document, values: ["short"] })).warnings).toEqual([]);
  });
});

import { ContextualEmbeddings } from "@cde-js/adapters/langchain";
import { embeddingsContract } from "@cde-js/adapters/testing";
import { ContextualEncoder } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { Embeddings } from "@langchain/core/embeddings";
import { FakeEmbeddings, SyntheticEmbeddings } from "@langchain/core/utils/testing";
import { afterAll, describe, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus, otherCorpus } from "./support.js";

const vitest = { describe, test };

embeddingsContract(vitest, "ContextualEmbeddings over an embedder", {
  create: () => new ContextualEmbeddings(stubEmbedder()),
  createWithOtherContext: () => new ContextualEmbeddings(stubEmbedder({ context: "legal" })),
  tolerance: 0,
});

let encoder: Promise<ContextualEncoder> | undefined;
afterAll(async () => (await encoder)?.dispose());
const bundled = async (texts: readonly string[]): Promise<ContextualEmbeddings> => {
  encoder ??= ContextualEncoder.load(modelDirectory);
  return ContextualEmbeddings.fromTexts(texts, await encoder);
};
embeddingsContract(vitest, "ContextualEmbeddings over the bundled model", {
  create: () => bundled(corpus),
  createWithOtherContext: () => bundled(otherCorpus),
});

/** A model of somebody else: vectors of length 3. */
class UnnormalisedEmbeddings extends Embeddings {
  readonly #stub = stubEmbedder();

  constructor() {
    super({});
  }

  async embedDocuments(texts: string[]): Promise<number[][]> {
    const { vectors } = await this.#stub.embedDocuments(texts);
    return vectors.map((vector) => Array.from(vector, (value) => 3 * value));
  }

  async embedQuery(text: string): Promise<number[]> {
    return Array.from(await this.#stub.embedQuery(text), (value) => 3 * value);
  }
}
const wrap = (texts: readonly string[]): Promise<ContextualEmbeddings> =>
  ContextualEmbeddings.wrap(new UnnormalisedEmbeddings(), texts, { modelId: "unnormalised/1" });
embeddingsContract(vitest, "another model, wrapped", {
  create: () => wrap(corpus),
  createWithOtherContext: () => wrap(otherCorpus),
});

embeddingsContract(vitest, "LangChain's SyntheticEmbeddings, a control,", {
  create: () => new SyntheticEmbeddings({ vectorSize: 8 }),
});

const constant = "one vector for every text";
embeddingsContract(vitest, "LangChain's FakeEmbeddings, a control that is broken,", {
  create: () => new FakeEmbeddings(),
  createWithOtherContext: () => new FakeEmbeddings(),
  expectedFailures: {
    alone_equals_in_batch: constant,
    order: constant,
    other_context: constant,
    concurrent_queries: constant,
  },
});

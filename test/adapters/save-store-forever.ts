/** A child process that saves one of two stores after another until it is killed; it says which were acknowledged. */
import { ContextualEmbeddings, CorpusVectorStore } from "@cde-js/adapters/langchain";
import { stubEmbedder } from "../support/stub-embedder.js";

const directory = process.argv[2] as string;
const embeddings = new ContextualEmbeddings(stubEmbedder());
const stores = await Promise.all(
  [0, 1].map((n) =>
    CorpusVectorStore.fromTexts(
      Array.from({ length: 1500 }, (_, i) => `store ${n} document ${i}`),
      {},
      embeddings,
    ),
  ),
);
for (let save = 0; ; save++) {
  await (stores[save % 2] as CorpusVectorStore).save(directory);
  process.stdout.write(`${save}\n`);
}

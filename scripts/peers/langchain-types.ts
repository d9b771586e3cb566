/** What users write with the LangChain adapter, for the type checker: it is not run. */

import { createCde } from "@cde-js/adapters/ai-sdk";
import {
  CachedEmbeddings,
  ContextualEmbeddings,
  CorpusRetriever,
  CorpusTranslator,
  CorpusVectorStore,
} from "@cde-js/adapters/langchain";
import type { ContextualEncoder, Embedder } from "@cde-js/core";
import type { CorpusIndex, Filter } from "@cde-js/retriever";
import type { DocumentInterface } from "@langchain/core/documents";
import type { Embeddings, EmbeddingsInterface } from "@langchain/core/embeddings";
import type { BaseRetriever } from "@langchain/core/retrievers";
import type { BaseStore } from "@langchain/core/stores";
import type { BaseTranslator } from "@langchain/core/structured_query";
import type { SaveableVectorStore, VectorStore, VectorStoreRetriever } from "@langchain/core/vectorstores";

export async function pipeline(
  encoder: ContextualEncoder,
  embedder: Embedder,
  theirs: EmbeddingsInterface,
  documents: DocumentInterface[],
  bytes: BaseStore<string, Uint8Array>,
  index: CorpusIndex,
): Promise<unknown> {
  const bound: Embeddings[] = [
    new ContextualEmbeddings(embedder),
    await ContextualEmbeddings.fromDocuments(documents, encoder),
    await ContextualEmbeddings.wrap(theirs, documents, { modelId: "theirs/1" }),
    new CachedEmbeddings(new ContextualEmbeddings(embedder), bytes),
  ];
  const store = await CorpusVectorStore.fromDocuments(documents, new ContextualEmbeddings(embedder));
  const asTheirs: [VectorStore, SaveableVectorStore] = [store, store];
  const filter: Filter = { must: [{ key: "page", match: { value: 1 } }] };
  const ids: string[] = await store.addDocuments(documents, { ids: ["a"] });
  const retrievers: BaseRetriever[] = [
    store.asRetriever({ k: 3, filter, searchType: "mmr", searchKwargs: { lambda: 0.5, fetchK: 20 } }),
    new CorpusRetriever({ index, k: 3, parentDocuments: true, tags: ["a"] }),
  ];
  const typed: VectorStoreRetriever<CorpusVectorStore> = store.asRetriever(3, filter);
  const translator: BaseTranslator<CorpusVectorStore> = new CorpusTranslator();
  // @ts-expect-error: a filter of another shape.
  store.asRetriever({ filter: { page: 1 } });
  // @ts-expect-error: embeddings that don't say which context they are bound to.
  new CorpusVectorStore(theirs);
  return [bound, asTheirs, ids, retrievers, typed, translator, createCde(embedder).query()];
}

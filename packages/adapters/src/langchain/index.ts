/** The LangChain adapter, by name. */
export {
  type ChooseContextOptions,
  ContextualEmbeddings,
  type ContextualEmbeddingsOptions,
  type FromTextsOptions,
  type OpenWrappedOptions,
  type TruncatedTexts,
  type WrapOptions,
} from "./contextual-embeddings.js";
export { CorpusRetriever, type CorpusRetrieverInput, type PassageMetadata } from "./corpus-retriever.js";
export { type ContextBoundEmbeddings, CorpusVectorStore } from "./corpus-vector-store.js";
export { QdrantCorpusStore, type QdrantCorpusStoreOptions } from "./qdrant-corpus-store.js";

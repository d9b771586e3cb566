/** The LangChain adapter, by name. */
export type { ContextBoundEmbeddings } from "./bound-embeddings.js";
export { CachedEmbeddings, type CachedEmbeddingsOptions, CorruptCacheError } from "./cached-embeddings.js";
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
export { CorpusTranslator, type CorpusTranslatorOptions } from "./corpus-translator.js";
export {
  CorpusVectorStore,
  type CorpusVectorStoreOptions,
  type NewVectorStoreOptions,
  type OpenVectorStoreOptions,
} from "./corpus-vector-store.js";
export { QdrantCorpusStore, type QdrantCorpusStoreOptions } from "./qdrant-corpus-store.js";

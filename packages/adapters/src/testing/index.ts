/** Contract suites for LangChain components, run by the test framework that is passed in: by name. */
export type { ExpectedFailures, TestFramework } from "./contract.js";
export { type EmbeddingsCase, type EmbeddingsLike, type EmbeddingsSubject, embeddingsContract } from "./embeddings.js";
export type { Fault, FaultRule } from "./qdrant/faults.js";
export { type Exchange, type LoggedRequest, QdrantDouble, type QdrantDoubleOptions } from "./qdrant/server.js";
export { type RetrieverCase, type RetrieverLike, type RetrieverSubject, retrieverContract } from "./retriever.js";
export {
  type DocumentLike,
  type VectorStoreCase,
  type VectorStoreLike,
  type VectorStoreSubject,
  vectorStoreContract,
} from "./vector-store.js";

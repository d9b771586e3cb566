/** The Qdrant adapter, by name. */
export { type AverageLengthOptions, averageLength } from "./average-length.js";
export type { QdrantClientLike } from "./client.js";
export type { QdrantConnectionOptions } from "./connection.js";
export { QdrantError, type QdrantErrorCode } from "./errors.js";
export type { MigrationProgress } from "./migration.js";
export type {
  PayloadIndex,
  QdrantCreateOptions,
  QdrantOpenOptions,
  QdrantRecontextOptions,
  QdrantRollbackOptions,
} from "./options.js";
export { type QdrantBackendOptions, qdrant } from "./qdrant.js";
export { QdrantIndex } from "./qdrant-index.js";
export type { LexicalOptions } from "./record.js";
export type { QdrantSearchParameters } from "./search.js";
export type { SpectralBase } from "./source.js";
export { QdrantVectorIndex, type QdrantVectorsOptions } from "./vector-index.js";
export type { WriteOptions, WriteProgress, WriteReport } from "./writer.js";

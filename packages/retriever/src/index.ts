/** The public surface of this package, by name. */
export type { BuildProgress, BuildReport, SplitOptions, Splitter } from "./build-index.js";
export type {
  ContextEncoder,
  ContextPassage,
  ContextProgress,
  CorpusContextOptions,
  DocumentSource,
} from "./context/from-corpus.js";
export {
  type ContextChoice,
  type ContextExample,
  type ContextStrategy,
  type SelectContextOptions,
  selectContext,
} from "./context/select-context.js";
export type { BackendBuildOptions, BackendOpenOptions, CorpusBackend, WithBackend } from "./corpus-backend.js";
export { CorpusIndex } from "./corpus-index.js";
export type {
  BuildOptions,
  ContextOutcome,
  OpenOptions,
  RecontextOptions,
  RecontextReport,
  RollbackOptions,
} from "./corpus-index-options.js";
export type { CorpusDocument, JsonObject, JsonValue } from "./documents.js";
export type { DriftOptions, DriftReport, NeighbourChange } from "./drift.js";
export { IndexChangedError, IndexClosedError, IndexLockedError, StorageError } from "./errors.js";
export type { RowType } from "./exact/row-table.js";
export type { BaseVectors, ExactIndexOptions } from "./exact-index.js";
export { ExactIndex } from "./exact-index.js";
export { type FilterBuilder, filters } from "./filters/build.js";
export { compileFilter } from "./filters/compile.js";
export {
  type Bounds,
  type Condition,
  type Filter,
  type FilterPoint,
  type GeoCondition,
  type GeoLine,
  type GeoPoint,
  InvalidFilterError,
  type Match,
  type MatchCondition,
  type RangeCondition,
} from "./filters/types.js";
export { type AutoFusion, describeFusion } from "./fusion/auto-fusion.js";
export { distributionBasedScoreFusion, mix, type Ranked, reciprocalRankFusion } from "./fusion/fusion.js";
export { type MmrCandidate, maximalMarginalRelevance } from "./fusion/mmr.js";
export { hnswAvailability } from "./hnsw/load.js";
export type { GraphReport } from "./hnsw/protocol.js";
export { HnswIndex, type HnswOptions, hnsw } from "./hnsw-index.js";
export type { VectorIndexFactory } from "./index-state.js";
export { type Analyzer, type AnalyzerOptions, countTerms, createAnalyzer } from "./lexical/analyzer.js";
export { Bm25Index, type Bm25Options, type LexicalSearchOptions } from "./lexical/bm25-index.js";
export { highlight, type Span } from "./lexical/highlight.js";
export {
  type Bm25Parameters,
  hashTerm,
  inverseDocumentFrequency,
  querySparseVector,
  type SparseVector,
  sparseVector,
  termWeight,
} from "./lexical/sparse.js";
export type { ScoredRow } from "./lexical/top-k.js";
export type { ContextBinder, FolderDescription } from "./open-index.js";
export type { JudgedQuery, NewContextOptions } from "./recontext.js";
export type {
  Fusion,
  FusionChoice,
  Hit,
  MmrOptions,
  Reranker,
  Scoring,
  SearchMode,
  SearchOptions,
  VectorSearchOptions,
} from "./search/options.js";
export type {
  GivenVectorsOptions,
  IndexCounts,
  RequestOptions,
  SearchIndex,
  UpsertProgress,
} from "./search-index.js";
export type { Passage } from "./split/pieces.js";
export type { SplitTextOptions } from "./split/split-text.js";
export { splitText } from "./split/split-text.js";
export type { MetadataPatch, Selection, UpsertOptions, UpsertReport } from "./updates.js";
export type { Neighbour, NeighbourSearchOptions, VectorIndex } from "./vector-index.js";
export { labelSet } from "./vector-index.js";

/** The public surface of `@cde-js/core/evaluation`, by name. */
export {
  type BeirDocument,
  type BeirMetadata,
  type BeirQuery,
  type BeirValue,
  listSplits,
  readCorpus,
  readQrels,
  readQueries,
} from "./beir.js";
export { readBeirRun, writeBeirQrels, writeBeirRun } from "./beir-files.js";
export {
  type ClassificationScores,
  classificationScores,
  type EvaluateClassificationOptions,
  evaluateClassification,
  type LabelledText,
  LinearProbe,
  type LinearProbeOptions,
  nearestLabels,
} from "./classification.js";
export { type ClusteringScores, type EvaluateClusteringOptions, evaluateClustering, vMeasure } from "./clustering.js";
export { type ComparedSystem, type Comparison, compareSystems, type System } from "./comparison.js";
export { type DataSet, missingDocuments, type ReadDataSetOptions, readDataSet } from "./data-set.js";
export {
  DEFAULT_METRICS,
  type EvaluateOptions,
  type EvaluateProgress,
  type EvaluationResult,
  evaluate,
  type Found,
  type SearchableIndex,
  type SearchFunction,
} from "./evaluate.js";
export { type KnownItemOptions, knownItems, SYNTHETIC_NOTICE } from "./known-items.js";
export { type Line, type ReadLinesOptions, readJsonLines } from "./lines.js";
export { type Evaluation, evaluateRun, type MetricName, type Qrels, type Results, type Run } from "./metrics.js";
export { html, Markup, type MarkupValue } from "./report/markup.js";
export { type ReportOptions, renderReport, writeReport } from "./report/report.js";
export { STYLE as REPORT_STYLE } from "./report/style.js";
export {
  compareRuns,
  pairedBootstrap,
  pairedRandomisation,
  type RunComparison,
  type SignificanceOptions,
} from "./significance.js";
export {
  type EvaluateSimilarityOptions,
  evaluateSimilarity,
  pearson,
  type ScoredPair,
  type SimilarityScores,
  spearman,
} from "./similarity.js";
export { lengthSlices, type Slice, type Slices, sliceBy } from "./slices.js";
export { readClusteringSets, readLabelledTexts, readScoredPairs } from "./task-files.js";
export { readTrecQrels, readTrecRun, writeTrecQrels, writeTrecRun } from "./trec.js";

/** The public surface of `@cde-js/core/evaluation`, by name. */
export {
  type BeirDocument,
  type BeirQuery,
  listSplits,
  readCorpus,
  readQrels,
  readQueries,
} from "./beir.js";
export { type Line, type ReadLinesOptions, readJsonLines } from "./lines.js";
export { type Evaluation, evaluateRun, type MetricName, type Qrels, type Results, type Run } from "./metrics.js";
export {
  compareRuns,
  pairedBootstrap,
  pairedRandomisation,
  type RunComparison,
  type SignificanceOptions,
} from "./significance.js";
export { readTrecQrels, readTrecRun, writeTrecQrels, writeTrecRun } from "./trec.js";

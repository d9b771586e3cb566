/** The public names of contextual batches. */
export type { Batches, BatchReport, EpochOptions, EpochPlan, PackedBatch } from "./batches.js";
export type { ClusterOptions, ClusterProgress, PairClusters } from "./cluster-pairs.js";
export { type BatchesOptions, createBatches } from "./create-batches.js";
export type { FalseNegativeRule } from "./false-negatives.js";
export { type FileSurrogate, type FileSurrogateOptions, openFileSurrogate } from "./file-surrogate.js";
export { type BatchSummary, measureBatches } from "./measure.js";
export { type MineOptions, type MineProgress, type MineReport, mineHardNegatives } from "./mine.js";
export {
  type AnySurrogate,
  embedderSurrogate,
  type FunctionSurrogateOptions,
  functionSurrogate,
  type Surrogate,
  type SurrogateCall,
  type TextKind,
} from "./surrogate.js";

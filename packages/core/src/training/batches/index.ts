/** The public names of contextual batches. */
export type { Batches, BatchReport, EpochOptions, EpochPlan, PackedBatch } from "./batches.js";

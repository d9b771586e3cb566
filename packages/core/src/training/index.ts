/** The public surface of `@cde-js/core/training`, by name. */
export type { TrainingBatch, TrainingPair } from "./batch.js";
export type { BatchSource, EpochBatches } from "./batch-source.js";
export * from "./batches/index.js";
export * from "./data/index.js";
export { CheckpointMismatchError, TrainingDivergedError } from "./errors.js";
export {
  type BindTrainedModel,
  type Evaluator,
  type MetricOf,
  type RetrievalOptions,
  retrievalEvaluator,
  type TrainingEmbedder,
  type TrainingEmbedderOptions,
} from "./evaluation.js";
export type { ExportOptions } from "./export-model.js";
export { exportOnnx } from "./export-onnx.js";
export type { Forgetting } from "./forgetting.js";
export { LayerCacheFullError } from "./layer-cache.js";
export type { ModelCard } from "./model-card.js";
export type { LargestGradient } from "./optimizer.js";
export type {
  ContextOptions,
  DatasetPrompts,
  LoraOptions,
  MachineOptions,
  OpenOptions,
  SpectralOptions,
  TrainingOptions,
  TrainingSettings,
} from "./options.js";
export type { Decay } from "./schedule.js";
export { Trainer } from "./trainer.js";
export type {
  EvaluationOptions,
  ResumeOptions,
  StepsOptions,
  TrainerOptions,
  TrainingStep,
} from "./trainer-options.js";

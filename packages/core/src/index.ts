/** The public surface of `@cde-js/core`, by name. */
export { type Calibration, describeCalibration } from "./context/calibration/calibration.js";
export { makePseudoQueries, PSEUDO_QUERY_KINDS, type PseudoQuery } from "./context/calibration/pseudo-queries.js";
export { type ContextIdentity, CorpusContext, type StageKind } from "./context/corpus-context.js";
export type { VectorSource } from "./context/covariance.js";
export { remap } from "./context/remap.js";
export {
  DEFAULT_STRENGTH,
  fitSpectralMap,
  SpectralMap,
  type SpectralMapOptions,
  type SpectralStrength,
} from "./context/spectral-map.js";
export { type FloatTensor, Spectrum } from "./context/spectrum.js";
export { DEFAULT_SMOOTHING, TokenWeights, type TokenWeightsIdentity } from "./context/token-weights.js";
export type { BoundEmbedder, ContextEffect, Truncation } from "./encoder/bound-embedder.js";
export { type CalibrateContextOptions, calibrateContext } from "./encoder/calibrate.js";
export {
  type BindOptions,
  type BuildContextOptions,
  ContextualEncoder,
  type FromBiencoderOptions,
  type LoadOptions,
  NoNullContextError,
} from "./encoder/contextual-encoder.js";
export {
  type ContextualizeOptions,
  contextualize,
  type FunctionEmbedder,
  type FunctionModel,
  ModelChangedError,
  openContextualized,
} from "./encoder/contextualize.js";
export { type BatchOptions, type EmbedFunction, EmbedFunctionError } from "./encoder/embed-function.js";
export type { EmbeddedText, Embedder, Embeddings, EmbedOptions, EmbedProgress } from "./encoder/embedder.js";
export type { NumberForm } from "./encoder/loaded-model.js";
export type { HubOptions, LoadProgress } from "./encoder/model-source.js";
export {
  EndpointError,
  type EndpointErrorCode,
  type OpenAiCompatibleOptions,
  openAiCompatible,
} from "./encoder/open-ai-compatible.js";
export type { PromptNames } from "./encoder/prompts.js";
export { fingerprintOf } from "./encoder/provenance.js";
export {
  CdeError,
  CorruptFileError,
  FingerprintMismatchError,
  InvalidInputError,
  internal,
  MissingFileError,
  MissingPeerError,
  ModelError,
  RuntimeFailureError,
} from "./errors.js";
export type { CachedModel } from "./hub/cache.js";
export { downloadModel } from "./hub/download.js";
export { HubError, type HubErrorCode } from "./hub/errors.js";
export { type DownloadOptions, type DownloadProgress, hubCacheDirectory } from "./hub/settings.js";
export { type KMeansOptions, kMeans } from "./k-means/k-means.js";
export {
  type Assignment,
  assignToCentroids,
  type Clustering,
  type LloydOptions,
  lloyd,
} from "./k-means/lloyd.js";
export { MatrixRuntime } from "./k-means/matrix-runtime.js";
export { exportInt8 } from "./model/export.js";
export type { Pooling } from "./model/model-directory.js";
export type { PrefixOptions, SecondStage } from "./model/second-stage.js";
export type { TwoStagePreset } from "./model/two-stage.js";
export { createRandom, fnv1a32, mulberry32, Random, type RandomState } from "./random.js";
export { executionProviders, type RuntimeOptions } from "./runtime/runtime.js";
export type { RowProduct, RowProductFactory } from "./simd/product.js";
export { comparable } from "./text/comparable.js";
export { minHashBands, shingleSimilarity, shingles } from "./text/shingles.js";

/** A model whose sessions are open, whatever its architecture: what `ContextualEncoder` works with. */
import type { CorpusContext, StageKind } from "../context/corpus-context.js";
import type { TokenWeights } from "../context/token-weights.js";
import { canonicalJson, sha256Hex } from "../model/digest.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import type { EmbedProgress } from "./embedder.js";
import type { PromptNames } from "./prompts.js";
import type { EncodeOptions } from "./token-encoder.js";

/** What maps token ids to vectors. */
export interface Stage {
  encode(ids: readonly Int32Array[], options?: EncodeOptions): Promise<Float32Array[]>;
}

export interface LoadedModel {
  readonly modelId: string;
  /** Of the model without context: `identityDigest`. */
  readonly fingerprint: string;
  readonly dimensions: number;
  readonly maxTokens: number;
  readonly batchInvariant: boolean;
  readonly tokenizer: Tokenizer;
  readonly prompts: { readonly query: string; readonly document: string };
  /** How this model uses a context. */
  readonly stageKind: StageKind;
  /** The number of context documents that it needs exactly, where it needs one. */
  readonly contextSize: number | undefined;
  /** Tensors of the checkpoint that nothing read. */
  readonly unusedTensors: readonly string[];
  /** Text (with the document prompt) → context vector. */
  readonly firstStage: Stage;
  /** Unit vectors without context; undefined where the model has no null context. */
  readonly nullStage: Stage | undefined;
  /**
   * Unit vectors whose tokens count by a corpus's weights, without a map; absent where vectors are no means of tokens. Of
   * several weights, undefined for none, a text's vectors are packed one after the other.
   */
  weigh?(...weights: readonly (TokenWeights | undefined)[]): Stage;
  /** Where a spectral map follows another stage: that stage with these context vectors, whose vectors the map is for. */
  beforeMap?(contextVectors: Float32Array): Stage;
  /** Unit vectors with a context of this model. */
  bind(context: CorpusContext): Stage;
}

/**
 * The numbers that a model is run in. `"int8"` is batch-invariant: every token has a scale of its own.
 * `"int8-dynamic"` is faster, and a text's vector depends on its batch mates.
 */
export type NumberForm = "float32" | "int8" | "int8-dynamic";

/** What the loaders of all architectures take. */
export interface ModelOptions {
  readonly modelId?: string | undefined;
  readonly dtype?: NumberForm | undefined;
  readonly maxTokens?: number | undefined;
  readonly prompts?: PromptNames | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: EmbedProgress) => void) | undefined;
}

/** All that determines the vectors of a model without context. */
export interface ModelIdentity {
  /** sha256 of the weights as stored. */
  readonly weights: string;
  readonly dtype: NumberForm;
  readonly tokenizer: string;
  /** Architecture and preset: one set of weights can be run in several ways. */
  readonly architecture: string;
  readonly pooling: string;
  readonly maxTokens: number;
  readonly prompts: { readonly query: string; readonly document: string };
}

/** The fingerprint (hex sha256) of a model without context. */
export function identityDigest(identity: ModelIdentity): string {
  return sha256Hex(canonicalJson({ version: 1, ...identity }));
}

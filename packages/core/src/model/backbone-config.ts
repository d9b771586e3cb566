/** What a `config.json` says of a backbone: the three architectures that can be run, as checked numbers. */
import { CorruptFileError, ModelError } from "../errors.js";
import { describe, JsonFields, type JsonObject } from "./json-file.js";

interface CommonConfig {
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly intermediateSize: number;
  /** Rows of the embedding table, padding to a multiple included. */
  readonly vocabularySize: number;
  /** Longest input in tokens that the model was built for. */
  readonly maxPositions: number;
  readonly layerNormEpsilon: number;
}

export interface BertConfig extends CommonConfig {
  readonly architecture: "bert";
  readonly typeVocabularySize: number;
  readonly activation: "gelu" | "gelu-tanh" | "relu";
}

export interface NomicBertConfig extends CommonConfig {
  readonly architecture: "nomic-bert";
  /** 0 where there is no token-type embedding. */
  readonly typeVocabularySize: number;
  readonly rotaryBase: number;
}

export interface ModernBertConfig extends CommonConfig {
  readonly architecture: "modernbert";
  /** Width of a local layer's window, both sides together: a token sees half of it on each side. */
  readonly localAttention: number;
  /** Layers 0, n, 2n … attend globally. */
  readonly globalEveryLayers: number;
  readonly globalRotaryBase: number;
  readonly localRotaryBase: number;
}

export type BackboneConfig = BertConfig | NomicBertConfig | ModernBertConfig;

/** `model_type` of config.json, and the classes of `architectures` where there is none. */
const READERS: Readonly<Record<string, (fields: JsonFields, json: JsonObject) => BackboneConfig>> = {
  bert: readBert,
  nomic_bert: readNomicBert,
  modernbert: readModernBert,
};

/**
 * Reads a backbone's configuration. Raises ModelError for an architecture, or a setting of one, that can't be run, and
 * CorruptFileError for missing or impossible numbers. `path` is only named in errors.
 */
export function parseBackboneConfig(operation: string, path: string, json: JsonObject): BackboneConfig {
  const type = typeof json.model_type === "string" ? json.model_type : typeOfClass(json.architectures);
  if (type === undefined || !Object.hasOwn(READERS, type))
    throw new ModelError(
      `${operation}: ${path} describes an unknown architecture: model_type ${describe(json.model_type)}, architectures ${describe(json.architectures)}. Supported are bert, nomic_bert and modernbert.`,
    );
  const config = READERS[type]!(new JsonFields(operation, path, json), json);
  if (config.hiddenSize % config.heads !== 0)
    throw new CorruptFileError(
      path,
      `${operation}: ${path}: ${config.heads} heads don't divide a hidden size of ${config.hiddenSize}.`,
    );
  if (config.architecture !== "bert" && (config.hiddenSize / config.heads) % 2 !== 0)
    throw new CorruptFileError(
      path,
      `${operation}: ${path}: rotary positions turn pairs, and a head has ${config.hiddenSize / config.heads} entries.`,
    );
  return config;
}

function typeOfClass(architectures: unknown): string | undefined {
  const name: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  if (typeof name !== "string") return undefined;
  return { Bert: "bert", NomicBert: "nomic_bert", ModernBert: "modernbert" }[name.replace(/(Model|For\w+)$/, "")];
}

function readBert(fields: JsonFields): BertConfig {
  fields.only("position_embedding_type", "absolute");
  fields.only("is_decoder", false);
  fields.only("add_cross_attention", false);
  const activation = fields.only("hidden_act", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu");
  return {
    architecture: "bert",
    hiddenSize: fields.integer("hidden_size"),
    layers: fields.integer("num_hidden_layers"),
    heads: fields.integer("num_attention_heads"),
    intermediateSize: fields.integer("intermediate_size"),
    vocabularySize: fields.integer("vocab_size"),
    maxPositions: fields.integer("max_position_embeddings"),
    typeVocabularySize: fields.integer("type_vocab_size"),
    layerNormEpsilon: fields.positive("layer_norm_eps"),
    activation: activation === "gelu" || activation === "relu" ? activation : "gelu-tanh",
  };
}

function readNomicBert(fields: JsonFields, json: JsonObject): NomicBertConfig {
  fields.only("activation_function", "swiglu");
  fields.only("rotary_emb_fraction", 1);
  fields.only("rotary_emb_interleaved", false);
  fields.only("rotary_emb_scale_base", null);
  fields.only("rotary_scaling_factor", null);
  for (const key of ["prenorm", "qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "causal", "use_rms_norm"])
    fields.only(key, false);
  const hiddenSize = fields.integer("n_embd");
  const inner = json.n_inner === null || json.n_inner === undefined ? 4 * hiddenSize : fields.integer("n_inner");
  const multiple = fields.integer("pad_vocab_size_multiple");
  return {
    architecture: "nomic-bert",
    hiddenSize,
    layers: fields.integer("n_layer"),
    heads: fields.integer("n_head"),
    // The reference class rounds the width of its gated MLP up.
    intermediateSize: Math.ceil(inner / 256) * 256,
    vocabularySize: Math.ceil(fields.integer("vocab_size") / multiple) * multiple,
    maxPositions: fields.integer("n_positions"),
    typeVocabularySize: fields.integer("type_vocab_size", 0),
    layerNormEpsilon: fields.positive("layer_norm_epsilon"),
    rotaryBase: fields.positive("rotary_emb_base"),
  };
}

function readModernBert(fields: JsonFields): ModernBertConfig {
  fields.only("hidden_activation", "gelu");
  for (const key of ["norm_bias", "attention_bias", "mlp_bias"]) fields.only(key, false);
  return {
    architecture: "modernbert",
    hiddenSize: fields.integer("hidden_size"),
    layers: fields.integer("num_hidden_layers"),
    heads: fields.integer("num_attention_heads"),
    intermediateSize: fields.integer("intermediate_size"),
    vocabularySize: fields.integer("vocab_size"),
    maxPositions: fields.integer("max_position_embeddings"),
    layerNormEpsilon: fields.positive("norm_eps"),
    localAttention: fields.integer("local_attention", 2),
    globalEveryLayers: fields.integer("global_attn_every_n_layers"),
    globalRotaryBase: fields.positive("global_rope_theta"),
    localRotaryBase: fields.positive("local_rope_theta"),
  };
}

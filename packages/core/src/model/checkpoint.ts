/**
 * The published two-stage checkpoints: their configuration, file layout and tensor names, which stand nowhere else.
 * Both released configurations name a backbone and hold none of its numbers (SPEC §1.8), so those are a table here.
 */
import { join } from "node:path";
import { CorruptFileError, InvalidInputError, MissingFileError, ModelError } from "../errors.js";
import type { BackboneConfig } from "./backbone-config.js";
import { parseBackboneConfig } from "./backbone-config.js";
import type { GraphWeights } from "./graph-weights.js";
import { describe, isJsonObject, JsonFields, type JsonObject, readJsonObject } from "./json-file.js";
import { exists, findWeights, readPrompts } from "./model-directory.js";
import type { SafetensorsFile } from "./safetensors.js";
import { PRESETS, prefixTokens, type TwoStageConfig, type TwoStagePreset, type TwoStageWeights } from "./two-stage.js";

/** Numbers of the backbones that released checkpoints name (SPEC §1.5, §1.6). */
const PUBLISHED_BACKBONES: Readonly<Record<string, BackboneConfig>> = {
  "nomic-ai/nomic-bert-2048": {
    architecture: "nomic-bert",
    hiddenSize: 768,
    layers: 12,
    heads: 12,
    intermediateSize: 3072,
    vocabularySize: 30_528,
    maxPositions: 2048,
    typeVocabularySize: 2,
    layerNormEpsilon: 1e-12,
    rotaryBase: 1000,
  },
  "answerdotai/ModernBERT-base": {
    architecture: "modernbert",
    hiddenSize: 768,
    layers: 22,
    heads: 12,
    intermediateSize: 1152,
    vocabularySize: 50_368,
    maxPositions: 8192,
    layerNormEpsilon: 1e-5,
    localAttention: 128,
    globalEveryLayers: 3,
    globalRotaryBase: 160_000,
    localRotaryBase: 10_000,
  },
};

/** The prompts of training (SPEC §2.2); the released files name the first two only. */
const TRAINED_PROMPTS: Readonly<Record<string, string>> = {
  query: "search_query: ",
  document: "search_document: ",
  classification: "classification: ",
  clustering: "clustering: ",
};

const FIRST_STAGE = "first_stage_model";
const SECOND_STAGE = "second_stage_model";
const NULL_CONTEXT = "sequence_dropout_null_embedding";

/** Both stages' weights under the published names. */
export function publishedWeights(weights: GraphWeights): TwoStageWeights {
  const first = weights.within(FIRST_STAGE);
  const second = weights.within(SECOND_STAGE);
  return {
    firstBackbone: first.within("embedder"),
    firstHead: first.within("mlp"),
    secondBackbone: second.within("backbone"),
    softPrompt: second.within("prompt_projection"),
    outputHead: second.within("output_projection"),
    nullContext: (width) => second.get(NULL_CONTEXT, [width]),
  };
}

/** The learned vector that stands for every context vector where there is no context; the releases have none. */
export async function readNullContext(file: SafetensorsFile, width: number): Promise<Float32Array | undefined> {
  const name = `${SECOND_STAGE}.${NULL_CONTEXT}`;
  return file.tensors.has(name) ? await file.readFloat32(name, [width]) : undefined;
}

/** Refuses weights of which one stage is missing, before a list of missing tensors hides that. */
export function requireBothStages(file: SafetensorsFile, expected: readonly string[]): void {
  const names = [...file.tensors.keys()];
  const missing = [FIRST_STAGE, SECOND_STAGE].filter((stage) => !names.some((name) => name.startsWith(`${stage}.`)));
  if (missing.length === 0) return;
  const lacking = expected.filter((name) => missing.some((stage) => name.startsWith(`${stage}.`)));
  const stages =
    missing.length === 2 ? "either stage" : missing[0] === FIRST_STAGE ? "the first stage" : "the second stage";
  throw new ModelError(
    `ContextualEncoder.load: ${file.path} holds no tensor of ${stages}: ${lacking.length} are missing, ${lacking.slice(0, 3).join(", ")} and so on. A contextual model needs both stages; download its whole checkpoint.`,
  );
}

/** Tensors that no stage read and that aren't known to be left over in published files. */
export function unexpectedTensors(file: SafetensorsFile, read: ReadonlySet<string>): string[] {
  const known = (name: string) =>
    name === `${SECOND_STAGE}.${NULL_CONTEXT}` || name.startsWith(`${SECOND_STAGE}.input_ln.`);
  return [...file.tensors.keys()].filter((name) => !read.has(name) && !known(name));
}

/** All that a two-stage model's directory says, checked. */
export interface TwoStageDirectory {
  readonly path: string;
  readonly preset: TwoStagePreset;
  readonly config: TwoStageConfig;
  /** Longest text in tokens, special tokens and prompt included; the context isn't counted. */
  readonly maxTokens: number;
  readonly prompts: Readonly<Record<string, string>>;
  /** The directory that holds `tokenizer.json`. */
  readonly tokenizer: string;
  /** `model.safetensors` or `model.safetensors.index.json`, for `openWeights`. */
  readonly weights: string;
}

export interface ReadTwoStageOptions {
  /** @default "v1-train" for NomicBERT, "v2" for ModernBERT; or what config.json says under "cde" */
  readonly preset?: TwoStagePreset | undefined;
  /** Directory of tokenizer.json, for a checkpoint that came without. @default the model's own */
  readonly tokenizer?: string | undefined;
}

const OPERATION = "ContextualEncoder.load";
const CLASSES: readonly unknown[] = ["DatasetTransformer", "ContextualDocumentEmbeddingTransformer"];

/** Whether a directory's config.json is that of a two-stage model. */
export async function isTwoStageDirectory(path: string): Promise<boolean> {
  const configPath = join(path, "config.json");
  if (!(await exists(configPath))) return false;
  const { architectures, cde } = await readJsonObject(OPERATION, configPath);
  return cde !== undefined || (Array.isArray(architectures) && CLASSES.includes(architectures[0]));
}

/**
 * Reads a published directory, or one of ours: its config.json has an entry `"cde": { "preset", "backbone" }`, where
 * `backbone` is the config.json of a BERT, NomicBERT or ModernBERT, and both may be left out.
 */
export async function readTwoStageDirectory(
  path: string,
  options: ReadTwoStageOptions = {},
): Promise<TwoStageDirectory> {
  const configPath = join(path, "config.json");
  const json = await readJsonObject(OPERATION, configPath);
  const own = json.cde ?? {};
  if (!isJsonObject(own)) {
    throw new CorruptFileError(
      configPath,
      `${OPERATION}: ${configPath}: "cde" should be an object, found ${describe(own)}.`,
    );
  }
  const backbone = readBackbone(configPath, json, own);
  const preset = choosePreset(configPath, backbone, own.preset, options.preset);
  const fields = new JsonFields(OPERATION, configPath, json);
  const config = readConfig(fields, backbone, preset);
  const maxTokens = fields.integer("max_seq_length");
  const longest = prefixTokens(config) + maxTokens;
  if (longest > backbone.maxPositions && backbone.architecture !== "bert") {
    throw new ModelError(
      `${OPERATION}: ${configPath} asks for ${config.contextDocuments} context documents and texts of ${maxTokens} tokens, ${longest} positions in all; its backbone has ${backbone.maxPositions}.`,
    );
  }
  const { prompts } = await readPrompts(join(path, "config_sentence_transformers.json"));
  return {
    path,
    preset,
    config,
    maxTokens,
    prompts: { ...TRAINED_PROMPTS, ...prompts },
    tokenizer: await findTokenizer(path, options.tokenizer),
    weights: await findWeights(path),
  };
}

function readBackbone(path: string, json: JsonObject, own: JsonObject): BackboneConfig {
  if (own.backbone !== undefined) {
    if (isJsonObject(own.backbone)) return parseBackboneConfig(OPERATION, path, own.backbone);
    throw new CorruptFileError(
      path,
      `${OPERATION}: ${path}: "cde.backbone" should be an object, found ${describe(own.backbone)}.`,
    );
  }
  const known = typeof json.embedder === "string" ? PUBLISHED_BACKBONES[json.embedder] : undefined;
  if (known) return known;
  throw new ModelError(
    `${OPERATION}: ${path} names the backbone ${describe(json.embedder)} and not its numbers. Known are ${Object.keys(PUBLISHED_BACKBONES).join(" and ")}; for another, put its own config.json into this one as "cde": { "backbone": { … } }.`,
  );
}

function choosePreset(
  path: string,
  { architecture }: BackboneConfig,
  written: unknown,
  asked: TwoStagePreset | undefined,
): TwoStagePreset {
  const preset = asked ?? written ?? (architecture === "modernbert" ? "v2" : "v1-train");
  if (typeof preset !== "string" || !Object.hasOwn(PRESETS, preset)) {
    throw new InvalidInputError(
      `${OPERATION}: there is no preset ${describe(preset)} (${asked ? "as asked for" : `in ${path}`}); use ${Object.keys(PRESETS).join(", ")}.`,
    );
  }
  // v1's paths differ in what only NomicBERT has, and v2 is defined on ModernBERT's double norm.
  const fits = preset === "v2" ? architecture === "modernbert" : preset === "v1-train" || architecture === "nomic-bert";
  if (!fits) {
    throw new InvalidInputError(
      `${OPERATION}: the preset "${preset}" isn't defined on the ${architecture} of ${path}.`,
    );
  }
  return preset as TwoStagePreset;
}

function readConfig(fields: JsonFields, backbone: BackboneConfig, preset: TwoStagePreset): TwoStageConfig {
  const path = PRESETS[preset];
  for (const key of ["limit_layers", "limit_layers_first_stage", "embedding_output_dim", "dataset_backbone"])
    fields.only(key, null);
  for (const key of ["autoregressive_backbone", "transductive_tie_token_embeddings"]) fields.only(key, false);
  for (const key of ["pooling_strategy", "biencoder_pooling_strategy"]) fields.only(key, "mean");
  fields.only("pool_ignore_contextual_tokens", true);
  fields.only("pool_ignore_instruction_tokens", path.skipPrompt);
  // The reference draws the context anew for every text where a document has several tokens; that is for training.
  fields.only("transductive_tokens_per_document", 1);
  return {
    firstStage: backbone,
    secondStage: backbone,
    contextDocuments: fields.integer("transductive_corpus_size"),
    tokensPerDocument: 1,
    path,
  };
}

async function findTokenizer(path: string, given: string | undefined): Promise<string> {
  const directory = given ?? path;
  if (await exists(join(directory, "tokenizer.json"))) return directory;
  throw new MissingFileError(
    join(directory, "tokenizer.json"),
    `${OPERATION}: ${directory} has no tokenizer.json. ${given === undefined ? "cde-small-v1 uses the tokenizer of bert-base-uncased, cde-small-v2 that of answerdotai/ModernBERT-base: pass its directory as { tokenizer }." : "Pass the directory of the model's tokenizer."}`,
  );
}

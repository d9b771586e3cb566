/** Reads a sentence-transformers or Hugging Face directory into one checked, plain object. Opens no weights. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { CorruptFileError, InvalidInputError, MissingFileError, ModelError } from "../errors.js";
import { type BackboneConfig, parseBackboneConfig } from "./backbone-config.js";
import {
  describe,
  isJsonObject,
  JsonFields,
  type JsonObject,
  readJson,
  readJsonObject,
  readOptionalJsonObject,
  unreadable,
} from "./json-file.js";

/** How a text's token vectors become one: their mean, their maxima, or the first or last of them. */
export type Pooling = "mean" | "max" | "cls" | "last";

/** All that a model's directory says, checked. */
export interface ModelDirectory {
  readonly path: string;
  readonly config: BackboneConfig;
  readonly pooling: Pooling;
  /** Whether the vectors are scaled to unit length. */
  readonly normalize: boolean;
  /** Longest input in tokens, special tokens and prompt included. */
  readonly maxTokens: number;
  /** Texts to put before an input, by name ("query", "document"); empty where the model has none. */
  readonly prompts: Readonly<Record<string, string>>;
  /** The prompt that sentence-transformers uses where none is named. */
  readonly defaultPrompt: string | undefined;
  /** The directory that holds `tokenizer.json`, for `Tokenizer.load`. */
  readonly tokenizer: string;
  /** `model.safetensors` or `model.safetensors.index.json`, for `openWeights`. */
  readonly weights: string;
}

export interface ReadModelDirectoryOptions {
  /**
   * Required for a directory without modules.json, which doesn't say how its model is pooled, and refused for one
   * with. Such a model's vectors are scaled to unit length.
   */
  readonly pooling?: Pooling;
}

const OPERATION = "readModelDirectory";

/**
 * Reads modules.json, config.json, the pooling, the longest input and the prompts, and finds tokenizer and weights.
 * Raises MissingFileError, CorruptFileError, or ModelError for what this version can't run.
 */
export async function readModelDirectory(
  path: string,
  options: ReadModelDirectoryOptions = {},
): Promise<ModelDirectory> {
  await requireDirectory(path);
  const modules = await readModules(path);
  const transformer = modules ? modules.transformer : path;
  const configPath = join(transformer, "config.json");
  const config = parseBackboneConfig(OPERATION, configPath, await readJsonObject(OPERATION, configPath));
  const pooling = await readPooling(path, modules?.pooling, config.hiddenSize, options.pooling);
  const prompts = await readPrompts(join(path, "config_sentence_transformers.json"));
  await requireFile(join(transformer, "tokenizer.json"), "Save the tokenizer in its fast form (tokenizer.json).");
  return {
    path,
    config,
    pooling,
    normalize: modules?.normalize ?? true,
    maxTokens: await readMaxTokens(transformer, config.maxPositions),
    ...prompts,
    tokenizer: transformer,
    weights: await findWeights(transformer),
  };
}

interface Modules {
  readonly transformer: string;
  readonly pooling: string;
  readonly normalize: boolean;
}

/** The chain of modules.json; undefined where there is no such file. */
async function readModules(directory: string): Promise<Modules | undefined> {
  const path = join(directory, "modules.json");
  if (!(await exists(path))) return undefined;
  const list = await readJson(OPERATION, path);
  if (!Array.isArray(list) || !list.every(isJsonObject))
    throw new CorruptFileError(path, `${OPERATION}: ${path} should be a list of modules, found ${describe(list)}.`);
  const types = list.map(({ type }) => (typeof type === "string" ? type : describe(type)));
  const kinds = types.map((type) => /^sentence_transformers\.(?:\w+\.)*(\w+)$/.exec(type)?.[1]);
  const chain = kinds.join(" ");
  if (chain !== "Transformer Pooling" && chain !== "Transformer Pooling Normalize")
    throw new ModelError(
      `${OPERATION}: ${path} lists the modules ${types.join(", ")}. Supported are sentence_transformers' own Transformer, Pooling and, last, Normalize.`,
    );
  const folders = list.map((module) => inside(directory, path, module.path));
  return { transformer: folders[0]!, pooling: folders[1]!, normalize: list.length === 3 };
}

/** A folder named in a file, which may not lead out of the directory (links that the user made are the user's). */
function inside(directory: string, path: string, folder: unknown): string {
  if (folder === "") return directory;
  if (typeof folder !== "string" || !folder.split("/").every((part) => /^[\w][\w.-]*$/.test(part)))
    throw new CorruptFileError(
      path,
      `${OPERATION}: ${path} names the folder ${describe(folder)}; it has to lie in the model's directory.`,
    );
  return join(directory, folder);
}

const POOLING_FLAGS: Readonly<Record<string, Pooling>> = {
  pooling_mode_cls_token: "cls",
  pooling_mode_mean_tokens: "mean",
  pooling_mode_max_tokens: "max",
  pooling_mode_lasttoken: "last",
};

async function readPooling(
  directory: string,
  folder: string | undefined,
  hiddenSize: number,
  given: Pooling | undefined,
): Promise<Pooling> {
  const names = Object.values(POOLING_FLAGS);
  if (folder === undefined) {
    if (given !== undefined && names.includes(given)) return given;
    throw new InvalidInputError(
      `${OPERATION}: ${directory} has no modules.json, so nothing says how its model is pooled; pass { pooling: ${names.map((name) => `"${name}"`).join(" | ")} }, got ${describe(given)}.`,
    );
  }
  if (given !== undefined)
    throw new InvalidInputError(
      `${OPERATION}: ${directory} says itself how its model is pooled, got { pooling: "${given}" } too. Leave it out.`,
    );
  const path = join(folder, "config.json");
  const json = await readJsonObject(OPERATION, path);
  const width = new JsonFields(OPERATION, path, json).integer("word_embedding_dimension");
  if (width !== hiddenSize)
    throw new CorruptFileError(
      path,
      `${OPERATION}: ${path} pools vectors of ${width} entries, config.json has a hidden size of ${hiddenSize}.`,
    );
  new JsonFields(OPERATION, path, json).only("include_prompt", true);
  const modes = Object.keys(json).filter((key) => key.startsWith("pooling_mode_") && json[key] === true);
  const pooling = modes.length === 1 ? POOLING_FLAGS[modes[0]!] : undefined;
  if (pooling === undefined)
    throw new ModelError(
      `${OPERATION}: ${path} asks for ${modes.join(" and ") || "no pooling mode"}; exactly one of ${Object.keys(POOLING_FLAGS).join(", ")} is supported.`,
    );
  return pooling;
}

/** sentence_bert_config.json, else the tokenizer's own limit, else the model's; never above what the model can read. */
async function readMaxTokens(folder: string, maxPositions: number): Promise<number> {
  const path = join(folder, "sentence_bert_config.json");
  const json = (await readOptionalJsonObject(OPERATION, path)) ?? {};
  new JsonFields(OPERATION, path, json).only("do_lower_case", false);
  if (json.max_seq_length !== undefined && json.max_seq_length !== null) {
    const tokens = new JsonFields(OPERATION, path, json).integer("max_seq_length");
    if (tokens <= maxPositions) return tokens;
    throw new CorruptFileError(
      path,
      `${OPERATION}: ${path} has max_seq_length ${tokens}, the model reads at most ${maxPositions} tokens.`,
    );
  }
  const settings: JsonObject = (await readOptionalJsonObject(OPERATION, join(folder, "tokenizer_config.json"))) ?? {};
  // transformers writes about 1e30 for "no limit".
  const limit = settings.model_max_length;
  return typeof limit === "number" && limit >= 1 ? Math.min(Math.floor(limit), maxPositions) : maxPositions;
}

/** The prompts of a config_sentence_transformers.json; none where there is no such file. */
export async function readPrompts(path: string): Promise<Pick<ModelDirectory, "prompts" | "defaultPrompt">> {
  const json = (await readOptionalJsonObject(OPERATION, path)) ?? {};
  const prompts = json.prompts ?? {};
  if (!isJsonObject(prompts) || !Object.values(prompts).every((prompt) => typeof prompt === "string"))
    throw new CorruptFileError(
      path,
      `${OPERATION}: ${path}: "prompts" should give a text for every name, found ${describe(prompts)}.`,
    );
  const name = json.default_prompt_name ?? undefined;
  if (name !== undefined && (typeof name !== "string" || !Object.hasOwn(prompts, name)))
    throw new CorruptFileError(
      path,
      `${OPERATION}: ${path} has the default prompt ${describe(name)}, and prompts for ${describe(Object.keys(prompts))}.`,
    );
  return { prompts: prompts as Record<string, string>, defaultPrompt: name };
}

/** The path of a folder's weights, for `openWeights`. */
export async function findWeights(folder: string): Promise<string> {
  for (const name of ["model.safetensors", "model.safetensors.index.json"])
    if (await exists(join(folder, name))) return join(folder, name);
  const path = join(folder, "model.safetensors");
  const pickled = await exists(join(folder, "pytorch_model.bin"));
  throw new MissingFileError(
    path,
    `${OPERATION}: ${folder} has neither model.safetensors nor model.safetensors.index.json. ${pickled ? "Convert its pytorch_model.bin: save the model with safe_serialization=True." : "Download the weights."}`,
  );
}

async function requireDirectory(path: string): Promise<void> {
  try {
    if ((await stat(path)).isDirectory()) return;
  } catch (cause) {
    throw unreadable(OPERATION, path, cause);
  }
  throw new CorruptFileError(path, `${OPERATION}: ${path} is a file; pass the directory that it lies in.`);
}

async function requireFile(path: string, advice: string): Promise<void> {
  if (!(await exists(path))) throw new MissingFileError(path, `${OPERATION}: there is no file ${path}. ${advice}`);
}

export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw unreadable(OPERATION, path, cause);
  }
}

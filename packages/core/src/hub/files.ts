/** Which files of a repository make a model: configuration, tokenizer and safetensors. Never code, never pickles. */
import { HubError } from "./errors.js";
import { checkReferredName } from "./names.js";

const CONFIG = "config.json";
const MODULES = "modules.json";
const WEIGHTS = "model.safetensors";
const WEIGHTS_INDEX = "model.safetensors.index.json";
const NAMES = [
  CONFIG,
  MODULES,
  "other-corpora.safetensors",
  "cde.json",
  "config_sentence_transformers.json",
  "sentence_bert_config.json",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "vocab.txt",
] as const;
/** Of a folder that modules.json names: pooling has a configuration, a dense layer weights as well. */
const MODULE_NAMES = [CONFIG, WEIGHTS] as const;

/** Where the names are looked up: the hub's listing, or a snapshot on disk. */
export interface FileSource {
  has(name: string): boolean | Promise<boolean>;
  readJson(name: string): Promise<unknown>;
}

export interface ModelFiles {
  /** To be placed in this order: the weights last, so that a snapshot that has them has everything. */
  readonly present: string[];
  /** Asked for and not in the repository. */
  readonly absent: string[];
}

/** The files of the model in `source`. Throws `HUB_UNSUPPORTED` where configuration or safetensors weights are missing. */
export async function modelFiles(source: FileSource, repoId: string): Promise<ModelFiles> {
  const present: string[] = [];
  const absent: string[] = [];
  const weights: string[] = [];
  const ask = async (name: string, list = present) => {
    const there = await source.has(name);
    (there ? list : absent).push(name);
    return there;
  };
  for (const name of NAMES) await ask(name);
  if (!present.includes(CONFIG)) throw unsupported(repoId, CONFIG);
  if (present.includes(MODULES)) {
    for (const folder of moduleFolders(await source.readJson(MODULES), repoId)) {
      for (const name of MODULE_NAMES) await ask(`${folder}/${name}`);
    }
  }
  if (await ask(WEIGHTS, weights)) return { present: [...present, ...weights], absent };
  if (!(await ask(WEIGHTS_INDEX))) throw unsupported(repoId, `${WEIGHTS} or ${WEIGHTS_INDEX}`);
  for (const shard of shardNames(await source.readJson(WEIGHTS_INDEX), repoId)) {
    if (!(await ask(shard, weights))) throw malformed(repoId, WEIGHTS_INDEX, `names ${shard}, which is not there`);
  }
  return { present: [...present, ...weights], absent };
}

/** `[{ "path": "1_Pooling", … }]` of sentence-transformers; the path of the first module is often "". */
function moduleFolders(modules: unknown, repoId: string): string[] {
  const entries = Array.isArray(modules) ? (modules as ({ path?: unknown } | null)[]) : undefined;
  const folders = entries?.map((entry) => entry?.path) ?? [undefined];
  return folders
    .map((folder) => {
      if (typeof folder !== "string") throw malformed(repoId, MODULES, "is not a list of modules with a path each");
      return folder.replace(/\/$/, "");
    })
    .filter((folder) => folder !== "")
    .map((folder) => checked(folder, repoId));
}

/** `{ "weight_map": { "<tensor>": "model-00001-of-00002.safetensors" } }` of transformers. */
function shardNames(index: unknown, repoId: string): string[] {
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  const shards = [...new Set(typeof map === "object" && map ? (Object.values(map) as unknown[]) : [])];
  if (shards.length === 0) throw malformed(repoId, WEIGHTS_INDEX, "has no weight_map");
  return shards.map((shard) => {
    if (typeof shard !== "string") throw malformed(repoId, WEIGHTS_INDEX, "has a shard whose name is not a string");
    if (!shard.endsWith(".safetensors")) throw malformed(repoId, WEIGHTS_INDEX, `names ${JSON.stringify(shard)}`);
    return checked(shard, repoId);
  });
}

function checked(name: string, repoId: string): string {
  checkReferredName(name, repoId);
  return name;
}

function unsupported(repoId: string, missing: string): HubError {
  const message = `downloadModel: ${repoId} has no ${missing}. Other weights (.bin, .pt, .onnx) and code are not loaded; convert them to safetensors, or pick another { revision }.`;
  return new HubError("HUB_UNSUPPORTED", message);
}

function malformed(repoId: string, name: string, what: string): HubError {
  const message = `downloadModel: ${name} of ${repoId} ${what}. Tell its authors, or pick another { revision }.`;
  return new HubError("HUB_RESPONSE", message);
}

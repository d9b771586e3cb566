import { mkdir, mkdtemp, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CorruptFileError, InvalidInputError, MissingFileError, ModelError } from "../errors.js";
import { type ReadModelDirectoryOptions, readModelDirectory } from "./model-directory.js";

const BERT = {
  architectures: ["BertModel"],
  model_type: "bert",
  hidden_act: "gelu",
  hidden_size: 32,
  intermediate_size: 64,
  layer_norm_eps: 1e-12,
  max_position_embeddings: 40,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  type_vocab_size: 2,
  vocab_size: 120,
};
const NOMIC = {
  model_type: "nomic_bert",
  activation_function: "swiglu",
  n_embd: 32,
  n_head: 4,
  n_inner: 200,
  n_layer: 2,
  n_positions: 64,
  pad_vocab_size_multiple: 64,
  rotary_emb_base: 1000,
  rotary_emb_fraction: 1.0,
  layer_norm_epsilon: 1e-12,
  type_vocab_size: 2,
  vocab_size: 100,
};
const MODERN = {
  model_type: "modernbert",
  hidden_activation: "gelu",
  hidden_size: 32,
  num_attention_heads: 4,
  num_hidden_layers: 4,
  intermediate_size: 40,
  vocab_size: 100,
  local_attention: 8,
  global_attn_every_n_layers: 3,
  global_rope_theta: 160000,
  local_rope_theta: 10000,
  norm_eps: 1e-5,
  max_position_embeddings: 128,
};
const MODULES = ["Transformer", "Pooling", "Normalize"].map((name, idx) => ({
  idx,
  name: `${idx}`,
  path: ["", "1_Pooling", "2_Normalize"][idx]!,
  type: `sentence_transformers.models.${name}`,
}));
const POOLING = { word_embedding_dimension: 32, pooling_mode_mean_tokens: true, pooling_mode_cls_token: false };
const FILES: Readonly<Record<string, unknown>> = {
  "config.json": BERT,
  "modules.json": MODULES,
  "1_Pooling/config.json": POOLING,
  "sentence_bert_config.json": { max_seq_length: 24, do_lower_case: false },
  "config_sentence_transformers.json": { prompts: { query: "q: ", document: "" }, default_prompt_name: "query" },
  "tokenizer.json": {},
  "tokenizer_config.json": { model_max_length: 30 },
  "model.safetensors": "",
};

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-model-"));
});
afterEach(() => rm(folder, { recursive: true }));

/** Writes a sound directory with some files changed (undefined: absent) and reads it. */
async function read(changes: Readonly<Record<string, unknown>> = {}, options?: ReadModelDirectoryOptions) {
  for (const [name, content] of Object.entries({ ...FILES, ...changes })) {
    if (content === undefined) continue;
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return readModelDirectory(folder, options);
}

describe("readModelDirectory", () => {
  test("reads a sentence-transformers directory", async () => {
    expect(await read()).toEqual({
      path: folder,
      config: {
        architecture: "bert",
        hiddenSize: 32,
        layers: 2,
        heads: 4,
        intermediateSize: 64,
        vocabularySize: 120,
        maxPositions: 40,
        typeVocabularySize: 2,
        layerNormEpsilon: 1e-12,
        activation: "gelu",
      },
      pooling: "mean",
      normalize: true,
      maxTokens: 24,
      prompts: { query: "q: ", document: "" },
      defaultPrompt: "query",
      tokenizer: folder,
      weights: join(folder, "model.safetensors"),
    });
  });

  test("reads NomicBERT: widths and tables rounded up as the reference class rounds them", async () => {
    const { config } = await read({ "config.json": NOMIC });
    expect(config).toMatchObject({
      architecture: "nomic-bert",
      intermediateSize: 256,
      vocabularySize: 128,
      rotaryBase: 1000,
    });
    const { config: wide } = await read({
      "config.json": { ...NOMIC, n_inner: null, n_embd: 96 },
      "1_Pooling/config.json": { ...POOLING, word_embedding_dimension: 96 },
    });
    expect(wide.intermediateSize).toBe(512); // 4 · 96 = 384, up to 512
  });

  test("reads ModernBERT, and knows an architecture by its class where there is no model_type", async () => {
    const { config } = await read({
      "config.json": { ...MODERN, model_type: undefined, architectures: ["ModernBertForMaskedLM"] },
    });
    expect(config).toMatchObject({
      architecture: "modernbert",
      localAttention: 8,
      globalEveryLayers: 3,
      globalRotaryBase: 160000,
    });
  });

  test("reads the older layout, whose transformer has a folder of its own", async () => {
    const inner = Object.fromEntries(
      ["config.json", "tokenizer.json", "model.safetensors", "sentence_bert_config.json"].map((name) => [
        `0_Transformer/${name}`,
        FILES[name],
      ]),
    );
    const modules = [{ ...MODULES[0], path: "0_Transformer" }, MODULES[1]];
    const model = await read({
      ...inner,
      "modules.json": modules,
      "config.json": undefined,
      "tokenizer.json": undefined,
      "model.safetensors": undefined,
    });
    expect(model).toMatchObject({ normalize: false, tokenizer: join(folder, "0_Transformer"), maxTokens: 24 });
  });

  test("takes the sharded weights where there is no single file", async () => {
    const { weights } = await read({ "model.safetensors": undefined, "model.safetensors.index.json": {} });
    expect(weights).toBe(join(folder, "model.safetensors.index.json"));
  });

  test("falls back for the longest input to the tokenizer's limit, then to the model's", async () => {
    expect((await read({ "sentence_bert_config.json": {} })).maxTokens).toBe(30);
    expect(
      (await read({ "sentence_bert_config.json": {}, "tokenizer_config.json": { model_max_length: 1e30 } })).maxTokens,
    ).toBe(40);
  });

  test("reads a plain Hugging Face directory once it is told the pooling, and not before", async () => {
    await expect(read({ "modules.json": undefined })).rejects.toThrow(/pass \{ pooling/);
    expect(await readModelDirectory(folder, { pooling: "cls" })).toMatchObject({ pooling: "cls", normalize: true });
    await expect(readModelDirectory(folder, { pooling: "sum" as "mean" })).rejects.toBeInstanceOf(InvalidInputError);
    await expect(read({}, { pooling: "mean" })).rejects.toThrow(/Leave it out/);
  });

  test.each<[string, string]>([
    ["cls", "pooling_mode_cls_token"],
    ["max", "pooling_mode_max_tokens"],
    ["last", "pooling_mode_lasttoken"],
  ])("reads %s pooling", async (pooling, key) => {
    const config = { word_embedding_dimension: 32, pooling_mode_mean_tokens: false, [key]: true };
    expect((await read({ "1_Pooling/config.json": config })).pooling).toBe(pooling);
  });

  const pooling = (change: object) => ({ "1_Pooling/config.json": { ...POOLING, ...change } });
  const bert = (change: object) => ({ "config.json": { ...BERT, ...change } });
  const nomic = (change: object) => ({ "config.json": { ...NOMIC, ...change } });
  const modules = (...change: unknown[]) => ({ "modules.json": change });
  test.each<[string, Record<string, unknown>, new (...args: never[]) => Error, RegExp]>([
    [
      "an unknown architecture",
      bert({ model_type: "t5", architectures: ["T5Model"] }),
      ModelError,
      /"t5".*\["T5Model"\].*nomic_bert/,
    ],
    ["an architecture of Object's prototype", bert({ model_type: "constructor" }), ModelError, /unknown/],
    ["no architecture", bert({ model_type: undefined, architectures: undefined }), ModelError, /nothing/],
    ["heads that don't divide the width", bert({ num_attention_heads: 5 }), CorruptFileError, /5 heads/],
    ["a head of odd width under rotary positions", nomic({ n_head: 32 }), CorruptFileError, /pairs/],
    [
      "a missing number",
      bert({ hidden_size: undefined }),
      CorruptFileError,
      /"hidden_size" should be a positive integer, found nothing/,
    ],
    ["a number of another kind", bert({ num_hidden_layers: "2" }), CorruptFileError, /"num_hidden_layers".*"2"/],
    ["no layers", bert({ num_hidden_layers: 0 }), CorruptFileError, /found 0/],
    ["a fractional size", bert({ vocab_size: 1.5 }), CorruptFileError, /1.5/],
    ["an epsilon of 0", bert({ layer_norm_eps: 0 }), CorruptFileError, /layer_norm_eps/],
    ["relative positions", bert({ position_embedding_type: "relative_key" }), ModelError, /relative_key/],
    ["an unknown activation", bert({ hidden_act: "swish" }), ModelError, /swish/],
    ["partial rotary positions", nomic({ rotary_emb_fraction: 0.5 }), ModelError, /0.5/],
    ["biases that the architecture has not", nomic({ qkv_proj_bias: true }), ModelError, /qkv_proj_bias/],
    ["two pooling modes", pooling({ pooling_mode_cls_token: true }), ModelError, /mean_tokens and|cls_token and/],
    ["no pooling mode", pooling({ pooling_mode_mean_tokens: false }), ModelError, /no pooling mode/],
    [
      "an unsupported pooling mode",
      pooling({ pooling_mode_mean_tokens: false, pooling_mode_weightedmean_tokens: true }),
      ModelError,
      /weightedmean/,
    ],
    ["pooling that leaves the prompt out", pooling({ include_prompt: false }), ModelError, /include_prompt/],
    ["pooling of another width", pooling({ word_embedding_dimension: 64 }), CorruptFileError, /64.*32/],
    [
      "a module of another kind",
      modules(...MODULES.slice(0, 2), { ...MODULES[2], type: "sentence_transformers.models.Dense" }),
      ModelError,
      /Dense/,
    ],
    [
      "a module of the model's own code",
      modules({ ...MODULES[0], type: "sentence_transformers_impl.Transformer" }, MODULES[1]),
      ModelError,
      /sentence_transformers_impl/,
    ],
    ["modules that aren't a list", { "modules.json": { 0: MODULES[0] } }, CorruptFileError, /list/],
    [
      "a folder outside the directory",
      modules(MODULES[0], { ...MODULES[1], path: "../1_Pooling" }),
      CorruptFileError,
      /lie in/,
    ],
    ["an absolute folder", modules({ ...MODULES[0], path: "/etc" }, MODULES[1]), CorruptFileError, /lie in/],
    [
      "a folder in the manner of Windows",
      modules(MODULES[0], { ...MODULES[1], path: "..\\x" }),
      CorruptFileError,
      /lie in/,
    ],
    [
      "a longest input beyond the positions",
      { "sentence_bert_config.json": { max_seq_length: 41 } },
      CorruptFileError,
      /41.*40/,
    ],
    [
      "lower-casing outside the tokenizer",
      { "sentence_bert_config.json": { do_lower_case: true } },
      ModelError,
      /do_lower_case/,
    ],
    [
      "prompts that aren't texts",
      { "config_sentence_transformers.json": { prompts: { query: 1 } } },
      CorruptFileError,
      /prompts/,
    ],
    [
      "a default prompt that isn't there",
      { "config_sentence_transformers.json": { default_prompt_name: "toString" } },
      CorruptFileError,
      /toString/,
    ],
    ["no weights", { "model.safetensors": undefined }, MissingFileError, /Download/],
    ["pickled weights", { "model.safetensors": undefined, "pytorch_model.bin": "x" }, MissingFileError, /Convert/],
    ["no tokenizer", { "tokenizer.json": undefined }, MissingFileError, /tokenizer.json/],
    ["no config", { "config.json": undefined }, MissingFileError, /config.json/],
    ["a cut config", { "config.json": '{"model_type":' }, CorruptFileError, /isn't JSON/],
    ["a config that says a thing twice", { "config.json": '{"a":1,"a":2}' }, CorruptFileError, /"a" twice/],
    ["a config that is a list", { "config.json": [] }, CorruptFileError, /an object/],
    [
      "a config that is a Git-LFS pointer",
      { "config.json": "version https://git-lfs.github.com/spec/v1\n" },
      CorruptFileError,
      /git lfs pull/,
    ],
  ])("refuses %s", async (_, changes, kind, message) => {
    const reading = read(changes);
    await expect(reading).rejects.toBeInstanceOf(kind);
    await expect(reading).rejects.toThrow(message);
  });

  test("refuses a path that is missing or a file", async () => {
    await read();
    await expect(readModelDirectory(join(folder, "none"))).rejects.toBeInstanceOf(MissingFileError);
    await expect(readModelDirectory(join(folder, "config.json"))).rejects.toThrow(/pass the directory/);
    await unlink(join(folder, "1_Pooling/config.json"));
    await expect(readModelDirectory(folder)).rejects.toBeInstanceOf(MissingFileError);
  });
});

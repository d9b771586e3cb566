/** What the published configurations mean, without their weights. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isTwoStageDirectory, publishedWeights, readTwoStageDirectory } from "./checkpoint.js";
import { GraphWeights } from "./graph-weights.js";
import type { JsonObject } from "./json-file.js";
import { prefixTokens, twoStageParameters } from "./two-stage.js";

/** The published config.json as far as SPEC §1.8 gives it. */
const COMMON = {
  attn_implementation: null,
  cache_dir: null,
  config_name: null,
  tokenizer_name: null,
  limit_layers: null,
  limit_layers_first_stage: null,
  embedding_output_dim: null,
  disable_dropout: true,
  disable_transductive_rotary_embedding: true,
  embedder_rerank: "sentence-transformers/gtr-t5-base",
  logit_scale: 50.0,
  max_seq_length: 512,
  torch_dtype: "float32",
  transductive_corpus_size: 512,
  transductive_sequence_dropout_prob: 0.0,
  transductive_tie_token_embeddings: false,
  transductive_tokens_per_document: 1,
};
const V1 = {
  ...COMMON,
  architecture: "transductive",
  architectures: ["DatasetTransformer"],
  biencoder_pooling_strategy: "mean",
  embedder: "nomic-ai/nomic-bert-2048",
};
const V2 = {
  ...COMMON,
  architectures: ["ContextualDocumentEmbeddingTransformer"],
  autoregressive_backbone: false,
  dataset_backbone: null,
  pooling_strategy: "mean",
  embedder: "answerdotai/ModernBERT-base",
  pool_ignore_contextual_tokens: true,
  pool_ignore_instruction_tokens: true,
};

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cde-checkpoint-"));
  for (const name of ["tokenizer.json", "model.safetensors"]) await writeFile(join(directory, name), "{}");
});
afterAll(() => rm(directory, { recursive: true }));

async function read(config: JsonObject) {
  await writeFile(join(directory, "config.json"), JSON.stringify(config));
  expect(await isTwoStageDirectory(directory)).toBe(true);
  return readTwoStageDirectory(directory);
}

describe.each([
  ["cde-small-v1", V1, "v1-train", 236, 281_140_992],
  ["cde-small-v2", V2, "v2", 280, 305_706_240],
] as const)("the configuration of %s", (_, config, preset, tensors, parameters) => {
  test("has the published numbers of tensors and parameters (check 7)", async () => {
    const all = new GraphWeights();
    const shapes = twoStageParameters((await read(config)).config, publishedWeights(all), all);
    expect(shapes.size).toBe(tensors);
    const sizes = [...shapes.values()].map(({ shape }) => shape.reduce<number>((a, b) => a * Number(b), 1));
    expect(sizes.reduce((a, b) => a + b)).toBe(parameters);
  });

  test("reads 512 context documents and 8 places more before texts of 512 tokens (check 8)", async () => {
    const description = await read(config);
    expect(description).toMatchObject({ preset, maxTokens: 512 });
    expect(prefixTokens(description.config) + description.maxTokens).toBe(1032);
    expect(description.prompts).toMatchObject({ query: "search_query: ", document: "search_document: " });
  });
});

test("a biencoder's directory is none of a two-stage model", async () => {
  await writeFile(join(directory, "config.json"), JSON.stringify({ architectures: ["BertModel"], model_type: "bert" }));
  expect(await isTwoStageDirectory(directory)).toBe(false);
});

/** Directories of the fixtures' two-stage models: four context documents, texts in words "w5" to "w63". */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { goldenJson, goldenTensors } from "../model/golden.test.support.js";
import type { JsonObject } from "../model/json-file.js";
import { writeSafetensors } from "../model/safetensors.js";
import type { TensorData } from "../runtime/runtime.js";

/** v1 on NomicBERT, v2 on ModernBERT. */
export type TinyTwoStage = "v1" | "v2";

const SPECIAL = ["[PAD]", "[CLS]", "[SEP]", ":", "[UNK]"];
/** Word 15 is "w15", so that the fixtures' ids can be written as texts. */
const TOKENS = [...SPECIAL, ...Array.from({ length: 59 }, (_, i) => `w${i + 5}`)];

/** Makes the folders "v1" and "v2". */
export async function writeTinyTwoStages(folder: string): Promise<void> {
  for (const name of ["v1", "v2"] as const) await writeModel(join(folder, name), name);
}

/** All weights of a fixture, a null context included. */
export function tinyTwoStageWeights(name: TinyTwoStage): [string, TensorData][] {
  const folders = name === "v1" ? ["cde-v1-stage1", "cde-v1-stage2"] : ["cde-v2"];
  return folders.flatMap((folder) => [...goldenTensors(`${folder}/weights.safetensors`)]);
}

async function writeModel(directory: string, name: TinyTwoStage): Promise<void> {
  const type = name === "v1" ? "nomic_bert" : "modernbert";
  const fixture = name === "v1" ? "cde-v1-stage2" : "cde-v2";
  const { config } = goldenJson<{ config: { backbone: JsonObject } }>(`${fixture}/fixture.json`);
  await mkdir(directory);
  const json = {
    architectures: ["DatasetTransformer"],
    embedder: "example/tiny",
    max_seq_length: 20,
    transductive_corpus_size: 4,
    transductive_tokens_per_document: 1,
    transductive_sequence_dropout_prob: 0,
    pool_ignore_instruction_tokens: type === "modernbert",
    cde: { backbone: { model_type: type, ...config.backbone } },
  };
  const prompts = { prompts: { query: "w20: ", document: "w10: " }, default_prompt_name: null };
  await writeFile(join(directory, "config.json"), JSON.stringify(json));
  await writeFile(join(directory, "config_sentence_transformers.json"), JSON.stringify(prompts));
  await writeFile(join(directory, "tokenizer.json"), JSON.stringify(tokenizerDefinition()));
  await writeWeights(directory, tinyTwoStageWeights(name));
}

export async function writeWeights(directory: string, tensors: readonly [string, TensorData][]): Promise<void> {
  const list = tensors.map(([name, { shape, data }]) => ({
    name,
    dtype: "F32" as const,
    shape,
    data: data as Float32Array,
  }));
  await writeSafetensors(join(directory, "model.safetensors"), list, {});
}

function tokenizerDefinition(): object {
  const added = SPECIAL.filter((token) => token !== ":");
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    decoder: null,
    added_tokens: added.map((content) => ({ id: TOKENS.indexOf(content), content, special: true, normalized: false })),
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "TemplateProcessing",
      single: [
        { SpecialToken: { id: "[CLS]", type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "[SEP]", type_id: 0 } },
      ],
      pair: [],
      special_tokens: {},
    },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(TOKENS.map((token, i) => [token, i])),
    },
  };
}

/** Writes small BERT directories with random weights, so that tests of the encoder need no real model. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mulberry32 } from "@cde-js/core";
import { type PlainTensor, writeTensors } from "./safetensors.js";

export interface TinyModelOptions {
  /** @default 1 */
  readonly seed?: number;
  /** @default 32 */
  readonly hiddenSize?: number;
  /** @default 4 */
  readonly heads?: number;
  /** max_seq_length. @default 32 */
  readonly maxTokens?: number;
  /** @default "mean" */
  readonly pooling?: "mean" | "cls" | "max";
  readonly prompts?: Readonly<Record<string, string>>;
  /** Members of config.json in place of the usual ones. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** The last word on the weights: change, add or delete some. */
  readonly change?: (tensors: Map<string, PlainTensor>) => void;
}

const SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz0123456789"];
/** Every text of letters and digits can be written in it, a token a letter where it isn't one of the words. */
export const TINY_VOCABULARY: readonly string[] = [
  ...SPECIAL,
  ...LETTERS,
  ...LETTERS.map((letter) => `##${letter}`),
  ...". , : ? flood damage rent tenant law court who pays for the of and query document".split(" "),
];
const LAYERS = 2;
const POSITIONS = 64;

/** Makes `directory` and returns it. Equal options make equal bytes. */
export function writeTinyModel(directory: string, options: TinyModelOptions = {}): string {
  const { hiddenSize = 32, heads = 4, maxTokens = 32, pooling = "mean", prompts, config = {} } = options;
  mkdirSync(join(directory, "1_Pooling"), { recursive: true });
  const json = (name: string, value: unknown) => writeFileSync(join(directory, name), JSON.stringify(value));
  json("modules.json", [
    { idx: 0, name: "0", path: "", type: "sentence_transformers.models.Transformer" },
    { idx: 1, name: "1", path: "1_Pooling", type: "sentence_transformers.models.Pooling" },
    { idx: 2, name: "2", path: "2_Normalize", type: "sentence_transformers.models.Normalize" },
  ]);
  json("config.json", {
    model_type: "bert",
    hidden_act: "gelu",
    hidden_size: hiddenSize,
    intermediate_size: 2 * hiddenSize,
    layer_norm_eps: 1e-12,
    max_position_embeddings: POSITIONS,
    num_attention_heads: heads,
    num_hidden_layers: LAYERS,
    type_vocab_size: 2,
    vocab_size: TINY_VOCABULARY.length,
    ...config,
  });
  json("1_Pooling/config.json", {
    word_embedding_dimension: hiddenSize,
    pooling_mode_cls_token: pooling === "cls",
    pooling_mode_mean_tokens: pooling === "mean",
    pooling_mode_max_tokens: pooling === "max",
  });
  json("sentence_bert_config.json", { max_seq_length: maxTokens, do_lower_case: false });
  if (prompts) json("config_sentence_transformers.json", { prompts });
  json("tokenizer_config.json", { pad_token: "[PAD]" });
  json("tokenizer.json", tinyTokenizer());
  const tensors = tinyTensors(hiddenSize, options.seed ?? 1);
  options.change?.(tensors);
  writeTensors(join(directory, "model.safetensors"), tensors);
  return directory;
}

export function tinyTokenizer(vocabulary: readonly string[] = TINY_VOCABULARY): object {
  const special = (content: string) => ({ id: vocabulary.indexOf(content), content, special: true, normalized: false });
  return {
    version: "1.0",
    added_tokens: SPECIAL.map(special),
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
      special_tokens: {
        "[CLS]": { id: "[CLS]", ids: [vocabulary.indexOf("[CLS]")], tokens: ["[CLS]"] },
        "[SEP]": { id: "[SEP]", ids: [vocabulary.indexOf("[SEP]")], tokens: ["[SEP]"] },
      },
    },
    decoder: null,
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
    },
  };
}

function tinyTensors(hidden: number, seed: number): Map<string, PlainTensor> {
  const random = mulberry32(seed);
  const tensors = new Map<string, PlainTensor>();
  // Uniform, wide enough that attention and GELU are far from linear.
  const put = (name: string, shape: number[], { around = 0, width = 1 } = {}) => {
    const size = shape.reduce((a, b) => a * b, 1);
    const data = Float32Array.from({ length: size }, () => around + width * (random() - 0.5));
    tensors.set(name, { dtype: "F32", shape, data });
  };
  const norm = (name: string) => {
    put(`${name}.weight`, [hidden], { around: 1, width: 0.2 });
    put(`${name}.bias`, [hidden], { width: 0.2 });
  };
  const linear = (name: string, inputs: number, outputs: number) => {
    put(`${name}.weight`, [outputs, inputs], { width: 4 / Math.sqrt(inputs) });
    put(`${name}.bias`, [outputs], { width: 0.2 });
  };
  put("embeddings.word_embeddings.weight", [TINY_VOCABULARY.length, hidden], { width: 2 });
  put("embeddings.position_embeddings.weight", [POSITIONS, hidden], { width: 0.5 });
  put("embeddings.token_type_embeddings.weight", [2, hidden], { width: 0.5 });
  norm("embeddings.LayerNorm");
  for (let layer = 0; layer < LAYERS; layer++) {
    const at = `encoder.layer.${layer}`;
    for (const part of ["query", "key", "value"]) linear(`${at}.attention.self.${part}`, hidden, hidden);
    linear(`${at}.attention.output.dense`, hidden, hidden);
    norm(`${at}.attention.output.LayerNorm`);
    linear(`${at}.intermediate.dense`, hidden, 2 * hidden);
    linear(`${at}.output.dense`, 2 * hidden, hidden);
    norm(`${at}.output.LayerNorm`);
  }
  return tensors;
}

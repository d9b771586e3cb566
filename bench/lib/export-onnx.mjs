/** Lays out a BERT directory as transformers.js reads one: our own graph and the same float32 weights in `onnx/model.onnx`. */
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cast, input } from "../../packages/core/dist/graph/index.js";
import { backboneOf } from "../../packages/core/dist/model/architectures.js";
import { GraphWeights } from "../../packages/core/dist/model/graph-weights.js";
import { readModelDirectory } from "../../packages/core/dist/model/model-directory.js";
import { openWeights } from "../../packages/core/dist/model/safetensors.js";
import { encodeModel } from "../../packages/core/dist/onnx/encode.js";

/**
 * Writes `<models>/<name>/` from the sentence-transformers directory `base`. The graph takes `input_ids` and
 * `attention_mask` as int64 and returns `last_hidden_state`. It has no `token_type_ids`: they are zero for every text,
 * and transformers.js feeds what the session asks for, so that it is spared a look-up.
 */
export async function exportOnnx(base, models, name) {
  const target = join(models, name);
  await mkdir(join(target, "onnx"), { recursive: true });
  const { config, maxTokens, weights: weightsPath } = await readModelDirectory(base);

  const graphWeights = new GraphWeights();
  const ids = input("input_ids", "int64", ["B", "S"]);
  const mask = input("attention_mask", "int64", ["B", "S"]);
  const backbone = backboneOf(config, graphWeights);
  const hidden = backbone.encode(backbone.embed(cast(ids, "int32")), cast(mask, "float32"));

  const file = await openWeights(weightsPath);
  const tensors = new Map();
  for (const parameter of graphWeights.parameters.keys()) tensors.set(parameter, await file.readFloat32(parameter));
  await file[Symbol.asyncDispose]();
  const weights = { kind: "embedded", read: (parameter) => tensors.get(parameter) };
  const { bytes } = encodeModel({ last_hidden_state: hidden }, { weights, plainNames: true });
  await writeFile(join(target, "onnx", "model.onnx"), bytes);

  for (const companion of ["config.json", "tokenizer.json"])
    await copyFile(join(base, companion), join(target, companion));
  // transformers.js cuts at model_max_length, where sentence-transformers and cde-js read max_seq_length.
  const settings = JSON.parse(await readFile(join(base, "tokenizer_config.json"), "utf8"));
  await writeFile(join(target, "tokenizer_config.json"), JSON.stringify({ ...settings, model_max_length: maxTokens }));
}

/** Writes a biencoder as one ONNX file that onnxruntime and transformers.js run without this SDK. */
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { prefixOf } from "../encoder/load-biencoder.js";
import { InvalidInputError, ModelError, RuntimeFailureError } from "../errors.js";
import { cast, type Float, type Int, input, l2Normalize } from "../graph/index.js";
import { backboneOf } from "../model/architectures.js";
import { isTwoStageDirectory } from "../model/checkpoint.js";
import { GraphWeights } from "../model/graph-weights.js";
import { readModelDirectory } from "../model/model-directory.js";
import { pool } from "../model/pooling.js";
import { openWeights } from "../model/safetensors.js";
import { readSecondStage } from "../model/second-stage.js";
import { encodeModel, plainName } from "../onnx/encode.js";

const OPERATION = "exportOnnx";
/** What protobuf's messages can hold. */
const MOST_BYTES = 2 ** 31 - 1;

/**
 * `source` is a biencoder's directory with float weights. Inputs are `input_ids` and `attention_mask` (int64
 * [batch, sequence]), outputs `last_hidden_state` [batch, sequence, hidden] and `sentence_embedding` [batch, hidden],
 * pooled and of unit length. For transformers.js write it to `onnx/model.onnx` in the directory. Raises ModelError for
 * what the file can't express: a second stage that reads a context.
 */
export async function exportOnnx(source: string, file: string): Promise<void> {
  if (await isTwoStageDirectory(source)) {
    throw new ModelError(`${OPERATION}: ${source} is a two-stage model; one ONNX file can't express its context.`);
  }
  const directory = await readModelDirectory(source);
  const stage = await readSecondStage(source, directory.config);
  if (stage !== undefined && stage !== "spectral") {
    throw new ModelError(`${OPERATION}: ${source} has a ${stage.kind} stage; one ONNX file can't express its context.`);
  }
  await using weights = await openWeights(directory.weights);
  if ([...weights.tensors.values()].some(({ dtype }) => dtype === "I8")) {
    throw new InvalidInputError(`${OPERATION}: ${source} holds int8 weights; export the float32 ones.`);
  }
  const ids = input("input_ids", "int64", ["batch", "sequence"]) as Int;
  const mask = cast(input("attention_mask", "int64", ["batch", "sequence"]), "float32") as Float;
  const backbone = backboneOf(directory.config, new GraphWeights());
  const hidden = backbone.encode(backbone.embed(ids), mask);
  const outputs = { last_hidden_state: hidden, sentence_embedding: l2Normalize(pool(directory.pooling, hidden, mask)) };
  const { parameters } = encodeModel(outputs);
  const prefix = prefixOf(weights);
  const data = new Map<string, Float32Array>();
  let bytes = 0;
  for (const port of parameters) {
    const name = plainName(port);
    const values = await weights.readFloat32(prefix + name, port.shape as number[]);
    bytes += values.byteLength;
    data.set(name, values);
  }
  if (bytes > MOST_BYTES)
    throw new ModelError(`${OPERATION}: ${source} holds ${bytes} bytes of weights; at most 2 GB.`);
  const model = encodeModel(outputs, {
    plainNames: true,
    weights: { kind: "embedded", read: (name) => data.get(name)! },
  });
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    await mkdir(dirname(file), { recursive: true });
    await writeFile(temporary, model.bytes, { flag: "wx" });
    await rename(temporary, file);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw new RuntimeFailureError(`${OPERATION}: can't write ${file}: ${(cause as Error).message}`, { cause });
  }
}

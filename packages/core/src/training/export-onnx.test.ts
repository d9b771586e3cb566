/** The ONNX file of a biencoder, run by onnxruntime alone, against the reference's vectors (`golden/bert-tiny`). */
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ModelError } from "../errors.js";
import { difference, float32, goldenJson, goldenTensors } from "../model/golden.test.support.js";
import { writeSafetensors } from "../model/safetensors.js";
import { exportOnnx } from "./export-onnx.js";

let root: string;
let model: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "cde-onnx-"));
  model = join(root, "model");
  await mkdir(join(model, "1_Pooling"), { recursive: true });
  const { config } = goldenJson<{ config: object }>("bert-tiny/fixture.json");
  const module = (idx: number, path: string, type: string) => ({
    idx,
    path,
    type: `sentence_transformers.models.${type}`,
  });
  const files = {
    "config.json": { model_type: "bert", ...config },
    "modules.json": [
      module(0, "", "Transformer"),
      module(1, "1_Pooling", "Pooling"),
      module(2, "2_Normalize", "Normalize"),
    ],
    "1_Pooling/config.json": { word_embedding_dimension: 32, pooling_mode_mean_tokens: true },
    "tokenizer.json": {},
  };
  for (const [name, value] of Object.entries(files)) await writeFile(join(model, name), JSON.stringify(value));
  await writeSafetensors(
    join(model, "model.safetensors"),
    [...goldenTensors("bert-tiny/weights.safetensors")].map(([name, { shape, data }]) => {
      return { name, dtype: "F32", shape, data: data as Float32Array };
    }),
  );
});
afterAll(() => rm(root, { recursive: true }));

test("is run by onnxruntime alone to the reference's states and vectors", async () => {
  const file = join(model, "onnx", "model.onnx");
  await exportOnnx(model, file);
  expect(await readdir(join(model, "onnx"))).toEqual(["model.onnx"]);
  const session = await InferenceSession.create(file);
  expect([...session.inputNames].sort()).toEqual(["attention_mask", "input_ids"]);
  const expected = goldenTensors("bert-tiny/expected.safetensors");
  const feed = (name: string) => {
    const { shape, data } = expected.get(name)!;
    return new Tensor("int64", BigInt64Array.from(data as Int32Array, BigInt), shape);
  };
  const out = await session.run({ input_ids: feed("input_ids"), attention_mask: feed("attention_mask") });
  const found = (name: string) => float32(out[name]!.dims, out[name]!.data as Float32Array);
  expect(difference(found("sentence_embedding"), expected.get("mean_pooled_normalised")!)).toBeLessThan(1e-5);
  const [states, wanted] = [found("last_hidden_state"), expected.get("last_hidden_state")!];
  expect(states.shape).toEqual(wanted.shape);
  // Row 0 has no padding; the reference's states at padding mean nothing.
  const row = (tensor: typeof states) => float32([24 * 32], (tensor.data as Float32Array).subarray(0, 24 * 32));
  expect(difference(row(states), row(wanted))).toBeLessThan(1e-5);
  const plain = await session.run({
    input_ids: feed("input_ids"),
    attention_mask: ones(expected.get("input_ids")!.shape),
  });
  const unmasked = float32(plain.sentence_embedding!.dims, plain.sentence_embedding!.data as Float32Array);
  expect(difference(unmasked, expected.get("mean_pooled_normalised")!)).toBeGreaterThan(1e-2);
});

test("refuses a model whose vectors depend on a context", async () => {
  await writeFile(join(model, "cde.json"), JSON.stringify({ format: 1, secondStage: { kind: "prefix", layers: 1 } }));
  await expect(exportOnnx(model, join(root, "x.onnx"))).rejects.toThrow(ModelError);
  await rm(join(model, "cde.json"));
});

function ones(shape: readonly number[]): Tensor {
  return new Tensor("int64", new BigInt64Array(shape.reduce((a, b) => a * b)).fill(1n), shape);
}

/** The int8 export: loads to what int8 on loading gives, is small, and is there wholly or not at all. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContextualEncoder, exportInt8, InvalidInputError, ModelError } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { expect, test } from "vitest";
import { sharedPath } from "../support/shared.js";
import { writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const base = sharedPath("models/all-MiniLM-L6-v2");
const TEXTS = ["who pays for the flood damage ?", "law court", "", "rent of the tenant, 42"];

async function vectorsOf(directory: string, dtype?: "int8"): Promise<Float32Array[]> {
  await using encoder = await ContextualEncoder.load(directory, dtype ? { dtype } : {});
  return (await encoder.withoutContext().embedDocuments(TEXTS)).vectors;
}

test("gives the vectors of the source run as int8, with its prompts, and not those of float32", async () => {
  const prompts = { query: "query: ", document: "document: " };
  const source = writeTinyModel(join(folder, "source"), { prompts });
  const target = join(folder, "new/target"); // folders above it are made
  await exportInt8(source, target);
  const exported = await vectorsOf(target);
  expect(largestDifference(exported, await vectorsOf(source, "int8"))).toBeLessThan(1e-6);
  expect(largestDifference(exported, await vectorsOf(source))).toBeGreaterThan(1e-4);
  const size = (directory: string) => statSync(join(directory, "model.safetensors")).size;
  expect(size(target) / size(source)).toBeLessThan(0.5);
  expect(readdirSync(join(folder, "new"))).toEqual(["target"]);
});

test("loads from a directory whose transformer lies in a folder of its own", async () => {
  const source = writeTinyModel(join(folder, "nested"));
  mkdirSync(join(source, "0_Transformer"));
  for (const name of [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "sentence_bert_config.json",
  ]) {
    renameSync(join(source, name), join(source, "0_Transformer", name));
  }
  const modules = JSON.parse(readFileSync(join(source, "modules.json"), "utf8"));
  modules[0].path = "0_Transformer";
  writeFileSync(join(source, "modules.json"), JSON.stringify(modules));
  await exportInt8(source, join(folder, "nested-int8"));
  expect(largestDifference(await vectorsOf(join(folder, "nested-int8")), await vectorsOf(source, "int8"))).toBe(0);
});

test("leaves out heads that no embedding passes, also behind a prefix", async () => {
  const source = writeTinyModel(join(folder, "headed"), {
    change: (tensors) => {
      for (const [name, tensor] of [...tensors]) {
        tensors.delete(name);
        tensors.set(`bert.${name}`, tensor);
      }
      for (const name of ["bert.pooler.dense.weight", "cls.predictions.transform.dense.weight"]) {
        tensors.set(name, { dtype: "F32", shape: [32, 32], data: new Float32Array(1024) });
      }
    },
  });
  await exportInt8(source, join(folder, "headed-int8"));
  await using encoder = await ContextualEncoder.load(join(folder, "headed-int8"));
  expect(encoder.unusedTensors).toEqual([]);
  expect(largestDifference(await vectorsOf(join(folder, "headed-int8")), await vectorsOf(source, "int8"))).toBe(0);
});

test("refuses what is int8 already, what is no BERT, and a target that holds something", async () => {
  const source = writeTinyModel(join(folder, "plain"));
  await expect(exportInt8(modelDirectory, join(folder, "twice"))).rejects.toThrow(/int8 already/);
  const nomic = writeTinyModel(join(folder, "unknown"), { config: { model_type: "t5" } });
  await expect(exportInt8(nomic, join(folder, "twice"))).rejects.toThrow(ModelError);
  for (const target of [source, `${source}/`, join(folder, "plain/1_Pooling"), join(source, "config.json")]) {
    await expect(exportInt8(source, target), target).rejects.toThrow(InvalidInputError);
  }
  expect(existsSync(join(folder, "twice"))).toBe(false);
  mkdirSync(join(folder, "empty"));
  await exportInt8(source, join(folder, "empty"));
  expect(await vectorsOf(join(folder, "empty"))).toHaveLength(4);
});

test("leaves nothing behind where it fails half-way", async () => {
  const source = writeTinyModel(join(folder, "broken"), {
    change: (tensors) => tensors.get("encoder.layer.1.output.dense.weight")!.data.fill(Number.NaN, 70, 71),
  });
  const before = readdirSync(folder).sort();
  await expect(exportInt8(source, join(folder, "never"))).rejects.toThrow(
    "row 1 of encoder.layer.1.output.dense.weight holds NaN",
  );
  rmSync(join(source, "tokenizer.json"));
  await expect(exportInt8(source, join(folder, "never"))).rejects.toMatchObject({ code: "MISSING_FILE" });
  expect(readdirSync(folder).sort()).toEqual(before);
});

test.skipIf(base === undefined)(
  "makes the bundled model from the base weights, byte by byte (needs ../shared)",
  async () => {
    const target = join(folder, "mini");
    await exportInt8(base!, target);
    for (const name of readdirSync(modelDirectory, { recursive: true }) as string[]) {
      // The sample of other corpora is made by the model, not exported with it.
      if (!statSync(join(modelDirectory, name)).isFile() || name === "other-corpora.safetensors") continue;
      expect(readFileSync(join(target, name)).equals(readFileSync(join(modelDirectory, name))), name).toBe(true);
    }
  },
);

test("refuses a model with a prefix stage, which would be lost without a word", async () => {
  const source = writeTinyModel(join(folder, "staged"));
  const secondStage = { kind: "prefix", softmax: "gated", layers: 1 };
  writeFileSync(join(source, "cde.json"), JSON.stringify({ format: 1, secondStage }));
  await expect(exportInt8(source, join(folder, "staged-int8"))).rejects.toThrow(
    `exportInt8: ${source} has a prefix stage`,
  );
  expect(existsSync(join(folder, "staged-int8"))).toBe(false);
});

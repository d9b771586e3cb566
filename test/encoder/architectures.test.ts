/** Every architecture as a plain biencoder, in every form of numbers, pooled in every way: one vector a text. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContextualEncoder } from "@cde-js/core";
import { describe, expect, test } from "vitest";
import { goldenJson, goldenPath } from "../support/golden.js";
import { writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const WORDS = ["flood", "damage", "rent", "tenant", "law", "court", "who", "pays", "for", "the"];
const TEXTS = Array.from({ length: 24 }, (_, i) =>
  Array.from({ length: 1 + ((5 * i) % 24) }, (_, k) => WORDS[(i + k * k) % 10]).join(" "),
);

/** A directory with the golden weights of an architecture, and our small tokenizer. */
function directoryOf(golden: string, type: string): string {
  const directory = writeTinyModel(join(folder, golden));
  const { config } = goldenJson<{ config: object }>(`${golden}/fixture.json`);
  writeFileSync(join(directory, "config.json"), JSON.stringify({ ...config, model_type: type }));
  cpSync(goldenPath(`${golden}/weights.safetensors`), join(directory, "model.safetensors"));
  return directory;
}

/** In one call; and the largest difference to each text alone, and to batches of other mates. */
async function embedAllWays(encoder: ContextualEncoder): Promise<{ vectors: Float32Array[]; difference: number }> {
  const embedder = encoder.withoutContext();
  const { vectors } = await embedder.embedDocuments(TEXTS);
  const alone: Float32Array[] = [];
  for (const text of TEXTS) alone.push(await embedder.embedQuery(text));
  const halves = [await embedder.embedDocuments(TEXTS.slice(0, 7)), await embedder.embedDocuments(TEXTS.slice(7))];
  const apart = halves.flatMap((half) => half.vectors);
  return { vectors, difference: Math.max(largestDifference(vectors, alone), largestDifference(vectors, apart)) };
}

describe.each([
  ["bert-tiny", "bert"],
  ["nomic-bert-tiny", "nomic_bert"],
  ["modernbert-tiny", "modernbert"],
])("%s", (golden, type) => {
  const directory = directoryOf(golden, type);

  test("int8 is near float32, dynamic int8 too, and a text's vector is its own wherever it promises to be", async () => {
    await using float32 = await ContextualEncoder.load(directory);
    await using int8 = await ContextualEncoder.load(directory, { dtype: "int8" });
    await using dynamic = await ContextualEncoder.load(directory, { dtype: "int8-dynamic" });
    const [exact, rows, shared] = [await embedAllWays(float32), await embedAllWays(int8), await embedAllWays(dynamic)];
    expect(exact.difference).toBeLessThan(1e-6);
    expect(rows.difference).toBeLessThan(1e-6);
    expect(shared.difference).toBeGreaterThan(1e-5);
    const promises = [float32, int8, dynamic].map((encoder) => encoder.withoutContext().batchInvariant);
    expect(promises).toEqual([true, true, false]);
    for (const { vectors } of [rows, shared]) {
      const cosines = vectors.map((vector, i) =>
        vector.reduce((sum, value, k) => sum + value * exact.vectors[i]![k]!, 0),
      );
      expect(Math.min(...cosines)).toBeGreaterThan(0.99);
      expect(Math.min(...cosines)).toBeLessThan(1 - 1e-7); // it was quantised at all
    }
  });
});

describe.each(["mean", "cls", "max", "lasttoken"])("pooled by %s", (pooling) => {
  test.each(["float32", "int8"] as const)("padding never shows (%s)", async (dtype) => {
    const directory = writeTinyModel(join(folder, `${pooling}-${dtype}`));
    const path = join(directory, "1_Pooling/config.json");
    const { word_embedding_dimension } = JSON.parse(readFileSync(path, "utf8"));
    const flag = pooling.replace("mean", "mean_tokens").replace("cls", "cls_token").replace("max", "max_tokens");
    writeFileSync(path, JSON.stringify({ word_embedding_dimension, [`pooling_mode_${flag}`]: true }));
    await using encoder = await ContextualEncoder.load(directory, { dtype });
    const { vectors, difference } = await embedAllWays(encoder);
    expect(difference).toBeLessThan(1e-6);
    expect(largestDifference(vectors.slice(1), vectors.slice(0, -1))).toBeGreaterThan(0.1);
  });
});

/** The real all-MiniLM-L6-v2 against the reference's vectors, in every form of numbers. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContextualEncoder } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { goldenJson, goldenPath } from "../support/golden.js";
import { readTensor } from "../support/safetensors.js";
import { sharedPath } from "../support/shared.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const fixture = goldenJson<{ sentences: { name: string; text: string }[] }>("minilm/minilm.json");
const texts = fixture.sentences.map(({ text }) => text);
const packed = readTensor(goldenPath("minilm/expected.safetensors"), "embeddings");
const golden = texts.map((_, i) => packed.slice(384 * i, 384 * (i + 1)));
const base = sharedPath("models/all-MiniLM-L6-v2");
const folder = temporaryFolder();

function leastCosine(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  return Math.min(...a.map((vector, i) => vector.reduce((sum, value, k) => sum + value * b[i]![k]!, 0)));
}

/** Texts of 3 to 256 tokens: "law" and "court" are one token each. */
const lengths = [3, 4, 5, 7, 8, 16, 31, 64, 127, 128, 200, 255, 256];
const sized = lengths.map((length, i) => textOf(length, i));
function textOf(length: number, seed: number): string {
  const words = ["law", "court", "rent", "flood", "who", "pays", "the", "river", "money", "house"];
  return Array.from({ length: length - 2 }, (_, k) => words[(k * k + 3 * k + seed) % words.length]).join(" ");
}

/** Every text alone, and in batches of different mates: the largest difference between the two. */
async function batchDifference(encoder: ContextualEncoder): Promise<number> {
  const embedder = encoder.withoutContext();
  const alone: Float32Array[] = [];
  for (const text of sized) alone.push((await embedder.embedDocuments([text])).vectors[0]!);
  let largest = 0;
  const compare = async (positions: number[], mates: string[] = []) => {
    const { vectors } = await embedder.embedDocuments([...positions.map((i) => sized[i]!), ...mates]);
    const expected = positions.map((i) => alone[i]!);
    largest = Math.max(largest, largestDifference(vectors.slice(0, positions.length), expected));
  };
  const all = lengths.map((_, i) => i);
  await compare(all);
  await compare(all.toReversed());
  for (const i of all.slice(0, 8)) await compare([i, i]); // no padding, another number of rows
  // Mates a little longer, so that each is padded by a few, and enough of them for a full batch.
  for (const i of all.slice(0, -1)) {
    await compare([i], [textOf(Math.min(256, lengths[i]! + 3), 5), textOf(lengths[i]!, 9)]);
  }
  await compare(
    all.slice(0, 6),
    Array.from({ length: 58 }, (_, k) => textOf(3 + (k % 14), k)),
  );
  return largest;
}

describe.skipIf(base === undefined)("with the real float32 weights (needs ../shared)", () => {
  let encoder: ContextualEncoder;
  beforeAll(async () => {
    encoder = await ContextualEncoder.load(base!);
  });
  afterAll(() => encoder.dispose());

  test("vectors equal the reference's within 1e-5, alone and together", async () => {
    const embedder = encoder.withoutContext();
    expect(largestDifference((await embedder.embedDocuments(texts)).vectors, golden)).toBeLessThan(1e-5);
    const alone = await Promise.all(texts.map((text) => embedder.embedQuery(text)));
    expect(largestDifference(alone, golden)).toBeLessThan(1e-5);
  });

  test("control: [CLS] pooling and another order of the words are far from the reference", async () => {
    const directory = join(folder, "cls");
    cpSync(base!, directory, { recursive: true });
    const path = join(directory, "1_Pooling/config.json");
    const pooling = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...pooling, pooling_mode_cls_token: true, pooling_mode_mean_tokens: false }));
    await using other = await ContextualEncoder.load(directory);
    const { vectors } = await other.withoutContext().embedDocuments(texts);
    expect(largestDifference(vectors, golden)).toBeGreaterThan(0.05);
    expect(other.fingerprint).not.toBe(encoder.fingerprint);
    const reversed = await encoder.withoutContext().embedQuery(texts[0]!.split(" ").toReversed().join(" "));
    expect(largestDifference([reversed], [golden[0]!])).toBeGreaterThan(0.01);
  });

  test("reports exactly the sentences that the reference had to cut", async () => {
    const { truncated } = await encoder.withoutContext().embedDocuments(texts);
    const embedder = encoder.withoutContext();
    expect(truncated).toEqual(texts.flatMap((text, i) => (embedder.countTokens(text) > 256 ? [i] : [])));
    expect(truncated.length).toBeGreaterThan(0);
  });

  test("a text has one vector, alone and in any batch", async () => {
    expect(await batchDifference(encoder)).toBeLessThan(1e-6);
  });

  test("int8 made on loading equals the bundled export, bit for bit", async () => {
    await using made = await ContextualEncoder.load(base!, { dtype: "int8" });
    await using bundled = await ContextualEncoder.load(modelDirectory);
    const [a, b] = await Promise.all([made, bundled].map((each) => each.withoutContext().embedDocuments(texts)));
    expect(largestDifference(a!.vectors, b!.vectors)).toBe(0);
  });

  test("dynamic int8 is near the reference too, depends on the batch, and says so", async () => {
    await using dynamic = await ContextualEncoder.load(base!, { dtype: "int8-dynamic" });
    expect(dynamic.withoutContext().batchInvariant).toBe(false);
    const { vectors } = await dynamic.withoutContext().embedDocuments(texts);
    expect(leastCosine(vectors, golden)).toBeGreaterThan(0.97);
    expect(await batchDifference(dynamic)).toBeGreaterThan(1e-4);
  });
});

describe("the bundled int8 model", () => {
  let encoder: ContextualEncoder;
  beforeAll(async () => {
    encoder = await ContextualEncoder.load(modelDirectory);
  });
  afterAll(() => encoder.dispose());

  test("is within cosine 0.99 of the reference, and of no other sentence", async () => {
    const { vectors } = await encoder.withoutContext().embedDocuments(texts);
    // Nothing but spaces gives 0.983, nothing but emoji, which the vocabulary lacks, 0.986.
    const wordless = ["spaces only", "emoji and joiners"];
    const worded = fixture.sentences.flatMap(({ name }, i) => (wordless.includes(name) ? [] : [i]));
    expect(worded.length).toBe(10);
    const of = (list: readonly Float32Array[]) => worded.map((i) => list[i]!);
    expect(leastCosine(of(vectors), of(golden))).toBeGreaterThan(0.99);
    expect(leastCosine(vectors, golden)).toBeGreaterThan(0.98);
    // Control: pooled, normalised numbers of another text would pass a check of shape and length.
    expect(leastCosine(vectors, [...golden.slice(1), golden[0]!])).toBeLessThan(0.7);
  });

  test("a text has one vector, alone and in any batch", async () => {
    expect(encoder.withoutContext().batchInvariant).toBe(true);
    expect(await batchDifference(encoder)).toBeLessThan(1e-6);
  });
});

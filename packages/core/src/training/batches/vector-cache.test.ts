import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Embedder } from "../../encoder/embedder.js";
import { writeSafetensors } from "../../model/safetensors.js";
import { createRandom } from "../../random.js";
import { temporaryPath } from "../data/temporary.test.support.js";
import { keyOf } from "../data/text-key.js";
import { openFileSurrogate } from "./file-surrogate.js";
import { embedderSurrogate, functionSurrogate, type Surrogate, toSurrogate } from "./surrogate.js";
import { openVectors } from "./vector-cache.js";

const DIMENSIONS = 8;

/** Any direction for each text; another model gives others. */
function vectorOf(text: string, model = "model"): Float32Array {
  const random = createRandom(keyOf(`${model} ${text}`));
  const vector = Float32Array.from({ length: DIMENSIONS }, () => random.normal());
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}

/** Counts the texts that it is asked for. */
function counting(model = "model", modelId = "test model"): { surrogate: Surrogate; asked: string[] } {
  const asked: string[] = [];
  const surrogate = functionSurrogate(
    async (texts, { kind }) => {
      asked.push(...texts);
      return texts.map((text) => vectorOf(`${kind} ${text}`, model));
    },
    { modelId },
  );
  return { surrogate, asked };
}

const PROBE = 1; // texts that opening asks for
const texts = Array.from({ length: 50 }, (_, i) => `text ${i}`);
const packed = (list: readonly string[], kind: string) => list.flatMap((text) => [...vectorOf(`${kind} ${text}`)]);
/** Unit length is made again of what is given: equal to a rounding. */
const near = (found: Float32Array, expected: number[]) => {
  expect(found.length).toBe(expected.length);
  expect(Math.max(...expected.map((value, i) => Math.abs(value - found[i]!)))).toBeLessThan(1e-6);
};

describe("cached vectors", () => {
  test("each text is embedded once, by its kind, and read back in any order, here and opened again", async () => {
    const folder = temporaryPath("cache");
    const { surrogate, asked } = counting();
    {
      await using vectors = await openVectors(folder, surrogate);
      expect(await vectors.ensure([...texts, "text 3"], "document")).toBe(50);
      near(
        await vectors.read(["text 7", "text 3", "text 7"], "document"),
        packed(["text 7", "text 3", "text 7"], "document"),
      );
      near(await vectors.read(["text 7"], "query"), packed(["text 7"], "query"));
      expect(asked.length).toBe(PROBE + 51);
    }
    await using again = await openVectors(folder, surrogate);
    near(await again.read([...texts].reverse(), "document"), packed([...texts].reverse(), "document"));
    expect(asked.length).toBe(PROBE + 51 + PROBE);
  });

  test("a surrogate that changed since is refused; another one has a folder of its own", async () => {
    const folder = temporaryPath("changed");
    await (await openVectors(folder, counting().surrogate))[Symbol.asyncDispose]();
    const attempt = openVectors(folder, counting("new weights").surrogate);
    await expect(attempt).rejects.toMatchObject({ code: "MODEL_CHANGED" });
    await expect(attempt).rejects.toThrow("test model has changed since the vectors");
    const shorter = functionSurrogate(async (list) => list.map(() => [1, 0]), { modelId: "test model" });
    await expect(openVectors(folder, shorter)).rejects.toThrow("has 2 dimensions");
    await using other = await openVectors(folder, counting("new weights", "another model").surrogate);
    near(await other.read(["x"], "query"), [...vectorOf("query x", "new weights")]);
    expect(readdirSync(folder).length).toBe(2);
  });

  test("vectors of a slice that was cut off in writing are made again", async () => {
    const folder = temporaryPath("cut");
    const { surrogate, asked } = counting();
    await using vectors = await openVectors(folder, surrogate);
    await vectors.ensure(texts.slice(0, 10), "document");
    const own = join(folder, readdirSync(folder)[0]!);
    truncateSync(join(own, "keys.bin"), 16 * 7 + 5); // seven keys and a part of the eighth
    const before = asked.length;
    await using again = await openVectors(folder, surrogate);
    near(await again.read(texts.slice(0, 10), "document"), packed(texts.slice(0, 10), "document"));
    expect(asked.slice(before + PROBE)).toEqual(["text 7", "text 8", "text 9"]);
  });

  test("damage is found: a changed row when it is read, missing rows and a foreign manifest on opening", async () => {
    const folder = temporaryPath("damaged");
    const { surrogate } = counting();
    {
      await using vectors = await openVectors(folder, surrogate);
      await vectors.ensure(texts.slice(0, 4), "document");
    }
    const own = join(folder, readdirSync(folder)[0]!);
    const path = join(own, "vectors.bin");
    const bytes = readFileSync(path);
    bytes[(8 + 4 * DIMENSIONS) * 2 + 12]! ^= 1;
    writeFileSync(path, bytes);
    {
      await using vectors = await openVectors(folder, surrogate);
      await expect(vectors.read(["text 2"], "document")).rejects.toThrow("row 2 of");
      await vectors.read(["text 1"], "document");
    }
    truncateSync(path, 50);
    await expect(openVectors(folder, surrogate)).rejects.toThrow("has 50 bytes, 4 rows of 40 are expected");
    const manifest = readFileSync(join(own, "surrogate.json"), "utf8");
    writeFileSync(join(own, "surrogate.json"), manifest.replace(surrogate.digest, "0".repeat(64)));
    await expect(openVectors(folder, surrogate)).rejects.toMatchObject({ code: "FINGERPRINT_MISMATCH" });
    writeFileSync(join(own, "surrogate.json"), "{}");
    await expect(openVectors(folder, surrogate)).rejects.toMatchObject({ code: "CORRUPT_FILE" });
  });

  test("two that add to one folder at a time both find all vectors", async () => {
    const folder = temporaryPath("shared");
    const { surrogate } = counting();
    await using a = await openVectors(folder, surrogate);
    await using b = await openVectors(folder, surrogate);
    await Promise.all([
      a.ensure(texts, "document"),
      b.ensure([...texts].reverse(), "document"),
      b.ensure(texts, "query"),
    ]);
    for (const vectors of [a, b]) {
      near(await vectors.read(texts, "document"), packed(texts, "document"));
      near(await vectors.read(texts, "query"), packed(texts, "query"));
    }
  });

  test("a folder that can't be made is a typed error", async () => {
    const file = temporaryPath("file");
    writeFileSync(file, "");
    await expect(openVectors(join(file, "below"), counting().surrogate)).rejects.toMatchObject({
      code: expect.stringMatching(/RUNTIME|CORRUPT_FILE/),
    });
  });
});

describe("surrogates", () => {
  test("an embedder is one as it is: its fingerprint, and queries as queries", async () => {
    const embedder = {
      modelId: "stub",
      dimensions: DIMENSIONS,
      fingerprint: "f".repeat(64),
      embedQueries: async (list: readonly string[]) => ({
        vectors: list.map((text) => vectorOf(`q ${text}`)),
        truncated: [],
      }),
      embedDocuments: async (list: readonly string[]) => ({
        vectors: list.map((text) => vectorOf(`d ${text}`)),
        truncated: [],
      }),
    } as unknown as Embedder;
    const surrogate = toSurrogate(embedder);
    expect([surrogate.name, surrogate.digest]).toEqual(["stub", embedder.fingerprint]);
    const [query] = await surrogate.embed(["x"], { kind: "query" });
    const [document] = await surrogate.embed(["x"], { kind: "document" });
    near(query!, [...vectorOf("q x")]);
    near(document!, [...vectorOf("d x")]);
    const short = { ...embedder, embedDocuments: async () => ({ vectors: [], truncated: [] }) } as Embedder;
    await expect(embedderSurrogate(short).embed(["x"], { kind: "document" })).rejects.toThrow("0 vectors for 1 texts");
    expect(() => functionSurrogate(async () => [], { modelId: " " })).toThrow("must name the model");
  });

  async function files(rows: number[][], lines: unknown[], shape = [rows.length, rows[0]!.length]) {
    const [vectors, list] = [temporaryPath("vectors.safetensors"), temporaryPath("texts.jsonl")];
    await writeSafetensors(vectors, [{ name: "vectors", dtype: "F32", shape, data: Float32Array.from(rows.flat()) }]);
    writeFileSync(list, lines.map((line) => JSON.stringify(line)).join("\n"));
    return { vectors, texts: list };
  }

  test("vectors from a file are found by their texts and brought to unit length; nothing is cached", async () => {
    const paths = await files(
      [
        [3, 4],
        [0, 2],
        [1, 0],
      ],
      ["a", { text: "b" }, "a"],
    );
    await using surrogate = await openFileSurrogate(paths);
    expect([surrogate.dimensions, surrogate.texts]).toEqual([2, 3]);
    const folder = temporaryPath("unused");
    await using vectors = await openVectors(folder, surrogate);
    near(await vectors.read(["b", "a", "a"], "query"), [0, 1, 0.6, 0.8, 0.6, 0.8]);
    await expect(vectors.read(["c"], "query")).rejects.toThrow('has no vector for "c" (position 0)');
    await using swapped = await openFileSurrogate(
      await files(
        [
          [3, 4],
          [0, 2],
          [1, 0],
        ],
        ["b", "a", "c"],
      ),
    );
    expect(swapped.digest).not.toBe(surrogate.digest);
  });

  test("refuses files that don't belong together", async () => {
    await expect(
      openFileSurrogate(
        await files(
          [
            [3, 4],
            [0, 2],
          ],
          ["a"],
        ),
      ),
    ).rejects.toThrow("has 1 texts");
    await expect(openFileSurrogate(await files([[3, 4]], [5]))).rejects.toMatchObject({
      code: "CORRUPT_FILE",
      line: 1,
    });
    await expect(openFileSurrogate({ ...(await files([[3, 4]], ["a"])), tensor: "x" })).rejects.toThrow(
      "found none, only vectors",
    );
    await expect(openFileSurrogate(await files([[3, 4]], ["a"], [2]))).rejects.toThrow(
      "should be F32 [texts, dimensions], found F32 [2]",
    );
  });
});

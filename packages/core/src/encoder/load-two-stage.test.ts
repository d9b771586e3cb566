/** Two-stage checkpoints by the public door: texts in, the reference's vectors out; and directories that can't be run. */
import { cp, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CorpusContext, textDigest } from "../context/corpus-context.js";
import { InvalidInputError, MissingFileError, ModelError } from "../errors.js";
import { goldenTensors } from "../model/golden.test.support.js";
import type { JsonObject } from "../model/json-file.js";
import { writeSafetensors } from "../model/safetensors.js";
import type { TensorData } from "../runtime/runtime.js";
import { ContextualEncoder, type LoadOptions, NoNullContextError } from "./contextual-encoder.js";
import { tinyTwoStageWeights, writeTinyTwoStages, writeWeights } from "./tiny-two-stage.test.support.js";

const NULL = "second_stage_model.sequence_dropout_null_embedding";

/** The text whose ids, behind its prompt of two tokens, are this row of a fixture; undefined for a row without [SEP]. */
function textOf(ids: TensorData, row: number): string | undefined {
  const width = ids.shape[1]!;
  const tokens = [...(ids.data as Int32Array)].slice(row * width, (row + 1) * width);
  const end = tokens.indexOf(2);
  // The last query has the unknown word, 4, which any word is.
  return end < 0
    ? undefined
    : tokens
        .slice(3, end)
        .map((id) => (id === 4 ? "elsewhere" : `w${id}`))
        .join(" ");
}

function textsOf(ids: TensorData): string[] {
  return Array.from({ length: ids.shape[0]! }, (_, row) => textOf(ids, row)).filter((text) => text !== undefined);
}

function unitRows({ shape, data }: TensorData): number[][] {
  const width = shape[1]!;
  return Array.from({ length: shape[0]! }, (_, i) => {
    const row = [...(data as Float32Array).subarray(i * width, (i + 1) * width)];
    return row.map((value) => value / Math.hypot(...row));
  });
}

function furthest(a: readonly ArrayLike<number>[], b: readonly ArrayLike<number>[]): number {
  return Math.max(...a.flatMap((row, i) => Array.from(row, (value, j) => Math.abs(value - b[i]![j]!))));
}

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "cde-two-stage-"));
  await writeTinyTwoStages(root);
});
afterAll(() => rm(root, { recursive: true }));

/** A copy of a model with some of its files changed. */
async function changed(
  name: "v1" | "v2",
  change: {
    config?: (json: JsonObject) => JsonObject;
    tensors?: (name: string) => boolean;
    more?: readonly [string, TensorData][];
  },
): Promise<string> {
  const directory = await mkdtemp(join(root, "changed-"));
  await cp(join(root, name), directory, { recursive: true });
  if (change.config) {
    const path = join(directory, "config.json");
    await writeFile(path, JSON.stringify(change.config(JSON.parse(await readFile(path, "utf8")) as JsonObject)));
  }
  if (change.tensors || change.more) {
    const kept = tinyTwoStageWeights(name).filter(([tensor]) => change.tensors?.(tensor) ?? true);
    await writeWeights(directory, [...kept, ...(change.more ?? [])]);
  }
  return directory;
}

const load = (directory: string, options?: LoadOptions) =>
  ContextualEncoder.load(directory, { runtime: { threads: 1 }, ...options });

describe.each([
  ["v1", "v1-train", "cde-v1-stage2", "T"],
  ["v1", "v1-hub", "cde-v1-stage2", "H"],
  ["v2", "v2", "cde-v2", "residual_prefixmask"],
] as const)("%s, preset %s", (model, preset, fixture, path) => {
  const golden = goldenTensors(`${fixture}/expected.safetensors`);
  const contextTexts = textsOf(golden.get("context_ids")!).slice(0, 4);
  const queries = textsOf(golden.get("query_ids")!);
  const documents = textsOf(golden.get("doc_ids")!);

  test("context, queries and documents are the reference's; with another context they differ", async () => {
    await using encoder = await load(join(root, model), { preset });
    expect(encoder).toMatchObject({ contextSize: 4, dimensions: 32, maxTokens: 20, unusedTensors: [] });
    const context = await encoder.buildContext(contextTexts);
    const expected = golden.get("context_vectors")!;
    expect(furthest([context.vectors()], [expected.data.subarray(0, 128) as Float32Array])).toBeLessThanOrEqual(1e-4);

    const embedder = encoder.withContext(context);
    const { vectors } = await embedder.embedQueries(queries);
    expect(furthest(vectors, unitRows(golden.get(`${path}/J4/query`)!))).toBeLessThanOrEqual(1e-4);
    expect(documents).toHaveLength(4); // the fifth, a lone [CLS], is no text
    const found = await embedder.embedDocuments(documents);
    expect(furthest(found.vectors, unitRows(golden.get(`${path}/J4/doc`)!).slice(0, 4))).toBeLessThanOrEqual(1e-4);
    expect(Math.hypot(...found.vectors[0]!)).toBeCloseTo(1, 6);

    const alone = await Promise.all(queries.map((query) => embedder.embedQuery(query)));
    expect(furthest(alone, vectors)).toBeLessThanOrEqual(1e-6);

    const other = encoder.withContext(await encoder.buildContext(textsOf(golden.get("context_ids")!).slice(4, 8)));
    expect(other.fingerprint).not.toBe(embedder.fingerprint);
    expect(furthest((await other.embedQueries(queries)).vectors, vectors)).toBeGreaterThan(1e-3);
  });

  test("the null context is the reference's where the checkpoint has one, and refused where not", async () => {
    await using encoder = await load(join(root, model), { preset });
    const { vectors } = await encoder.withoutContext().embedQueries(queries);
    expect(furthest(vectors, unitRows(golden.get(`${path}/J4/query_all_null`)!))).toBeLessThanOrEqual(1e-4);
    const released = await changed(model, { tensors: (name) => name !== NULL });
    await using other = await load(released, { preset });
    expect(() => other.withoutContext()).toThrow(NoNullContextError);
  });

  test("a context survives saving, and is bound by another encoder of the same model", async () => {
    const file = join(root, `${preset}.context`);
    await using encoder = await load(join(root, model), { preset });
    const context = await encoder.buildContext(contextTexts);
    await context.save(file);
    await using again = await load(join(root, model), { preset });
    const embedder = again.withContext(await CorpusContext.load(file));
    expect(embedder.fingerprint).toBe(encoder.withContext(context).fingerprint);
    const { vectors } = await embedder.embedQueries(queries);
    expect(furthest(vectors, unitRows(golden.get(`${path}/J4/query`)!))).toBeLessThanOrEqual(1e-4);
  });
});

describe("what a two-stage model refuses", () => {
  test("too few or too many context documents, with both numbers, unless repeats are allowed", async () => {
    await using encoder = await load(join(root, "v1"));
    const texts = ["w5", "w6", "w7", "w8", "w9"];
    const numbers = (got: number) => `this model reads exactly 4 context documents, got ${got}`;
    await expect(encoder.buildContext(texts.slice(0, 3))).rejects.toThrow(numbers(3));
    await expect(encoder.buildContext(texts)).rejects.toThrow(numbers(5));
    await expect(encoder.buildContext(texts, { repeat: true })).rejects.toThrow(numbers(5));
    await expect(encoder.buildContext([])).rejects.toThrow(InvalidInputError);
    const repeated = await encoder.buildContext(texts.slice(0, 3), { repeat: true, seed: 7 });
    expect(repeated.size).toBe(4);
  });

  test("repeats are drawn by the seed, each document about equally often, behind those given", async () => {
    await using encoder = await load(join(root, "v1"));
    const counts = async (texts: string[], seed: number) => {
      const context = await encoder.buildContext(texts, { repeat: true, seed });
      expect(context.identity.texts.slice(0, texts.length)).toEqual(texts.map(textDigest));
      return texts.map((text) => context.identity.texts.filter((digest) => digest === textDigest(text)).length);
    };
    expect(await counts(["w5", "w6"], 3)).toEqual([2, 2]);
    const drawn = [];
    for (const seed of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0])
      drawn.push((await counts(["w5", "w6", "w7"], seed)).join(""));
    expect(new Set(drawn)).toEqual(new Set(["211", "121", "112"]));
    expect(drawn.at(-1)).toBe(drawn[0]);
  });

  test("contexts of another number or width of vectors", async () => {
    await using encoder = await load(join(root, "v1"));
    const made = (size: number, dimensions: number) =>
      new CorpusContext({
        identity: {
          model: encoder.fingerprint,
          stage: "full",
          strength: null,
          texts: Array.from({ length: size }, (_, i) => textDigest(`${i}`)),
        },
        modelId: "tiny",
        vectors: new Float32Array(size * dimensions),
        dimensions,
        spectrum: undefined,
        truncated: [],
      });
    expect(() => encoder.withContext(made(3, 32))).toThrow(
      "the context holds 3 vectors of 32 dimensions, this model reads exactly 4 of 32",
    );
    expect(() => encoder.withContext(made(4, 16))).toThrow(
      "4 vectors of 16 dimensions, this model reads exactly 4 of 32",
    );
  });

  test("a context of the same weights under another preset", async () => {
    await using trained = await load(join(root, "v1"), { preset: "v1-train" });
    await using hub = await load(join(root, "v1"), { preset: "v1-hub" });
    const context = await trained.buildContext(["w5", "w6", "w7", "w8"]);
    expect(() => hub.withContext(context)).toThrow("the context was made by model");
  });

  test.each(["first", "second"])("a directory without the %s stage, whose tensors it names", async (stage) => {
    const directory = await changed("v1", { tensors: (name) => !name.startsWith(`${stage}_stage_model.`) });
    await expect(load(directory)).rejects.toThrow(
      new RegExp(`holds no tensor of the ${stage} stage: \\d+ are missing, ${stage}_stage_model\\..*download`),
    );
  });

  test("a directory without one tensor, or with one of another shape", async () => {
    const name = "second_stage_model.output_projection.2.bias";
    const without = await changed("v2", { tensors: (tensor) => tensor !== name });
    await expect(load(without)).rejects.toThrow(`lacks 1 of `);
    await expect(load(without)).rejects.toThrow(name);
    const misshapen = await changed("v2", {
      tensors: (tensor) => tensor !== name,
      more: [[name, { dtype: "float32", shape: [16], data: new Float32Array(16) }]],
    });
    await expect(load(misshapen)).rejects.toThrow(`${name} is F32[16]`);
  });

  test("tensors left over are named, and those known from published files aren't", async () => {
    const tensor: TensorData = { dtype: "float32", shape: [1], data: new Float32Array(1) };
    const more = ["second_stage_model.input_ln.weight", "third_stage_model.weight"].map(
      (name) => [name, tensor] as const,
    );
    await using encoder = await load(await changed("v1", { more: more as [string, TensorData][] }));
    expect(encoder.unusedTensors).toEqual(["third_stage_model.weight"]);
  });

  test("a prompt that the model doesn't know, with those that it knows", async () => {
    await expect(load(join(root, "v1"), { prompts: { document: "passage" } })).rejects.toThrow(
      'the model knows no prompt "passage" (asked for as prompts.document), only: query, document, classification, clustering',
    );
    await using plain = await load(join(root, "v1"));
    await using other = await load(join(root, "v1"), { prompts: { document: "query" } });
    expect(other.fingerprint).not.toBe(plain.fingerprint);
    const [a, b] = [
      await plain.buildContext(["w5", "w6", "w7", "w8"]),
      await other.buildContext(["w5", "w6", "w7", "w8"]),
    ];
    expect(furthest([a.vectors()], [b.vectors()])).toBeGreaterThan(1e-3);
  });

  test("a directory without tokenizer, unless another is given", async () => {
    const directory = await changed("v1", {});
    await rm(join(directory, "tokenizer.json"));
    await expect(load(directory)).rejects.toThrow(MissingFileError);
    await expect(load(directory)).rejects.toThrow("pass its directory as { tokenizer }");
    await using encoder = await load(directory, { tokenizer: join(root, "v1") });
    expect(encoder.contextSize).toBe(4);
  });

  test("configurations that this version doesn't run", async () => {
    const withConfig = (json: JsonObject) => changed("v1", { config: (old) => ({ ...old, ...json }) });
    await expect(load(await withConfig({ cde: {} }))).rejects.toThrow(
      'names the backbone "example/tiny" and not its numbers. Known are nomic-ai/nomic-bert-2048 and',
    );
    await expect(load(await withConfig({ transductive_tokens_per_document: 2 }))).rejects.toThrow(ModelError);
    await expect(load(await withConfig({ autoregressive_backbone: true }))).rejects.toThrow(ModelError);
    await expect(load(await withConfig({ pool_ignore_instruction_tokens: true }))).rejects.toThrow(ModelError);
    await expect(load(await withConfig({ max_seq_length: 53 }))).rejects.toThrow(
      "65 positions in all; its backbone has 64",
    );
    await expect(load(join(root, "v1"), { preset: "v2" })).rejects.toThrow(`"v2" isn't defined on the nomic-bert`);
    await expect(load(join(root, "v2"), { preset: "v3" as never })).rejects.toThrow("use v1-train, v1-hub, v2");
    await expect(load(join(root, "v1"), { pooling: "mean" })).rejects.toThrow('has no option "pooling"');
    await expect(load(join(root, "v1"), { dtype: "int8" })).rejects.toThrow("float32 only");
  });
});

test("weights that have to be converted, and weights behind a link, give the same vectors", async () => {
  const golden = goldenTensors("cde-v2/expected.safetensors");
  const vectorsOf = async (directory: string) => {
    await using encoder = await load(directory);
    const context = await encoder.buildContext(textsOf(golden.get("context_ids")!).slice(0, 4));
    return (await encoder.withContext(context).embedQueries(textsOf(golden.get("query_ids")!))).vectors;
  };
  const expected = unitRows(golden.get("residual_prefixmask/J4/query")!);
  // As in the hub's cache, where the file lies in another folder under its digest.
  const linked = await changed("v2", {});
  const blob = join(root, "0123abcd");
  await rename(join(linked, "model.safetensors"), blob);
  await symlink(blob, join(linked, "model.safetensors"));
  expect(furthest(await vectorsOf(linked), expected)).toBeLessThanOrEqual(1e-4);

  const half = await changed("v2", {});
  const list = [...goldenTensors("cde-v2/weights.safetensors")].map(([name, { shape, data }]) => {
    return { name, dtype: "F16" as const, shape, data: data as Float32Array };
  });
  await writeSafetensors(join(half, "model.safetensors"), list);
  const rounded = furthest(await vectorsOf(half), expected);
  expect(rounded).toBeLessThanOrEqual(1e-2); // float16 keeps 11 bits
  expect(rounded).toBeGreaterThan(1e-5);
});

describe("an aborted buildContext", () => {
  test("rejects with the reason, and the encoder goes on", async () => {
    await using encoder = await load(join(root, "v1"));
    const controller = new AbortController();
    const texts = ["w5", "w6", "w7", "w8"];
    const whole = await encoder.buildContext(texts);
    controller.abort(new Error("changed my mind"));
    await expect(encoder.buildContext(texts, { signal: controller.signal })).rejects.toThrow("changed my mind");
    const [a, b] = await Promise.all([encoder.buildContext(texts), encoder.buildContext(texts.toReversed())]);
    expect([...a.vectors()]).toEqual([...whole.vectors()]);
    expect(b.fingerprint).not.toBe(a.fingerprint);
  });
});

/** What a run exports: directories that load to the trainer's own vectors, and say where they come from. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ContextualEncoder, exportInt8, InvalidInputError, ModelError } from "@cde-js/core";
import { Trainer, type TrainerOptions, type TrainingEmbedder } from "@cde-js/core/training";
import { describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";
import { batchOf, read, tinyPairs } from "./support.js";

const folder = temporaryFolder();
const tiny = writeTinyModel(join(folder, "tiny"), { prompts: { query: "query : ", document: "document : " } });
const runtime = { threads: 1 };
const FAST: TrainerOptions = { learningRate: 3e-3, warmupSteps: 0, temperature: 0.1, runtime };
const pairs = tinyPairs(8);
const TEXTS = ["who pays for flood damage ?", "the tenant", "x y z", "law of the court and of the tenant who pays"];
let count = 0;
const place = () => join(folder, `model-${count++}`);

async function trained(options: TrainerOptions = {}, source = tiny, steps = 5): Promise<Trainer> {
  const trainer = await Trainer.create(source, { ...FAST, ...options });
  const batches = Array.from({ length: steps }, () => batchOf(pairs, "tiny pairs"));
  for await (const _ of trainer.steps(batches));
  return trainer;
}

async function vectorsOf(embedder: TrainingEmbedder): Promise<Float32Array[]> {
  return [...(await embedder.embedQueries(TEXTS)), ...(await embedder.embedDocuments(TEXTS))];
}

/** The same texts through the exported directory. */
async function exported(directory: string, context?: readonly string[]): Promise<Float32Array[]> {
  await using encoder = await ContextualEncoder.load(directory, { runtime });
  const embedder = context ? encoder.withContext(await encoder.buildContext(context)) : encoder.withoutContext();
  const queries = await embedder.embedQueries(TEXTS);
  return [...queries.vectors, ...(await embedder.embedDocuments(TEXTS)).vectors];
}

describe("a biencoder", () => {
  test("loads to the very vectors of the trainer, which are not the base's", async () => {
    await using trainer = await trained();
    const target = place();
    await trainer.export(target, { card: { name: "Tiny" } });
    const expected = await vectorsOf(await trainer.embedder());
    // Weights that are constants of a session may be multiplied in another order.
    expect(largestDifference(await exported(target), expected)).toBeLessThan(1e-6);
    expect(largestDifference(await exported(tiny), expected)).toBeGreaterThan(0.01);
  });

  test("has the files of sentence-transformers, and is written wholly or not at all", async () => {
    await using trainer = await trained({}, tiny, 1);
    const target = place();
    await trainer.export(target);
    expect(readdirSync(target).sort()).toEqual([
      "1_Pooling",
      "README.md",
      "config.json",
      "config_sentence_transformers.json",
      "model.safetensors",
      "modules.json",
      "sentence_bert_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    for (const name of ["config.json", "tokenizer.json", "config_sentence_transformers.json"]) {
      expect(read(join(target, name))).toBe(read(join(tiny, name)));
    }
    await expect(trainer.export(target)).rejects.toThrow("holds 9 files already");
    await expect(trainer.export(place(), { weights: "best" })).rejects.toThrow("no best weights");
    expect(readdirSync(folder).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("of frozen layers has the base's lower weights, bit for bit, and other upper ones", async () => {
    await using trainer = await trained({ freeze: 1 });
    const target = place();
    await trainer.export(target);
    const [before, after] = [tensorsOf(tiny), tensorsOf(target)];
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    const changed = [...before].filter(([name, bytes]) => !bytes.equals(after.get(name)!)).map(([name]) => name);
    expect(changed.length).toBeGreaterThan(10);
    expect(changed.filter((name) => !name.startsWith("encoder.layer.1."))).toEqual([]);
  });

  test("of low-rank updates holds them merged into plain weights", async () => {
    await using trainer = await trained({ lora: { rank: 3 }, learningRate: 2e-2 });
    const target = place();
    await trainer.export(target);
    expect([...tensorsOf(target).keys()].sort()).toEqual([...tensorsOf(tiny).keys()].sort());
    const expected = await vectorsOf(await trainer.embedder());
    expect(largestDifference(await exported(target), expected)).toBeLessThan(1e-5);
    expect(largestDifference(await exported(tiny), expected)).toBeGreaterThan(0.05);
  });

  test("averaged with the base lies between the two", async () => {
    await using trainer = await trained();
    const [whole, half, none] = [place(), place(), place()];
    await trainer.export(whole);
    await trainer.export(half, { averageWithBase: 0.5 });
    await trainer.export(none, { averageWithBase: 0.999999 });
    const name = "encoder.layer.0.output.dense.bias";
    const [base, last, mean] = [tiny, whole, half].map((directory) => floats(tensorsOf(directory).get(name)!)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    mean.forEach((value, i) => {
      expect(value).toBeCloseTo((base[i]! + last[i]!) / 2, 6);
    });
    expect(largestDifference(await exported(none), await exported(tiny))).toBeLessThan(1e-4);
    await expect(trainer.export(place(), { averageWithBase: 1 })).rejects.toThrow(InvalidInputError);
  });

  test("has a card with data, licences, settings and figures, in which names can't break the tables", async () => {
    await using trainer = await trained();
    const target = place();
    await trainer.export(target, {
      card: {
        name: "Licences, small",
        licence: "apache-2.0",
        languages: ["en"],
        data: { "tiny pairs": { licence: "CC0 | none", source: "made up" } },
        notes: "For tests.",
      },
    });
    const card = read(join(target, "README.md"));
    expect(card).toMatch(/^---\nlanguage:\n- en\nlicense: apache-2.0\n/);
    expect(card).toContain("| tiny pairs | 40 | CC0 \\| none | made up |");
    expect(card).toContain("| learningRate | 0.003 |");
    expect(card).toContain("| drift of general similarities from the base |");
    expect(card).toContain("5 steps; weights: those of the last step.");
    expect(card).toContain("For tests.");
  });

  test("starts from int8 weights only where rounded values are accepted, and the card says so", async () => {
    const int8 = place();
    await exportInt8(tiny, int8);
    await expect(Trainer.create(int8, { runtime })).rejects.toThrow(
      "accept their rounded values with { dequantize: true }",
    );
    await using trainer = await trained({ dequantize: true }, int8, 1);
    await using fromFloat = await trained({}, tiny, 1);
    const [a, b] = [await vectorsOf(await trainer.embedder()), await vectorsOf(await fromFloat.embedder())];
    expect(largestDifference(a, b)).toBeLessThan(0.05);
    expect(largestDifference(a, b)).toBeGreaterThan(0);
    const target = place();
    await trainer.export(target);
    expect(read(join(target, "README.md"))).toContain("weights were int8; training began from their rounded values");
    expect(largestDifference(await exported(target), a)).toBeLessThan(1e-6);
  });

  test("is the start of a second phase: an exported model trains on", async () => {
    await using first = await trained();
    const target = place();
    await first.export(target);
    const negatives = tinyPairs(8, 3, 1);
    await using second = await Trainer.create(target, FAST);
    for await (const { documents } of second.steps([batchOf(negatives)])) expect(documents).toBe(16);
    expect(largestDifference(await vectorsOf(await second.embedder()), await exported(target))).toBeGreaterThan(1e-4);
  });
});

describe("a prefix stage", () => {
  const secondStage = { kind: "prefix", layers: 1 } as const;

  test("trains its own tensors through the context, and loads to the trainer's vectors with and without one", async () => {
    await using trainer = await trained({ secondStage, context: { documents: 5 } });
    const target = place();
    await trainer.export(target);
    expect(JSON.parse(read(join(target, "cde.json")))).toEqual({
      format: 1,
      secondStage: { kind: "prefix", softmax: "gated", layers: 1, spectral: false },
    });
    const gates = floats(tensorsOf(target).get("prefix.layer.1.gate")!);
    expect(gates.some((gate) => gate !== 0)).toBe(true);
    const context = pairs.map(({ positive }) => positive);
    const behind = await vectorsOf(await trainer.embedder({ context }));
    const alone = await vectorsOf(await trainer.embedder());
    expect(largestDifference(await exported(target, context), behind)).toBeLessThan(1e-5);
    expect(largestDifference(await exported(target), alone)).toBeLessThan(1e-6);
    expect(largestDifference(behind, alone)).toBeGreaterThan(1e-4);

    // A second phase reads the stage from the directory.
    await using second = await Trainer.create(target, { ...FAST, context: { documents: 5 } });
    expect(largestDifference(await vectorsOf(await second.embedder({ context })), behind)).toBeLessThan(1e-5);
    await expect(Trainer.create(target, { ...FAST, secondStage })).rejects.toThrow("names a second stage already");
  });

  test("reads a corpus sample where it is given, and refuses too few documents", async () => {
    const few = { from: { "tiny pairs": ["a", "b"] }, documents: 3 };
    const made = (context: TrainerOptions["context"]) => trained({ secondStage, ...(context && { context }) }, tiny, 1);
    await expect(made(few)).rejects.toThrow(
      'the model reads 3 context documents, context.from holds 2 of "tiny pairs"',
    );
    await expect(made({ ...few, from: { other: ["a", "b", "c"] } })).rejects.toThrow(
      'holds documents of other, a batch is of "tiny pairs"',
    );
    await expect(made(undefined)).rejects.toThrow("reads 64 context documents, a batch");
    await (await made({ ...few, repeat: true })).dispose();
    await expect(made({ documents: 3, dropout: 0.1 })).rejects.toThrow("no null context");
  });

  test("with frozen layers below it trains from their cached states", async () => {
    const layerCache = { directory: join(folder, "states") };
    await using trainer = await trained({ secondStage, freeze: 1, layerCache, context: { documents: 4 } });
    const target = place();
    await trainer.export(target);
    const context = pairs.map(({ positive }) => positive);
    const behind = await vectorsOf(await trainer.embedder({ context }));
    expect(largestDifference(await exported(target, context), behind)).toBeLessThan(1e-5);
    await expect(
      Trainer.create(tiny, { runtime, secondStage: { kind: "prefix", layers: 2 }, freeze: 1, layerCache }),
    ).rejects.toThrow("the lowest 0 layers don't depend on a context");
  });
});

test("what one directory or file can't express is refused", async () => {
  await expect(Trainer.create(join(folder, "nothing"), { runtime })).rejects.toThrow("neither a model directory");
  await expect(Trainer.create(tiny, { runtime, secondStage: { kind: "prefix", layers: 9 } })).rejects.toThrow(
    "layers must be a whole number from 1 to the 2",
  );
  const wrong = writeTinyModel(join(folder, "wrong"), {
    change: (tensors) => void tensors.delete("encoder.layer.1.output.dense.bias"),
  });
  await expect(Trainer.create(wrong, { runtime })).rejects.toThrow(ModelError);
});

/** Bytes of every tensor of a directory's weights. */
function tensorsOf(directory: string): Map<string, Buffer> {
  const file = readFileSync(join(directory, "model.safetensors"));
  const head = Number(file.readBigUInt64LE(0));
  const json = JSON.parse(file.toString("utf8", 8, 8 + head)) as Record<string, { data_offsets?: [number, number] }>;
  const at = 8 + head;
  return new Map(
    Object.entries(json).flatMap(([name, { data_offsets: place_ }]) =>
      place_ ? [[name, file.subarray(at + place_[0], at + place_[1])] as const] : [],
    ),
  );
}

function floats(bytes: Buffer): Float32Array {
  return new Float32Array(new Uint8Array(bytes).buffer);
}

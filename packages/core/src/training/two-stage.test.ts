/** The trainer on two-stage models: the paper's architecture, small, and what its export loads to. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ContextualEncoder } from "../encoder/contextual-encoder.js";
import { tinyTwoStageWeights, writeTinyTwoStages, writeWeights } from "../encoder/tiny-two-stage.test.support.js";
import type { JsonObject } from "../model/json-file.js";
import { openSafetensors } from "../model/safetensors.js";
import { NULL_CONTEXT } from "./base-model.js";
import type { TrainingBatch } from "./batch.js";
import { Trainer } from "./trainer.js";
import type { TrainerOptions } from "./trainer-options.js";

const runtime = { threads: 1 };

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "cde-train-two-stage-"));
  await writeTinyTwoStages(root);
  for (const name of ["v1", "v2"] as const) {
    const without = tinyTwoStageWeights(name).filter(([tensor]) => tensor !== NULL_CONTEXT);
    await writeWeights(join(root, name), without);
  }
});
afterAll(() => rm(root, { recursive: true }));

/** Eight pairs of words; nothing but the pairing says what belongs together. */
const batch: TrainingBatch = {
  dataset: "words",
  pairs: Array.from({ length: 8 }, (_, i) => ({
    id: String(i),
    query: `w${10 + i} w${30 + 2 * i} w40`,
    positive: `w${50 + i} w${25 + i} w12`,
    negatives: [`w${5 + i} w60`],
  })),
};
const TEXTS = ["w10 w30 w40", "w50 w25", "w33", "w17 w18 w19 w20"];
const CONTEXT = ["w50 w25 w12", "w51 w26", "w52 w27 w11", "w53"];

async function run(trainer: Trainer, steps: number): Promise<number[]> {
  const losses: number[] = [];
  for await (const { loss } of trainer.steps(Array.from({ length: steps }, () => batch))) losses.push(loss);
  return losses;
}

function furthest(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  return Math.max(...a.flatMap((row, i) => [...row].map((value, j) => Math.abs(value - b[i]![j]!))));
}

describe.each(["v1", "v2"])("%s", (name) => {
  const open = (options: TrainerOptions = {}) =>
    Trainer.create(join(root, name), { learningRate: 5e-3, warmupSteps: 0, temperature: 0.1, runtime, ...options });

  test("learns through both stages, and its export loads to the trainer's vectors", async () => {
    await using trainer = await open({ context: { dropout: 0.1 } });
    const losses = await run(trainer, 25);
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2);
    expect(await trainer.forgetting()).toBeUndefined();

    const target = join(root, `${name}-exported`);
    await trainer.export(target, { card: { licence: "mit" } });
    await using encoder = await ContextualEncoder.load(target, { runtime });
    const embedder = encoder.withContext(await encoder.buildContext(CONTEXT));
    const expected = await (await trainer.embedder({ context: CONTEXT })).embedDocuments(TEXTS);
    expect(furthest((await embedder.embedDocuments(TEXTS)).vectors, expected)).toBeLessThan(1e-5);
    // Trained with context dropout, the model now has a null context.
    const alone = await (await trainer.embedder()).embedDocuments(TEXTS);
    expect(furthest((await encoder.withoutContext().embedDocuments(TEXTS)).vectors, alone)).toBeLessThan(1e-5);
    expect(furthest(alone, expected)).toBeGreaterThan(1e-3);
    const card = await readFile(join(target, "README.md"), "utf8");
    expect(card).toContain("| context documents | 4 |");
    expect(card).toContain("| context dropout | 0.1 |");
    const config = JSON.parse(await readFile(join(target, "config.json"), "utf8")) as JsonObject;
    expect(config).toMatchObject({
      transductive_sequence_dropout_prob: 0.1,
      cde: { preset: name === "v1" ? "v1-train" : "v2" },
    });
  });

  test("leaves the first stage as it is where the gradient stops at the context", async () => {
    await using trainer = await open({ context: { gradient: false } });
    await run(trainer, 2);
    const target = join(root, `${name}-stopped`);
    await trainer.export(target);
    await using before = await openSafetensors(join(root, name, "model.safetensors"));
    await using after = await openSafetensors(join(target, "model.safetensors"));
    expect([...after.tensors.keys()].sort()).toEqual([...before.tensors.keys()].sort());
    for (const tensor of before.tensors.keys()) {
      const [a, b] = [await before.readFloat32(tensor), await after.readFloat32(tensor)];
      const moved = a.some((value, i) => value !== b[i]);
      if (tensor.startsWith("first_stage_model.")) expect(moved, tensor).toBe(false);
    }
    const tensor = "second_stage_model.output_projection.2.weight";
    expect(await after.readFloat32(tensor)).not.toEqual(await before.readFloat32(tensor));
  });
});

test("a model of two stages refuses what it has no place for", async () => {
  const create = (options: TrainerOptions) => Trainer.create(join(root, "v1"), { runtime, ...options });
  await expect(create({ context: { documents: 5 } })).rejects.toThrow("reads exactly 4 context documents");
  await expect(create({ distillation: {} })).rejects.toThrow("distillation compares with the base's vectors");
  await expect(create({ secondStage: "spectral" })).rejects.toThrow("has no option secondStage");
  await expect(create({ freeze: 1, layerCache: { directory: join(root, "x") } })).rejects.toThrow(
    "the lowest 0 layers",
  );
  await using paper = await create({ preset: "paper", totalSteps: 2000 });
  expect(paper.settings.context).toMatchObject({ from: "batch", documents: 4, dropout: 0.005, gradient: true });
  await using plain = await create({});
  await expect((await plain.embedder()).embedQueries(["w10"])).rejects.toThrow("no null context");
  await expect(plain.embedder({ context: ["w10"] })).rejects.toThrow("exactly 4 context documents, got 1");
});

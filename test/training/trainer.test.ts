/** The training loop on a small model: what it learns, what it refuses, and when it stops. */
import { join } from "node:path";
import { ContextualEncoder, InvalidInputError, ModelError } from "@cde-js/core";
import {
  createBatches,
  createPairSet,
  type Evaluator,
  type PackedBatch,
  retrievalEvaluator,
  Trainer,
  type TrainerOptions,
  type TrainingBatch,
  TrainingDivergedError,
  type TrainingPair,
  type TrainingStep,
} from "@cde-js/core/training";
import { describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";
import { batchesOf, batchOf, dot, read, tinyPairs } from "./support.js";

const folder = temporaryFolder();
const tiny = writeTinyModel(join(folder, "tiny"));
const runtime = { threads: 1 };
const FAST = { learningRate: 3e-3, warmupSteps: 0, temperature: 0.1, runtime } as const;

async function run<M extends string>(
  trainer: Trainer<M>,
  ...given: Parameters<Trainer<M>["steps"]>
): Promise<TrainingStep<M>[]> {
  const steps: TrainingStep<M>[] = [];
  for await (const step of trainer.steps(...given)) steps.push(step);
  return steps;
}

const repeated = (pairs: readonly TrainingPair[], times: number) => Array.from({ length: times }, () => batchOf(pairs));

/** Share of queries that find their own positive among all. */
async function accuracyOf(trainer: Trainer, pairs: readonly TrainingPair[]): Promise<number> {
  const embedder = await trainer.embedder();
  const queries = await embedder.embedQueries(pairs.map(({ query }) => query));
  const documents = await embedder.embedDocuments(pairs.map(({ positive }) => positive));
  const found = queries.filter((query, i) =>
    documents.every((d, j) => j === i || dot(query, d) < dot(query, documents[i]!)),
  );
  return found.length / pairs.length;
}

describe("learning", () => {
  const pairs = tinyPairs(8);

  test("a tiny model overfits eight pairs; with shuffled labels it doesn't find the true ones in as many steps", async () => {
    await using trainer = await Trainer.create(tiny, FAST);
    expect(await accuracyOf(trainer, pairs)).toBeLessThan(0.6);
    const steps = await run(trainer, repeated(pairs, 40));
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
    expect(steps[0]!.loss).toBeGreaterThan(1.5);
    expect(steps.at(-1)!.loss).toBeLessThan(0.05);
    expect(steps.at(-1)!.accuracy).toBe(1);
    expect(await accuracyOf(trainer, pairs)).toBe(1);

    const shuffled = pairs.map((pair, i) => ({ ...pair, positive: pairs[(i + 3) % 8]!.positive }));
    await using control = await Trainer.create(tiny, FAST);
    await run(control, repeated(shuffled, 40));
    expect(await accuracyOf(control, pairs)).toBeLessThan(0.3);
  });

  test("hard negatives, both directions, first entries alone and a learned temperature all train", async () => {
    const options = {
      ...FAST,
      temperature: { initial: 0.1 },
      direction: "symmetric",
      widths: [32, 8],
    } as const;
    await using trainer = await Trainer.create(tiny, options);
    const steps = await run(trainer, repeated(tinyPairs(6, 2, 2), 30));
    expect(steps[0]!.documents).toBe(18);
    expect(steps[0]!.loss - steps.at(-1)!.loss).toBeGreaterThan(1);
    expect(steps[0]!.temperature).not.toBe(0.1);
    expect(steps.at(-1)!.temperature).toBeLessThan(0.1);
    // The first eight entries alone find the positives: Matryoshka.
    const embedder = await trainer.embedder();
    const six = tinyPairs(6, 2, 2);
    const cut = (vectors: Float32Array[]) =>
      vectors.map((v) => v.slice(0, 8).map((x) => x / Math.hypot(...v.slice(0, 8))));
    const queries = cut(await embedder.embedQueries(six.map(({ query }) => query)));
    const documents = cut(await embedder.embedDocuments(six.map(({ positive }) => positive)));
    queries.forEach((query, i) => {
      expect(Math.max(...documents.map((document) => dot(query, document)))).toBe(dot(query, documents[i]!));
    });
  });

  test("accumulated batches are one step with the mean of their gradients", async () => {
    const vectors = async (options: TrainerOptions, batches: readonly TrainingPair[][]) => {
      await using trainer = await Trainer.create(tiny, { ...FAST, ...options });
      const steps = await run(
        trainer,
        batches.map((batch) => batchOf(batch)),
      );
      const embedder = await trainer.embedder();
      return { steps, vectors: await embedder.embedQueries(["who pays", "the tenant"]) };
    };
    const [first, second] = [tinyPairs(4, 5), tinyPairs(4, 6)];
    const once = await vectors({}, [first]);
    const twice = await vectors({ accumulate: 2 }, [first, first]);
    expect(twice.steps).toHaveLength(1);
    expect(twice.steps[0]).toMatchObject({ batches: 2, pairs: 8 });
    expect(twice.steps[0]!.gradientNorm).toBeCloseTo(once.steps[0]!.gradientNorm, 4);
    expect(largestDifference(once.vectors, twice.vectors)).toBeLessThan(1e-4);
    const other = await vectors({ accumulate: 2 }, [first, second]);
    expect(largestDifference(once.vectors, other.vectors)).toBeGreaterThan(1e-3);
    // What is left at the end of an epoch is a step of its own.
    expect((await vectors({ accumulate: 2 }, [first, second, first])).steps.map(({ pairs: count }) => count)).toEqual([
      8, 4,
    ]);
  });

  test("prompts are those of the batch's data set, and cut texts are counted", async () => {
    const prompted = writeTinyModel(join(folder, "prompted"), {
      prompts: { query: "query : ", document: "document : " },
    });
    const lossOf = async (source: string, options: TrainerOptions, dataset: string) => {
      await using trainer = await Trainer.create(source, { ...FAST, ...options });
      const [step] = await run(trainer, [batchOf(pairs, dataset)]);
      return step!;
    };
    const own = await lossOf(prompted, {}, "law");
    const same = { query: "query : ", document: "document : " };
    expect((await lossOf(tiny, { prompts: { law: same } }, "law")).loss).toBe(own.loss);
    expect((await lossOf(tiny, { prompts: { law: same } }, "other")).loss).not.toBe(own.loss);
    expect((await lossOf(tiny, { prompts: { default: same } }, "other")).loss).toBe(own.loss);
    expect(own.truncated).toBe(0);
    expect((await lossOf(tiny, { maxTokens: 4 }, "law")).truncated).toBe(16);
  });

  test("the paper's preset is Adam, a warm-up of 1,000 steps to 2e-5, linear, temperature 0.02", async () => {
    await using trainer = await Trainer.create(tiny, { preset: "paper", totalSteps: 5000, runtime });
    expect(trainer.settings).toMatchObject({
      optimizer: "adam",
      learningRate: 2e-5,
      schedule: "linear",
      warmupSteps: 1000,
      totalSteps: 5000,
      temperature: 0.02,
      direction: "query-to-document",
    });
    const [step] = await run(trainer, [batchOf(pairs)]);
    expect(step!.learningRate).toBe(0);
  });
});

describe("evaluation", () => {
  const pairs = tinyPairs(8);
  const dev = retrievalEvaluator("dev", {
    queries: new Map(pairs.map(({ id, query }) => [id, query])),
    documents: new Map(pairs.map(({ id, positive }) => [id, positive])),
    qrels: new Map(pairs.map(({ id }) => [id, new Map([[id, 1]])])),
    metrics: ["ndcg@10", "success@1"],
  });

  test("gives typed figures when they are due, and keeps the best weights", async () => {
    await using trainer = await Trainer.create(tiny, {
      ...FAST,
      evaluators: [dev],
      evaluateEvery: 10,
      best: { metric: "dev/success@1" },
    });
    const steps = await run(trainer, repeated(pairs, 40));
    const figures = steps.flatMap(({ step, metrics }) => (metrics ? [[step, metrics["dev/success@1"]]] : []));
    expect(figures.map(([step]) => step)).toEqual([10, 20, 30, 40]);
    expect(figures.at(-1)![1]).toBe(1);
    expect(steps.at(-1)!.metrics!["dev/ndcg@10"]).toBe(1);
    expect(trainer.best!.value).toBe(1);
    // @ts-expect-error a metric that no evaluator gives
    expect(steps.at(-1)!.metrics!["dev/recall@5"]).toBeUndefined();
  });

  test("at the end of each epoch by default, and stops when nothing gets better", async () => {
    const values = [3, 5, 4, 5, 2, 9];
    const counter: Evaluator<"own", "score"> = {
      name: "own",
      evaluate: async () => ({ score: values.shift()! }),
    };
    await using trainer = await Trainer.create(tiny, {
      ...FAST,
      evaluators: [counter],
      best: { metric: "own/score", patience: 2 },
    });
    const steps = await run(trainer, batchesOf(pairs, 4), { epochs: 6 });
    // 3, 5 is better, 4 isn't, the second 5 isn't either.
    expect(steps.filter(({ metrics }) => metrics).map(({ isBest }) => isBest)).toEqual([true, true, false, false]);
    expect(trainer.best).toEqual({ value: 5, step: 4 });
    expect(steps).toHaveLength(8);
  });

  test("false negatives are found by the base as a surrogate of the batches finds them", async () => {
    const records = tinyPairs(8, 3);
    await using set = await createPairSet(join(folder, "masked-pairs"), records);
    await using encoder = await ContextualEncoder.load(tiny);
    const surrogate = encoder.withoutContext();
    await using batches = await createBatches(set, { batchSize: 8, strategy: "random", surrogate });
    let packed: PackedBatch | undefined;
    for await (const batch of batches.epoch(0)) packed = batch;
    const { falseNegatives, report, ...plain } = packed!;
    expect(report.falseNegatives).toBeGreaterThan(3);

    const first = async (batch: TrainingBatch, options: TrainerOptions = {}) => {
      await using trainer = await Trainer.create(tiny, { ...FAST, ...options });
      return (await run(trainer, [batch]))[0]!;
    };
    const masked = await first({ ...plain, falseNegatives: falseNegatives! });
    const found = await first(plain, { falseNegatives: { rule: "positive" } });
    expect(found.falseNegatives).toBe(report.falseNegatives);
    expect(found.loss).toBeCloseTo(masked.loss, 5);
    expect(found.difficulty).toBeCloseTo(report.difficulty!, 5);
    expect(masked.difficulty).toBeUndefined();
    const unmasked = await first(plain);
    expect(unmasked.falseNegatives).toBe(0);
    expect(unmasked.loss - found.loss).toBeGreaterThan(0.1);
    const margin = await first(plain, { falseNegatives: { rule: "positive", margin: 2 } });
    expect(margin.loss).toBeCloseTo(unmasked.loss, 5);
  });

  test("reports how far the model has moved from its base on texts of no domain", async () => {
    await using trainer = await Trainer.create(tiny, FAST);
    expect(await trainer.forgetting()).toMatchObject({ drift: 0, correlation: 1 });
    await run(trainer, repeated(pairs, 10));
    const moved = (await trainer.forgetting())!;
    expect(moved.drift).toBeGreaterThan(0.01);
    expect(moved.correlation).toBeLessThan(0.999);
    expect(moved.paraphrasesFound.base).toBeGreaterThan(0);

    await using held = await Trainer.create(tiny, { ...FAST, distillation: { weight: 10, temperature: 0.1 } });
    const steps = await run(held, repeated(pairs, 10));
    expect(steps[0]!.distillation).toBeCloseTo(0, 4);
    expect(steps.at(-1)!.distillation).toBeGreaterThan(0);
    expect((await held.forgetting())!.drift).toBeLessThan(moved.drift);
  });
});

describe("freezing and low-rank updates", () => {
  const pairs = tinyPairs(8);
  const textsOf = async (trainer: Trainer) => (await trainer.embedder()).embedQueries(pairs.map(({ query }) => query));

  test("frozen layers stay, and their cached states train the others as the texts do", async () => {
    await using whole = await Trainer.create(tiny, FAST);
    await using frozen = await Trainer.create(tiny, { ...FAST, freeze: 1 });
    expect(frozen.trainedParameters).toBeLessThan(whole.trainedParameters / 2);
    const layerCache = { directory: join(folder, "states") };
    const losses = async (trainer: Trainer) => (await run(trainer, repeated(pairs, 12))).map(({ loss }) => loss);
    const expected = await losses(frozen);
    await using first = await Trainer.create(tiny, { ...FAST, freeze: 1, layerCache });
    const found = await losses(first);
    // float16 states: the same to three digits, and not the same bits.
    for (const [i, loss] of expected.entries()) expect(Math.abs(found[i]! - loss)).toBeLessThan(0.01 + 0.02 * loss);
    expect(found[0]).not.toBe(expected[0]);
    expect(largestDifference(await textsOf(first), await textsOf(frozen))).toBeLessThan(0.05);
    expect(largestDifference(await textsOf(first), await textsOf(whole))).toBeGreaterThan(0.05);
  });

  test("distillation, low-rank updates, cached states and a prefix stage go together", async () => {
    await using trainer = await Trainer.create(tiny, {
      ...FAST,
      learningRate: 1e-2,
      secondStage: { kind: "prefix", layers: 1 },
      context: { documents: 4 },
      freeze: 1,
      layerCache: { directory: join(folder, "together") },
      lora: { rank: 2 },
      distillation: { weight: 0.5 },
    });
    const steps = await run(trainer, repeated(pairs, 15));
    expect(steps[0]!.distillation).toBeCloseTo(0, 3); // gates and updates begin at 0
    expect(steps.at(-1)!.distillation).toBeGreaterThan(steps[0]!.distillation);
    expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss - 0.2);
    const context = pairs.map(({ positive }) => positive);
    const [with_, without] = [await trainer.embedder({ context }), await trainer.embedder()];
    expect(largestDifference(await with_.embedQueries(["rent"]), await without.embedQueries(["rent"]))).toBeGreaterThan(
      1e-5,
    );
  });

  test("a data set may be named like anything", async () => {
    await using trainer = await Trainer.create(tiny, FAST);
    await run(trainer, [batchOf(pairs, "__proto__"), batchOf(pairs, "constructor")]);
    const target = join(folder, "named");
    await trainer.export(target);
    const card = read(join(target, "README.md"));
    expect(card).toContain("| __proto__ | 8 |");
    expect(card).toContain("| constructor | 8 |");
  });

  test("low-rank updates begin at the base, train few numbers, and learn", async () => {
    await using base = await Trainer.create(tiny, FAST);
    await using trainer = await Trainer.create(tiny, { ...FAST, learningRate: 1e-2, lora: { rank: 4 } });
    expect(trainer.trainedParameters).toBeLessThan(base.trainedParameters / 3);
    expect(largestDifference(await textsOf(trainer), await textsOf(base))).toBe(0);
    const steps = await run(trainer, repeated(pairs, 40));
    expect(steps.at(-1)!.loss).toBeLessThan(0.3);
    await using some = await Trainer.create(tiny, { ...FAST, lora: { rank: 4, products: ["query", "value"] } });
    // Two products of two layers, 32 wide: 2 · 2 · 4 · (32 + 32).
    expect(some.trainedParameters).toBe(1024);
  });
});

describe("what is refused", () => {
  const pairs = tinyPairs(3);
  const change = (part: Partial<TrainingPair>) => [{ ...pairs[0]!, ...part }, pairs[1]!];

  test.each([
    ["an empty batch", [], 'a batch of "tiny" is empty'],
    ["an empty query", change({ query: " " }), 'the pair "pair-0" with an empty query'],
    ["an empty positive", change({ positive: "" }), 'the pair "pair-0" with an empty positive'],
    ["an empty negative", change({ negatives: [""] }), 'the pair "pair-0" with an empty negative'],
    [
      "a query equal to its positive",
      change({ positive: pairs[0]!.query }),
      'the pair "pair-0" whose query is its positive',
    ],
    ["a document twice", change({ positive: pairs[1]!.positive }), 'twice, with the pairs "pair-0" and "pair-1"'],
    ["a single document", [pairs[0]!], "nothing to contrast"],
  ])("%s, with the pair's id", async (_, bad, message) => {
    await using trainer = await Trainer.create(tiny, FAST);
    await expect(run(trainer, [batchOf(bad)])).rejects.toThrow(InvalidInputError);
    await expect(run(trainer, [batchOf(bad)])).rejects.toThrow(message);
    expect(trainer.step).toBe(0);
  });

  test("false negatives of another size, and hard negatives alone without any", async () => {
    await using trainer = await Trainer.create(tiny, { ...FAST, negatives: "hard" });
    await expect(run(trainer, [{ ...batchOf(pairs), falseNegatives: new Uint8Array(8) }])).rejects.toThrow(
      "needs 9 entries, got 8",
    );
    await expect(run(trainer, [batchOf(pairs)])).rejects.toThrow("every pair needs a hard negative");
  });

  test.each<[string, TrainerOptions, string]>([
    ["a negative rate", { learningRate: -1 }, "learningRate should be a number above 0, got -1"],
    ["a decay without an end", { schedule: "cosine" }, "pass { totalSteps }"],
    ["more tokens than the model reads", { maxTokens: 99 }, "maxTokens should be a whole number from 3 to 32, got 99"],
    ["all layers frozen", { freeze: 2 }, "nothing would be trained"],
    ["a cache without frozen layers", { layerCache: { directory: join(folder, "x") } }, "pass { freeze } too"],
    ["a context of a biencoder", { context: {} }, "is a biencoder"],
    ["low-rank updates of nothing", { lora: { products: ["qkv"] } }, 'lora.products ["qkv"] name no product'],
    ["a width twice", { widths: [8, 8] }, "different widths"],
    ["a metric that nothing measures", { best: { metric: "dev/ndcg@10" as never } }, "no evaluator of that name"],
    ["an unknown preset", { preset: "fast" as "paper" }, 'preset should be "paper"'],
  ])("%s", async (_, options, message) => {
    const made = Trainer.create(tiny, { runtime, ...options });
    await expect(made).rejects.toThrow(message);
  });

  test("pooling by maxima, and batches of one for several epochs", async () => {
    const max = writeTinyModel(join(folder, "max"), { pooling: "max" });
    await expect(Trainer.create(max, { runtime })).rejects.toThrow(ModelError);
    await using trainer = await Trainer.create(tiny, FAST);
    await expect(run(trainer, [batchOf(pairs)], { epochs: 2 })).rejects.toThrow(
      "need a source of batches or a function",
    );
  });
});

describe("stopping", () => {
  const pairs = tinyPairs(8);

  test("a loss that is no number stops with step, pairs and largest gradient; the weights before are still there", async () => {
    const broken = writeTinyModel(join(folder, "broken"), {
      change: (tensors) => {
        // The vector of [SEP], which ends every text.
        const table = tensors.get("embeddings.word_embeddings.weight")!;
        (table.data as Float32Array)[32 * 3] = Number.NaN;
      },
    });
    await using trainer = await Trainer.create(broken, FAST);
    await expect(run(trainer, [batchOf(pairs)])).rejects.toThrow(TrainingDivergedError);

    await using wild = await Trainer.create(tiny, { ...FAST, learningRate: 1e30, maxGradientNorm: null });
    const failure = await run(wild, repeated(pairs, 20)).then(
      () => undefined,
      (error: unknown) => error as TrainingDivergedError,
    );
    expect(failure).toBeInstanceOf(TrainingDivergedError);
    expect(failure!.code).toBe("TRAINING_DIVERGED");
    expect(failure!.step).toBe(wild.step + 1);
    expect(failure!.pairs).toEqual(pairs.map(({ id }) => id));
    expect(failure!.largestGradient!.parameter).toMatch(/\.(weight|bias)$/);
    expect(failure!.message).toContain("pair-0, pair-1");
    await wild.save(join(folder, "after-divergence"));
  });

  test("an abort lets the step end, throws the reason, and leaves a trainer that goes on", async () => {
    await using trainer = await Trainer.create(tiny, FAST);
    const controller = new AbortController();
    const seen: number[] = [];
    const reason = new Error("enough");
    const loop = async () => {
      for await (const { step } of trainer.steps(repeated(pairs, 10), { signal: controller.signal })) {
        seen.push(step);
        if (step === 3) controller.abort(reason);
      }
    };
    await expect(loop()).rejects.toBe(reason);
    expect(seen).toEqual([1, 2, 3]);
    expect(trainer.step).toBe(3);
    // The run goes on behind the batches that it used.
    expect((await run(trainer, repeated(pairs, 10))).map(({ step }) => step)).toEqual([4, 5, 6, 7, 8, 9, 10]);
  });

  test("the loop ends at totalSteps, and a caller may leave it", async () => {
    await using trainer = await Trainer.create(tiny, { ...FAST, totalSteps: 3 });
    for await (const { step } of trainer.steps(repeated(pairs, 10))) if (step === 2) break;
    expect(trainer.step).toBe(2);
    expect((await run(trainer, repeated(pairs, 10))).map(({ step }) => step)).toEqual([3]);
  });
});

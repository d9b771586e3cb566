/** Training within a spectral context: the loss is that of the vectors which search with such a context compares. */
import { join } from "node:path";
import { ContextualEncoder, DEFAULT_STRENGTH, type Embedder, InvalidInputError } from "@cde-js/core";
import { Trainer, type TrainerOptions } from "@cde-js/core/training";
import { describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";
import { batchesOf, batchOf, dot, read, tinyPairs } from "./support.js";

const folder = temporaryFolder();
const tiny = writeTinyModel(join(folder, "tiny"));
const runtime = { threads: 1 };
const FAST = { learningRate: 3e-3, warmupSteps: 0, temperature: 0.1, runtime } as const;
const pairs = tinyPairs(8);
const corpus = tinyPairs(40, 7).map(({ positive }) => positive);
const from = { tiny: corpus };

async function lossesOf(options: TrainerOptions, steps = 1): Promise<number[]> {
  await using trainer = await Trainer.create(tiny, { ...FAST, ...options });
  const losses: number[] = [];
  for await (const { loss } of trainer.steps(Array.from({ length: steps }, () => batchOf(pairs)))) losses.push(loss);
  return losses;
}

/** InfoNCE from queries to documents, in float64, of what an embedder gives. */
async function lossWith(embedder: Embedder): Promise<number> {
  const queries = (await embedder.embedQueries(pairs.map(({ query }) => query))).vectors;
  const documents = (await embedder.embedDocuments(pairs.map(({ positive }) => positive))).vectors;
  const losses = queries.map((query, i) => {
    const logits = documents.map((document) => dot(query, document) / FAST.temperature);
    return Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)) - logits[i]!;
  });
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

describe("the first step's loss", () => {
  test("is that of the vectors within the context which `buildContext` makes of the same documents, and no other's", async () => {
    await using encoder = await ContextualEncoder.load(tiny);
    const strength = DEFAULT_STRENGTH;
    const build = async (tokenWeights: { smoothing: number } | "off", texts: readonly string[] = corpus) =>
      encoder.withContext(await encoder.buildContext(texts, { strength, tokenWeights }));
    const [weighted, alike] = [await build({ smoothing: 0.3 }), await build("off")];
    const [within] = await lossesOf({ spectral: { from } });
    const [unweighted] = await lossesOf({ spectral: { from, smoothing: null } });
    expect(Math.abs(within! - (await lossWith(weighted)))).toBeLessThan(1e-4);
    expect(Math.abs(unweighted! - (await lossWith(alike)))).toBeLessThan(1e-4);
    for (const other of [alike, encoder.withoutContext(), await build({ smoothing: 0.3 }, corpus.slice(20))]) {
      expect(Math.abs(within! - (await lossWith(other)))).toBeGreaterThan(1e-3);
    }
    const [stronger] = await lossesOf({ spectral: { from, strength: { a: 1, s: 0.1, b: 1 } } });
    expect(Math.abs(stronger! - within!)).toBeGreaterThan(1e-3);
  });

  test("is of as many documents as are asked for, drawn by the seed", async () => {
    const [all] = await lossesOf({ spectral: { from } });
    const some = async (seed: number) => (await lossesOf({ seed, spectral: { from, documents: 20 } }))[0];
    expect(await some(1)).toBe(await some(1));
    expect(await some(1)).not.toBe(await some(2));
    expect(await some(1)).not.toBe(all);
  });

  test("is nothing of distillation, and what the base masks is what is too near within the context", async () => {
    const spectral = { from };
    await using trainer = await Trainer.create(tiny, {
      ...{ ...FAST, spectral, distillation: {}, falseNegatives: { rule: "positive" } },
    });
    await using encoder = await ContextualEncoder.load(tiny);
    const embedder = encoder.withContext(
      await encoder.buildContext(corpus, { strength: DEFAULT_STRENGTH, tokenWeights: { smoothing: 0.3 } }),
    );
    const queries = (await embedder.embedQueries(pairs.map(({ query }) => query))).vectors;
    const documents = (await embedder.embedDocuments(pairs.map(({ positive }) => positive))).vectors;
    const tooNear = queries.flatMap((query, i) =>
      documents.filter((document, j) => j !== i && dot(query, document) >= dot(query, documents[i]!)),
    );
    for await (const { distillation, falseNegatives } of trainer.steps([batchOf(pairs)])) {
      expect(distillation).toBeCloseTo(0, 4);
      expect(falseNegatives).toBe(tooNear.length);
    }
    expect(tooNear.length).toBeGreaterThan(0);
  });
});

test("it learns, and its embedder gives the vectors that the exported model has within a context", async () => {
  await using trainer = await Trainer.create(tiny, { ...FAST, spectral: { from } });
  const losses: number[] = [];
  for await (const { loss } of trainer.steps(Array.from({ length: 40 }, () => batchOf(pairs)))) losses.push(loss);
  expect(losses.at(-1)).toBeLessThan(losses[0]! / 4);
  const target = join(folder, "exported");
  await trainer.export(target);
  await using encoder = await ContextualEncoder.load(target);
  const context = await encoder.buildContext(corpus, { strength: DEFAULT_STRENGTH, tokenWeights: { smoothing: 0.3 } });
  const texts = pairs.map(({ query }) => query);
  const within = (await encoder.withContext(context).embedQueries(texts)).vectors;
  const alone = (await encoder.withoutContext().embedQueries(texts)).vectors;
  expect(
    largestDifference(await (await trainer.embedder({ context: corpus })).embedQueries(texts), within),
  ).toBeLessThan(1e-5);
  expect(largestDifference(await (await trainer.embedder()).embedQueries(texts), alone)).toBeLessThan(1e-5);
  expect(largestDifference(within, alone)).toBeGreaterThan(0.01);
  const card = read(join(target, "README.md"));
  expect(card).toContain("within a spectral context");
  expect(card).toContain("encoder.withContext(context)");
  expect(card).not.toContain(corpus[0]!);
});

test("a run that is resumed makes the same steps, with cached states and two workers", async () => {
  const machine = { runtime: { threads: 2 }, workers: 2, layerCache: { directory: join(folder, "states") } } as const;
  const options = { ...FAST, ...machine, freeze: 1, distillation: { weight: 0.3 }, spectral: { from, documents: 24 } };
  const batches = batchesOf(tinyPairs(16), 4);
  const train = async (trainer: Trainer, until: number) => {
    const losses: number[] = [];
    for await (const { step, loss } of trainer.steps(batches, { epochs: 2 })) {
      losses.push(loss);
      if (step === until) break;
    }
    return losses;
  };
  await using whole = await Trainer.create(tiny, options);
  const expected = await train(whole, 8);
  await using first = await Trainer.create(tiny, options);
  const begun = await train(first, 3);
  await first.save(join(folder, "checkpoint"));
  await using second = await Trainer.resume(join(folder, "checkpoint"), machine);
  expect([...begun, ...(await train(second, 8))]).toEqual(expected);
  await using control = await Trainer.create(tiny, { ...options, spectral: { from, documents: 25 } });
  expect(await train(control, 8)).not.toEqual(expected);
});

describe("what is refused", () => {
  test.each<[string, TrainerOptions, string]>([
    ["a prefix stage", { secondStage: { kind: "prefix", layers: 1 } }, "reads a context itself"],
    ["first entries alone", { widths: [32, 8] }, "a map of shorter ones is another"],
    ["one document", { spectral: { from: { tiny: ["a"] } } }, 'holds 1 documents of "tiny"'],
    [
      "one document of many",
      { spectral: { from, documents: 1 } },
      "spectral.documents should be a whole number from 2",
    ],
    ["a strength out of range", { spectral: { from, strength: { a: 2, s: 0.3, b: 0.5 } } }, "strength a is 2"],
    ["a smoothing out of range", { spectral: { from, smoothing: 0 } }, "the smoothing must be in (0, 1]"],
  ])("%s", async (_, options, message) => {
    const made = Trainer.create(tiny, { ...FAST, spectral: { from }, ...options });
    await expect(made).rejects.toThrow(InvalidInputError);
    await expect(made).rejects.toThrow(message);
  });

  test("weights of tokens of a model that doesn't pool by the mean, which may do without", async () => {
    const open = (smoothing?: number) =>
      Trainer.create(writeTinyModel(join(folder, `cls-${smoothing}`), { pooling: "cls" }), {
        ...FAST,
        spectral: { from, ...(smoothing !== undefined && { smoothing }) },
      });
    await expect(open(0.3)).rejects.toThrow("doesn't pool by the mean");
    await using trainer = await open();
    expect(trainer.settings.spectral?.smoothing).toBeNull();
  });

  test("a batch of a data set whose documents aren't there", async () => {
    await expect(lossesOf({ spectral: { from: { other: corpus } } })).rejects.toThrow(
      'spectral.from holds documents of other, a batch is of "tiny"',
    );
  });
});

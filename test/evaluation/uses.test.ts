import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { CorruptFileError, InvalidInputError } from "@cde-js/core";
import {
  classificationScores,
  evaluateClassification,
  evaluateClustering,
  evaluateSimilarity,
  LinearProbe,
  nearestLabels,
  pearson,
  readClusteringSets,
  readLabelledTexts,
  readScoredPairs,
  spearman,
  vMeasure,
} from "@cde-js/core/evaluation";
import { afterAll, describe, expect, test } from "vitest";
import { goldenJson } from "../support/golden.js";
import { stubEmbedder } from "../support/stub-embedder.js";
import { tableEmbedder } from "../support/table-embedder.js";

interface Part {
  readonly vectors: number[][];
  readonly labels: string[];
}
interface Scores {
  readonly predicted: string[];
  readonly accuracy: number;
  readonly macroF1: number;
}
interface Golden {
  readonly classification: {
    readonly train: Part;
    readonly test: Part;
    readonly probes: (Scores & {
      readonly c: number;
      readonly classes: string[];
      readonly weights: number[][];
      readonly intercepts: number[];
      readonly probabilities: number[][];
    })[];
    readonly neighbours: (Scores & { readonly k: number })[];
  };
  readonly clustering: {
    readonly name: string;
    readonly labels: number[];
    readonly clusters: number[];
    readonly homogeneity: number;
    readonly completeness: number;
    readonly vMeasure: number;
  }[];
  readonly correlation: {
    readonly name: string;
    readonly a: number[];
    readonly b: number[];
    readonly spearman: number;
    readonly pearson: number;
  }[];
}

const golden = goldenJson<Golden>("uses/uses.json");
const vectorsOf = ({ vectors }: Part) => vectors.map((vector) => Float32Array.from(vector));
const { train, test: asked } = golden.classification;

function expectNear(ours: ArrayLike<number>, theirs: readonly number[], tolerance: number): void {
  expect(ours.length).toBe(theirs.length);
  theirs.forEach((value, i) => {
    expect(Math.abs(ours[i]! - value), `entry ${i}: ${ours[i]} and ${value}`).toBeLessThanOrEqual(tolerance);
  });
}

describe("equals scikit-learn", () => {
  test.each(golden.classification.probes)("the linear probe at c = $c, weights and probabilities", async (theirs) => {
    const probe = await LinearProbe.fit(vectorsOf(train), train.labels, { c: theirs.c, tolerance: 1e-9 });
    expect(probe.classes).toEqual(theirs.classes);
    expectNear(probe.weights, theirs.weights.flat(), 1e-6);
    expectNear(probe.intercepts, theirs.intercepts, 1e-6);
    const vectors = vectorsOf(asked);
    expectNear(
      probe.probabilities(vectors).flatMap((row) => [...row]),
      theirs.probabilities.flat(),
      1e-6,
    );
    const predicted = probe.predict(vectors);
    expect(predicted).toEqual(theirs.predicted);
    const { accuracy, macroF1 } = classificationScores(asked.labels, predicted);
    expectNear([accuracy, macroF1], [theirs.accuracy, theirs.macroF1], 1e-12);
  });

  test("another strength of the penalty is another probe", async () => {
    const [one, other] = golden.classification.probes;
    const probe = await LinearProbe.fit(vectorsOf(train), train.labels, { c: one!.c });
    expect(Math.abs(probe.weights[0]! - other!.weights[0]![0]!)).toBeGreaterThan(0.01);
  });

  test.each(golden.classification.neighbours)("the labels of $k nearest neighbours, ties included", async (theirs) => {
    const predicted = await nearestLabels(vectorsOf(train), train.labels, vectorsOf(asked), { k: theirs.k });
    expect(predicted).toEqual(theirs.predicted);
    const { accuracy, macroF1 } = classificationScores(asked.labels, predicted);
    expectNear([accuracy, macroF1], [theirs.accuracy, theirs.macroF1], 1e-12);
  });

  test.each(golden.clustering)("V-measure: $name", ({ labels, clusters, homogeneity, completeness, vMeasure: v }) => {
    const ours = vMeasure(labels, clusters);
    expectNear([ours.homogeneity, ours.completeness, ours.vMeasure], [homogeneity, completeness, v], 1e-12);
  });
});

test.each(golden.correlation)("correlations equal scipy's: $name", ({ a, b, spearman: rho, pearson: r }) => {
  expectNear([spearman(a, b), pearson(a, b)], [rho, r], 1e-12);
});

describe("on paper", () => {
  test("accuracy and macro F1 of four texts", () => {
    // a: precision 1/1, recall 1/2, F1 2/3; b: precision 2/3, recall 2/2, F1 4/5.
    expect(classificationScores(["a", "a", "b", "b"], ["a", "b", "b", "b"])).toEqual({
      queries: 4,
      accuracy: 3 / 4,
      macroF1: (2 / 3 + 4 / 5) / 2,
    });
  });

  test("equal values share the mean of their ranks", () => {
    // Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, sums of squares 4.5 and 5.
    expect(spearman([1, 5, 5, 9], [1, 2, 3, 4])).toBeCloseTo(4.5 / Math.sqrt(4.5 * 5), 12);
  });

  test("pairs: the cosines of a table, in the order of the scores and against it", async () => {
    const embedder = tableEmbedder({ a: [1, 0], b: [0.8, 0.6], c: [0.6, 0.8], d: [0, 1] });
    const pairs = (scores: number[]) =>
      ["b", "c", "d"].map((sentence2, i) => ({ sentence1: "a", sentence2, score: scores[i]! }));
    const { cosines, spearman: rho, pearson: r } = await evaluateSimilarity(embedder, pairs([5, 4, 1]));
    expectNear(cosines, [0.8, 0.6, 0], 1e-7);
    expect(rho).toBe(1);
    // Deviations of the cosines 1/3, 2/15, -7/15; of the scores 5/3, 2/3, -7/3: proportional.
    expect(r).toBeCloseTo(1, 6);
    expect((await evaluateSimilarity(embedder, pairs([1, 2, 3]))).spearman).toBe(-1);
  });
});

describe("with an embedder", () => {
  // Each text leaves out one of six words.
  const texts = (words: string, label: string) =>
    Array.from({ length: 12 }, (_, i) => ({
      text: `${words
        .split(" ")
        .filter((_, at) => at !== i % 6)
        .join(" ")} ${i}`,
      label,
    }));
  const law = texts("court judge appeal verdict statute tenant", "law");
  const food = texts("bread butter oven recipe flour sugar", "food");
  const mixed = [...law, ...food];

  test.each(["probe", "knn"] as const)(
    "%s tells two subjects apart, and labels drawn by lot it can't",
    async (method) => {
      const parts = (all: typeof mixed) => ({
        train: all.filter((_, i) => i % 2 === 0),
        test: all.filter((_, i) => i % 2 === 1),
      });
      const embedder = stubEmbedder();
      const { accuracy, queries, predicted } = await evaluateClassification(embedder, parts(mixed), { method, c: 10 });
      expect({ accuracy, queries }).toEqual({ accuracy: 1, queries: 12 });
      expect(predicted).toEqual(parts(mixed).test.map(({ label }) => label));
      const drawn = mixed.map(({ text }, i) => ({ text, label: [0, 3, 5, 6].includes(i % 8) ? "law" : "food" }));
      expect((await evaluateClassification(embedder, parts(drawn), { method, c: 10 })).accuracy).toBeLessThan(0.9);
    },
  );

  test("k-means finds the two subjects; as labels, odd and even numbers are not found", async () => {
    const found = await evaluateClustering(stubEmbedder(), mixed, { seed: 3 });
    expect(found.vMeasure).toBe(1);
    expect(new Set(found.clusters).size).toBe(2);
    const parity = mixed.map(({ text }, i) => ({ text, label: String(i % 2) }));
    expect((await evaluateClustering(stubEmbedder(), parity, { seed: 3 })).vMeasure).toBeLessThan(0.3);
  });

  test("stops when the signal says so", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(evaluateClustering(stubEmbedder(), mixed, { signal })).rejects.toThrow("enough");
    const vectors = vectorsOf(train);
    await expect(LinearProbe.fit(vectors, train.labels, { signal })).rejects.toThrow("enough");
  });
});

test.each<[string, () => unknown, RegExp]>([
  ["lists of different length", () => spearman([1, 2], [1]), /spearman: 2 and 1 values/],
  ["one pair", () => pearson([1], [1]), /at least two/],
  ["a list without variation", () => spearman([1, 2, 3], [4, 4, 4]), /all values of the second list are equal/],
  ["a score that is no number", () => spearman([1, Number.NaN], [1, 2]), /pair 1 is NaN and 2/],
  ["labels without clusters", () => vMeasure(["a"], []), /1 labels and 0 clusters/],
  ["predictions that are missing", () => classificationScores(["a"], []), /1 labels and 0 predictions/],
  ["a probe of one class", () => LinearProbe.fit([new Float32Array(2)], ["a"]), /all labels are "a"/],
  ["a label too few", () => LinearProbe.fit([new Float32Array(2)], []), /1 training vectors and 0 labels/],
  [
    "vectors of two lengths",
    () => LinearProbe.fit([new Float32Array(2), new Float32Array(3)], ["a", "b"]),
    /vector 1 isn't of 2 finite numbers/,
  ],
  ["a penalty of no strength", () => LinearProbe.fit(vectorsOf(train), train.labels, { c: 0 }), /above 0, got 0/],
  [
    "no neighbours",
    () => nearestLabels(vectorsOf(train), train.labels, vectorsOf(asked), { k: 0 }),
    /at least 1, got 0/,
  ],
])("refuses %s", async (_, call, message) => {
  const error = await (async () => call())().then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(InvalidInputError);
  expect((error as Error).message).toMatch(message);
});

describe("MTEB's files", () => {
  const folder = mkdtempSync(join(tmpdir(), "cde-tasks-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const file = (content: string, name = "task.jsonl") => {
    const path = join(folder, name);
    writeFileSync(path, name.endsWith(".gz") ? gzipSync(content) : content);
    return path;
  };

  test("labelled texts: a number and the same in a string are one label; other fields are left alone", async () => {
    const path = file(
      '{"text": "good", "label": 1, "label_text": "positive"}\n\n{"text": "bad", "label": "1"}\n',
      "labels.jsonl.gz",
    );
    expect(await readLabelledTexts(path)).toEqual([
      { text: "good", label: "1" },
      { text: "bad", label: "1" },
    ]);
  });

  test("pairs with scores, and groups that are clustered one by one", async () => {
    const pairs = file('{"sentence1": "a", "sentence2": "b", "score": 3.5}\n');
    expect(await readScoredPairs(pairs)).toEqual([{ sentence1: "a", sentence2: "b", score: 3.5 }]);
    const groups = file('{"sentences": ["a", "b"], "labels": ["x", 2]}\n{"sentences": ["c"], "labels": ["x"]}\n');
    expect(await readClusteringSets(groups)).toEqual([
      [
        { text: "a", label: "x" },
        { text: "b", label: "2" },
      ],
      [{ text: "c", label: "x" }],
    ]);
  });

  test.each<[string, (path: string) => Promise<unknown>, string, string]>([
    ["a line that is a list", readLabelledTexts, "[]", "should be an object"],
    ["a text that is missing", readLabelledTexts, '{"label": 1}', '"text" should be a string, found nothing'],
    [
      "a label that is null",
      readLabelledTexts,
      '{"text": "a", "label": null}',
      '"label" should be a string or a number',
    ],
    [
      "a score in words",
      readScoredPairs,
      '{"sentence1": "", "sentence2": "", "score": "3"}',
      '"score" should be a finite',
    ],
    ["half a pair", readScoredPairs, '{"sentence1": "", "score": 3}', '"sentence2" should be a string'],
    ["labels that are too few", readClusteringSets, '{"sentences": ["a"], "labels": []}', "a list of 1 labels"],
    ["no list of sentences", readClusteringSets, '{"sentences": "a", "labels": "b"}', '"sentences" should be a list'],
  ])("refuses %s with the line", async (_, read, line, message) => {
    const error = await read(file(`\n${line}\n`)).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).toBeInstanceOf(CorruptFileError);
    expect(error).toMatchObject({ line: 2 });
    expect((error as Error).message).toContain(message);
  });
});

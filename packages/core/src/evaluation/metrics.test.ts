import { describe, expect, test } from "vitest";
import { InvalidInputError } from "../errors.js";
import { evaluateRun, type MetricName, type Results } from "./metrics.js";

const qrels = (judgements: Record<string, number>) => new Map([["q", new Map(Object.entries(judgements))]]);
const run = (results: Results) => new Map([["q", results]]);
const scores = (results: Record<string, number>) => run(new Map(Object.entries(results)));
const measure = <M extends MetricName>(judgements: Record<string, number>, results: Results, name: M): number =>
  evaluateRun(qrels(judgements), run(results), [name]).mean[name];

describe("on paper", () => {
  test("nDCG takes the judgement as gain: a 3 at rank 2 before a 1 that was missed", () => {
    const expected = 3 / Math.log2(3) / (3 / 1 + 1 / Math.log2(3));
    expect(measure({ a: 3, b: 1 }, ["x", "a"], "ndcg@10")).toBeCloseTo(expected, 12);
  });

  test("MAP@3 divides by all relevant documents, not by those it could have found", () => {
    // Ranks 1 and 3 of four relevant: (1/1 + 2/3) / 4. The document at rank 4 lies beyond the cut.
    expect(measure({ a: 1, b: 1, c: 1, d: 1 }, ["a", "x", "b", "c"], "map@3")).toBeCloseTo((1 + 2 / 3) / 4, 12);
    expect(measure({ a: 1, b: 1, c: 1, d: 1 }, ["a", "x", "b", "c"], "map")).toBeCloseTo((1 + 2 / 3 + 3 / 4) / 4, 12);
  });

  test("MRR@k is 0 where the first relevant document stands behind k", () => {
    expect(measure({ a: 1 }, ["x", "y", "a"], "mrr@2")).toBe(0);
    expect(measure({ a: 1 }, ["x", "y", "a"], "mrr@3")).toBe(1 / 3);
    expect(measure({ a: 1 }, ["x", "y", "a"], "mrr")).toBe(1 / 3);
  });
});

test("a judged query that the run lacks counts as 0 in the mean and is named; an unjudged one changes nothing", () => {
  const judged = new Map([
    ["found", new Map([["a", 1]])],
    ["missing", new Map([["a", 1]])],
  ]);
  const result = evaluateRun(
    judged,
    new Map([
      ["found", ["a"]],
      ["unjudged", ["z"]],
    ]),
    ["ndcg@10", "recall@100"],
  );
  expect(result.mean).toEqual({ "ndcg@10": 0.5, "recall@100": 0.5 });
  expect(result.missing).toEqual(["missing"]);
  expect(result.queries).toBe(2);
  expect([...result.perQuery.keys()]).toEqual(["found", "missing"]);
});

test("a query without any relevant document is 0 everywhere, not NaN", () => {
  const metrics = ["ndcg@10", "map", "map@5", "mrr", "precision@5", "recall@5", "success@1"] as const;
  const { mean } = evaluateRun(qrels({ a: 0, b: -1 }), scores({ a: 2, b: 1 }), metrics);
  expect(Object.values(mean)).toEqual(metrics.map(() => 0));
});

test("equal scores are ordered by the bytes of the id: U+1F600 stands above U+FFFD, in UTF-16 units below", () => {
  expect("\u{1F600}" < "\uFFFD").toBe(true);
  expect(evaluateRun(qrels({ "\u{1F600}": 1 }), scores({ "\uFFFD": 1, "\u{1F600}": 1 }), ["success@1"]).mean).toEqual({
    "success@1": 1,
  });
});

test("infinite scores of equal sign are a tie like any other", () => {
  const tied = scores({ a: Number.NEGATIVE_INFINITY, b: Number.NEGATIVE_INFINITY, c: 0 });
  expect(evaluateRun(qrels({ b: 1 }), tied, ["mrr"]).mean.mrr).toBe(1 / 2);
});

test("a ranked list keeps its order where scores would have been reordered", () => {
  const judged = qrels({ a: 1 });
  expect(evaluateRun(judged, run(["a", "z"]), ["success@1"]).mean["success@1"]).toBe(1);
  expect(evaluateRun(judged, scores({ a: 1, z: 1 }), ["success@1"]).mean["success@1"]).toBe(0);
});

test.each<[string, () => unknown, RegExp]>([
  ["an unknown metric", () => measure({ a: 1 }, ["a"], "dcg@10" as MetricName), /unknown metric "dcg@10".*ndcg@k/],
  ["a metric that needs its cut", () => measure({ a: 1 }, ["a"], "ndcg" as MetricName), /unknown metric "ndcg"/],
  ["a cut of 0", () => measure({ a: 1 }, ["a"], "recall@0"), /unknown metric "recall@0"/],
  ["a fractional cut", () => measure({ a: 1 }, ["a"], "recall@1.5"), /unknown metric "recall@1.5"/],
  ["a name of Object.prototype", () => measure({ a: 1 }, ["a"], "constructor@1" as MetricName), /unknown metric/],
  ["a fractional judgement", () => measure({ a: 0.5 }, ["a"], "map"), /"q" judges document "a" as 0.5/],
  ["a score that isn't a number", () => measure({ a: 1 }, new Map([["a", Number.NaN]]), "map"), /"a" the score NaN/],
  ["a document listed twice", () => measure({ a: 1 }, ["a", "b", "a"], "map"), /lists document "a" twice.*rank 3/],
  ["empty qrels", () => evaluateRun(new Map(), new Map(), ["map"]), /qrels are empty/],
])("refuses %s", (_, call, message) => {
  expect(call).toThrow(InvalidInputError);
  expect(call).toThrow(message);
});

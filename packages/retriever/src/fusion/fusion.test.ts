/** Fusion and MMR against Qdrant's golden answers, and by hand. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { distributionBasedScoreFusion, mix, type Ranked, reciprocalRankFusion } from "./fusion.js";
import { maximalMarginalRelevance } from "./mmr.js";

interface Golden {
  points: { id: string | number; vector: { dense: number[]; bm25: { indices: number[]; values: number[] } } }[];
  queries: { name: string; points: Ranked[] }[];
  dense_query: number[];
  sparse_query: { indices: number[]; values: number[] };
}
const golden = JSON.parse(
  readFileSync(new URL("../../../../test/parity/golden/qdrant/qdrant.json", import.meta.url), "utf8"),
) as Golden;

const length = (v: number[]): number => Math.hypot(...v);
const dense: Ranked[] = golden.points
  .map(({ id, vector }) => ({
    id,
    score:
      vector.dense.reduce((sum, x, i) => sum + x * golden.dense_query[i]!, 0) /
      length(vector.dense) /
      length(golden.dense_query),
  }))
  .sort((a, b) => b.score - a.score);
const sparse: Ranked[] = golden.points
  .map(({ id, vector }) => ({
    id,
    score: vector.bm25.indices.reduce((sum, term, i) => {
      const at = golden.sparse_query.indices.indexOf(term);
      return at < 0 ? sum : sum + vector.bm25.values[i]! * golden.sparse_query.values[at]!;
    }, 0),
  }))
  .filter(({ score }) => score !== 0)
  .sort((a, b) => b.score - a.score);
const lists = [dense.slice(0, 15), sparse.slice(0, 15)];

function answer(name: string): Ranked[] {
  const query = golden.queries.find((q) => q.name === name);
  if (query === undefined) throw new Error(`the golden file has no query "${name}"`);
  return query.points;
}

/** The largest difference of scores, place by place, and of each id's own score. */
function distance(ours: readonly Ranked[], theirs: readonly Ranked[]): number {
  const byId = new Map(ours.map(({ id, score }) => [id, score]));
  return Math.max(
    ...theirs.map(({ id, score }, rank) =>
      Math.max(Math.abs(ours[rank]!.score - score), Math.abs((byId.get(id) ?? 99) - score)),
    ),
  );
}

describe("golden answers of Qdrant", () => {
  test.each([
    ["reciprocal rank fusion", { k: 2 }],
    ["reciprocal rank fusion, k=60", { k: 60 }],
    ["weighted reciprocal rank fusion", { k: 2, weights: [3, 1] }],
  ])("gives Qdrant's scores: %s", (name, options) => {
    expect(distance(reciprocalRankFusion(lists, options), answer(name))).toBeLessThan(1e-5);
    // Control: another k gives other scores.
    expect(distance(reciprocalRankFusion(lists, { ...options, k: options.k + 1 }), answer(name))).toBeGreaterThan(1e-4);
  });

  test("gives Qdrant's scores: distribution-based score fusion", () => {
    const theirs = answer("distribution-based score fusion");
    expect(distance(distributionBasedScoreFusion(lists), theirs)).toBeLessThan(1e-5);
    // Control: lists cut elsewhere have another distribution.
    expect(distance(distributionBasedScoreFusion([lists[0]!, lists[1]!.slice(0, 12)]), theirs)).toBeGreaterThan(1e-3);
  });

  const candidates = dense.slice(0, 20).map(({ id, score }) => ({
    id,
    score,
    vector: Float32Array.from(golden.points.find((p) => p.id === id)!.vector.dense),
  }));
  test.each([0, 0.3, 0.5, 0.9, 1])(
    "picks what Qdrant picks by MMR, in order, with relevance scores: diversity %d",
    (diversity) => {
      const theirs = answer(`MMR, diversity ${diversity.toFixed(1)}`);
      const ours = maximalMarginalRelevance(candidates, { lambda: 1 - diversity, k: 8 });
      expect(ours.map(({ id }) => id)).toEqual(theirs.map(({ id }) => id));
      for (const [i, { score }] of ours.entries()) expect(Math.abs(score - theirs[i]!.score)).toBeLessThan(1e-5);
      // Control: lambda the wrong way round picks others.
      const inverted = maximalMarginalRelevance(candidates, { lambda: diversity, k: 8 });
      if (diversity !== 0.5) expect(inverted.map(({ id }) => id)).not.toEqual(theirs.map(({ id }) => id));
    },
  );
});

describe("by hand", () => {
  const first = [
    { id: "a", score: 9 },
    { id: "b", score: 5 },
    { id: "c", score: 1 },
  ];
  const second = [
    { id: "c", score: 0.4 },
    { id: "d", score: 0.2 },
  ];

  test("mixes scaled scores; absent is 0", () => {
    // first scaled: a 1, b 0.5, c 0; second: c 1, d 0. With weight 0.3: a 0.3, b 0.15, c 0.7, d 0.
    const mixed = mix(first, second, { weight: 0.3 });
    expect(mixed.map(({ id }) => id)).toEqual(["c", "a", "b", "d"]);
    for (const [i, score] of [0.7, 0.3, 0.15, 0].entries()) expect(mixed[i]!.score).toBeCloseTo(score, 12);
  });

  test("a list of equal scores gives 1 each in a mix and 0.5 each in distribution-based fusion", () => {
    const equal = [
      { id: "x", score: 3 },
      { id: "y", score: 3 },
    ];
    expect(mix(equal, [], { weight: 0.5 })).toEqual([
      { id: "x", score: 0.5 },
      { id: "y", score: 0.5 },
    ]);
    expect(distributionBasedScoreFusion([equal, [{ id: "x", score: 7 }]])).toEqual([
      { id: "x", score: 1 },
      { id: "y", score: 0.5 },
    ]);
  });

  test("equal sums keep the order of first appearance, and empty lists are fine", () => {
    expect(
      reciprocalRankFusion([[{ id: "z", score: 1 }], [{ id: "a", score: 1 }], []], { k: 60 }).map(({ id }) => id),
    ).toEqual(["z", "a"]);
    expect(reciprocalRankFusion([], { k: 60 })).toEqual([]);
  });

  test.each([
    ["k of 0", () => reciprocalRankFusion([first], { k: 0 }), /k must be a whole number from 1, got 0/],
    [
      "missing weights",
      () => reciprocalRankFusion([first, second], { k: 60, weights: [1] }),
      /2 lists need as many weights, got 1/,
    ],
    ["a negative weight", () => reciprocalRankFusion([first], { k: 60, weights: [-1] }), /weights\[0\] is -1/],
    ["a weight above 1", () => mix(first, second, { weight: 1.1 }), /from 0 to 1, got 1.1/],
    ["a document twice", () => mix([...first, first[0]!], second, { weight: 0.5 }), /holds "a" twice/],
    [
      "a score that is no number",
      () => distributionBasedScoreFusion([[{ id: "a", score: Number.NaN }]]),
      /the score NaN/,
    ],
    ["lambda above 1", () => maximalMarginalRelevance([], { lambda: 2, k: 1 }), /lambda must be from 0/],
    [
      "a zero vector",
      () => maximalMarginalRelevance([{ id: 1, score: 1, vector: new Float32Array(2) }], { lambda: 1, k: 1 }),
      /length 0/,
    ],
  ])("refuses %s", (_what, call, message) => {
    expect(call).toThrow(message);
  });
});

import { describe, expect, test } from "vitest";
import { InvalidInputError } from "../errors.js";
import { createRandom } from "../random.js";
import { compareRuns, pairedBootstrap, pairedRandomisation } from "./significance.js";

/** All 2^n sign patterns: the p-value that random signs approach. */
function exactPValue(differences: readonly number[]): number {
  const observed = Math.abs(differences.reduce((sum, d) => sum + d, 0));
  let extreme = 0;
  for (let pattern = 0; pattern < 2 ** differences.length; pattern++) {
    const sum = differences.reduce((total, d, i) => total + (pattern & (1 << i) ? d : -d), 0);
    if (Math.abs(sum) >= observed - 1e-9) extreme++;
  }
  return extreme / 2 ** differences.length;
}

describe("paired randomisation", () => {
  test.each<[string, number[]]>([
    ["a clear difference", [0.3, 0.2, 0.4, 0.1, 0.25, 0.35, 0.15, 0.3, 0.2, 0.1]],
    ["a middling one", [0.5, -0.2, 0.4, 0.1, -0.1, 0.3, 0.2, -0.3, 0.6, 0.1, 0, 0.2]],
    ["none", [0.5, -0.5, 0.25, -0.2, 0.1, -0.15]],
    ["many equal sums, which rounding would part", [0.1, 0.2, 0.3, 0.1, 0.2, -0.3, 0.1]],
  ])("agrees with the enumeration of all signs: %s", (_, differences) => {
    const exact = exactPValue(differences);
    const draws = 40_000;
    const p = pairedRandomisation(differences, { seed: 11, draws });
    expect(Math.abs(p - exact)).toBeLessThan(5 * Math.sqrt((exact * (1 - exact)) / draws) + 2 / draws);
  });

  test("ten equal wins: 2 of the 1,024 sign patterns are as extreme", () => {
    expect(exactPValue(Array(10).fill(0.1))).toBe(2 / 1024);
    expect(pairedRandomisation(Array(10).fill(0.1), { seed: 1, draws: 100_000 })).toBeCloseTo(2 / 1024, 3);
  });

  test("more than 32 pairs use fresh sign bits: 40 wins of 1 and 24 losses agree with the binomial", () => {
    // P(|2·Bin(64, 1/2) - 64| >= 16) = 0.0599, summed exactly.
    let tail = 0;
    for (let wins = 0, ways = 1; wins <= 24; ways = (ways * (64 - wins)) / (wins + 1), wins++)
      tail += (2 * ways) / 2 ** 64;
    expect(tail).toBeCloseTo(0.0599, 3);
    const differences = [...Array(40).fill(1), ...Array(24).fill(-1)] as number[];
    const p = pairedRandomisation(differences, { seed: 3, draws: 40_000 });
    expect(Math.abs(p - tail)).toBeLessThan(5 * Math.sqrt((tail * (1 - tail)) / 40_000));
  });

  test("is never 0, and 1 where all pairs are equal", () => {
    expect(pairedRandomisation(Array(200).fill(1), { seed: 1, draws: 99 })).toBe(1 / 100);
    expect(pairedRandomisation([0, 0, 0], { seed: 1, draws: 99 })).toBe(1);
  });

  test("under the null about 5 % of p-values lie below 0.05", () => {
    const random = createRandom(12);
    let rejected = 0;
    for (let trial = 0; trial < 400; trial++) {
      const differences = Array.from({ length: 30 }, () => random.normal());
      if (pairedRandomisation(differences, { seed: trial, draws: 499 }) <= 0.05) rejected++;
    }
    // 400 trials at 5 %: 20, standard deviation 4.4.
    expect(rejected).toBeGreaterThan(4);
    expect(rejected).toBeLessThan(40);
  });
});

describe("paired bootstrap", () => {
  test("meets the normal interval for many queries: mean ± 1.96 s/√n", () => {
    const random = createRandom(5);
    const differences = Array.from({ length: 2000 }, () => 0.02 + 0.1 * random.normal());
    const mean = differences.reduce((a, b) => a + b) / 2000;
    const error = Math.sqrt(differences.reduce((sum, d) => sum + (d - mean) ** 2, 0) / 2000 / 2000);
    const [low, high] = pairedBootstrap(differences, { seed: 8 });
    // A 2.5 % quantile of 10,000 normal draws has a standard error of 0.027 standard deviations: 5 of them.
    expect(Math.abs(low - (mean - 1.96 * error))).toBeLessThan(0.14 * error);
    expect(Math.abs(high - (mean + 1.96 * error))).toBeLessThan(0.14 * error);
  });

  test("meets the exact distribution of two values: the mean of 20 resamples is binomial", () => {
    // Ten 0s and ten 1s: 20·mean ~ Bin(20, 1/2), whose 2.5 % and 97.5 % quantiles are 6 and 14.
    const [low, high] = pairedBootstrap([...Array(10).fill(0), ...Array(10).fill(1)] as number[], { seed: 2 });
    expect([low, high]).toEqual([6 / 20, 14 / 20]);
  });

  test("equal differences leave nothing to chance", () => {
    expect(pairedBootstrap([0.25, 0.25, 0.25], { seed: 1, draws: 100 })).toEqual([0.25, 0.25]);
  });

  test("the seed decides: the same interval again, another with another seed", () => {
    const differences = Array.from({ length: 50 }, (_, i) => Math.sin(i));
    const interval = pairedBootstrap(differences, { seed: 4, draws: 500 });
    expect(pairedBootstrap(differences, { seed: 4, draws: 500 })).toEqual(interval);
    expect(pairedBootstrap(differences, { seed: 5, draws: 500 })).not.toEqual(interval);
  });
});

describe("compareRuns", () => {
  const evaluation = (values: Record<string, number>) => ({
    perQuery: new Map(Object.entries(values).map(([query, map]) => [query, { map }])),
  });
  const a = evaluation({ q1: 0.2, q2: 0.5, q3: 0.5, q4: 0.1 });

  test("pairs by query, not by position, and speaks for b where b is higher", () => {
    // Differences: q1 +0.3, q2 0, q3 -0.1, q4 +0.4.
    const b = evaluation({ q4: 0.5, q3: 0.4, q2: 0.5, q1: 0.5 });
    const forward = compareRuns(a, b, "map", { seed: 1 });
    expect(forward).toMatchObject({ queries: 4, wins: 2, ties: 1, losses: 1 });
    expect(forward.difference).toBeCloseTo(0.15, 12);
    expect(forward.interval[0]).toBeLessThan(0);
    expect(forward.interval[1]).toBeLessThanOrEqual(0.4 + 1e-12);
    // Paired by position, a run against itself in another order would differ.
    const reversed = { perQuery: new Map([...a.perQuery].reverse()) };
    expect(compareRuns(a, reversed, "map", { seed: 1 })).toMatchObject({
      difference: 0,
      ties: 4,
      interval: [0, 0],
      pValue: 1,
    });
  });

  test("swapping the runs swaps the sign", () => {
    const b = evaluation({ q1: 0.4, q2: 0.6, q3: 0.7, q4: 0.3 });
    const forward = compareRuns(a, b, "map", { seed: 1 });
    const backward = compareRuns(b, a, "map", { seed: 1 });
    expect(backward.difference).toBeCloseTo(-forward.difference, 12);
    expect(backward.pValue).toBe(forward.pValue);
    expect(forward.interval[0]).toBeGreaterThan(0);
    expect(backward.interval[1]).toBeLessThan(0);
  });

  test.each<[string, () => unknown, RegExp]>([
    [
      "other queries",
      () => compareRuns(a, evaluation({ q1: 1, q2: 1, q3: 1, x: 1 }), "map", { seed: 1 }),
      /lacks query "q4"/,
    ],
    ["fewer queries", () => compareRuns(a, evaluation({ q1: 1 }), "map", { seed: 1 }), /a has 4 queries, b has 1/],
    ["no queries", () => compareRuns(evaluation({}), evaluation({}), "map", { seed: 1 }), /no queries/],
    ["a metric neither has", () => compareRuns(a, a, "mrr" as "map", { seed: 1 }), /a lacks the metric mrr/],
    ["no draws", () => compareRuns(a, a, "map", { seed: 1, draws: 0 }), /draws/],
    ["a difference that isn't finite", () => pairedBootstrap([1, Number.NaN], { seed: 1 }), /difference 1 is NaN/],
  ])("refuses %s", (_, call, message) => {
    expect(call).toThrow(InvalidInputError);
    expect(call).toThrow(message);
  });
});

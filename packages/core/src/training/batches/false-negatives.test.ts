import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkRule, type FalseNegativeRule, type MaskInput, maskFalseNegatives } from "./false-negatives.js";

const { filter } = JSON.parse(
  readFileSync(new URL("../../../../../test/parity/golden/golden.json", import.meta.url), "utf8"),
) as { filter: Record<"scores" | "own" | "mask_t1" | "mask_abs_0.6" | "mask_no_inbatch_t1", number[][]> };

const input = {
  pairs: 3,
  documents: 5,
  scores: Float32Array.from(filter.scores.flat()),
  own: Uint8Array.from(filter.own.flat()),
};
const mask = (rule: FalseNegativeRule | undefined, more: Partial<MaskInput> = {}) => {
  const flat = [...maskFalseNegatives({ ...input, rule, ...more })];
  return [flat.slice(0, 5), flat.slice(5, 10), flat.slice(10)];
};

describe("against the specification's masks", () => {
  test("as near as the positive, a tie included", () => {
    expect(mask({ rule: "positive" })).toEqual(filter.mask_t1);
  });
  test("an absolute threshold", () => {
    expect(mask({ rule: "absolute", threshold: 0.6 })).toEqual(filter["mask_abs_0.6"]);
  });
  test("without in-batch negatives everything but its own is masked", () => {
    expect(mask({ rule: "positive" }, { inBatchNegatives: false })).toEqual(filter.mask_no_inbatch_t1);
  });
});

test("a margin raises the bar: 0.15 above a positive of 0.7 masks 0.9 and not 0.8", () => {
  const scores = Float32Array.of(0.7, 0.9, 0.8, 0.1, 0.7, 0.1, 0.1, 0.1, 0.7);
  const own = Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
  const at = (margin: number) => [
    ...maskFalseNegatives({ pairs: 3, documents: 3, scores, own, rule: { rule: "positive", margin } }),
  ];
  expect(at(0.15)).toEqual([0, 1, 0, 0, 0, 0, 0, 0, 0]);
  expect(at(0.05)).toEqual([0, 1, 1, 0, 0, 0, 0, 0, 0]);
  expect(at(0.3)).toEqual(Array(9).fill(0));
});

test("known positives are masked without scores, but not the query's own hard negatives", () => {
  const known = Uint8Array.of(0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  expect(mask(undefined, { known, scores: undefined })).toEqual([[0, 0, 1, 0, 0], Array(5).fill(0), Array(5).fill(0)]);
});

test("whatever the scores: never the positive, never an own hard negative, and a higher bar masks no more", () => {
  const score = fc.float({ min: -1, max: 1, noNaN: true });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.nat(4),
      fc.array(score, { minLength: 60, maxLength: 60 }),
      fc.nat(),
      (pairs, more, values, bits) => {
        const documents = pairs + more;
        const scores = Float32Array.from({ length: pairs * documents }, (_, i) => values[i % 60]!);
        const own = Uint8Array.from(scores, (_, i) =>
          Number(
            i % documents === Math.floor(i / documents) || (i % documents >= pairs && ((bits >> (i % 20)) & 1) === 1),
          ),
        );
        const low = maskFalseNegatives({ pairs, documents, scores, own, rule: { rule: "positive" } });
        const high = maskFalseNegatives({ pairs, documents, scores, own, rule: { rule: "positive", margin: 0.2 } });
        low.forEach((masked, i) => {
          if (own[i] === 1) expect(masked).toBe(0);
          expect(high[i]).toBeLessThanOrEqual(masked);
        });
      },
    ),
    { numRuns: process.env.CDE_FULL ? 2000 : 200, seed: 4 },
  );
});

test("refuses what is no rule", () => {
  for (const rule of [
    { rule: "absolute" },
    { rule: "positive", margin: Number.NaN },
    { rule: "absolute", threshold: 3 },
    {},
  ]) {
    expect(() => checkRule("createBatches", rule as FalseNegativeRule)).toThrow(
      "createBatches: falseNegatives must be",
    );
  }
  checkRule("createBatches", { rule: "positive" });
});

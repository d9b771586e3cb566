/** What the base masks in a batch, worked out by hand. */
import { expect, test } from "vitest";
import { compareByBase } from "./compare-by-base.js";

const pair = (id: string, negatives: readonly string[] = []) => ({ id, query: `${id}?`, positive: id, negatives });
/** Two queries; documents: positive of a, positive of b, hard negative of a, hard negative of b. */
const batch = { dataset: "d", pairs: [pair("a", ["c"]), pair("b", ["d"])] };
const unit = (...degrees: number[]) =>
  Float32Array.from(degrees.flatMap((angle) => [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)]));
const cosine = (degrees: number) => Math.cos((degrees * Math.PI) / 180);
/** a at 0°, b at 90°; a's positive at 30°, b's at 60°, their hard negatives at 10° and 20°. */
const vectors = { queries: unit(0, 90), documents: unit(30, 60, 10, 20) };

test("documents nearer than the positive are masked, own ones never", () => {
  const { falseNegatives, difficulty } = compareByBase(batch, vectors, { rule: "positive" });
  // a: d's 20° is nearer than its positive at 30°; c at 10° is its own. b: its positive at 30° is the nearest.
  expect([...falseNegatives!]).toEqual([0, 0, 0, 1, 0, 0, 0, 0]);
  expect(difficulty).toBeCloseTo((cosine(60) + cosine(60) + cosine(80)) / 3, 6);
});

test("by another rule, and beside what the batch masks", () => {
  const masked = { ...batch, falseNegatives: Uint8Array.of(0, 1, 0, 0, 0, 0, 0, 0) };
  const absolute = compareByBase(masked, vectors, { rule: "absolute", threshold: 0.45 });
  // From 63°: b's positive and d for a; a's positive for b.
  expect([...absolute.falseNegatives!]).toEqual([0, 1, 0, 1, 1, 0, 0, 0]);
  expect(absolute.difficulty).toBeCloseTo(cosine(80), 6);
  const positive = compareByBase(masked, vectors, { rule: "positive" });
  expect([...positive.falseNegatives!]).toEqual([0, 1, 0, 1, 0, 0, 0, 0]);
});

test("without a rule the batch's mask stays, and where nothing counts there is no difficulty", () => {
  const { falseNegatives, difficulty } = compareByBase(batch, vectors, null);
  expect(falseNegatives).toBeUndefined();
  expect(difficulty).toBeCloseTo((cosine(60) + cosine(20) + cosine(60) + cosine(80)) / 4, 6);
  const all = { ...batch, falseNegatives: new Uint8Array(8).fill(1) };
  expect(compareByBase(all, vectors, null)).toEqual({ falseNegatives: all.falseNegatives, difficulty: Number.NaN });
});

import { expect, test } from "vitest";
import { planBatches } from "./batches.js";

const lengths = Array.from({ length: 500 }, (_, i) => 3 + ((i * i * 7) % 254));

test("every text is in exactly one batch, longest first, padded to the longest of its batch", () => {
  const batches = planBatches(lengths);
  expect(batches.flatMap(({ positions }) => positions).sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i));
  for (const { positions, length } of batches) expect(Math.max(...positions.map((i) => lengths[i]!))).toBe(length);
  const longest = batches.map(({ length }) => length);
  expect(longest).toEqual([...longest].sort((a, b) => b - a));
});

test("a batch holds at most 512 tokens with its padding, and 64 texts", () => {
  for (const { positions, length } of planBatches(lengths)) {
    expect(positions.length * length).toBeLessThanOrEqual(512);
    expect(positions.length).toBeLessThanOrEqual(64);
  }
  expect(planBatches(Array.from({ length: 130 }, () => 3)).map(({ positions }) => positions.length)).toEqual([
    64, 64, 2,
  ]);
});

test("a text longer than a batch runs alone", () => {
  expect(planBatches([5, 5000, 5], { tokens: 100 })).toEqual([
    { positions: [1], length: 5000 },
    { positions: [0, 2], length: 5 },
  ]);
});

test("what every text brings along counts, and isn't part of the length", () => {
  // (90 + 10) tokens a text: ten of 1,000.
  const batches = planBatches(
    Array.from({ length: 25 }, () => 10),
    { tokens: 1000, prefix: 90 },
  );
  expect(batches.map(({ positions }) => positions.length)).toEqual([10, 10, 5]);
  expect(batches.map(({ length }) => length)).toEqual([10, 10, 10]);
});

test("nothing gives nothing, and the empty text still takes its place", () => {
  expect(planBatches([])).toEqual([]);
  expect(planBatches([0, 0])).toEqual([{ positions: [0, 1], length: 0 }]);
});

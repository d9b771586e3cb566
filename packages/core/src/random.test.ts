import { describe, expect, test } from "vitest";
import { InvalidInputError } from "./errors.js";
import { createRandom, fnv1a32, mulberry32, Random, splitMix64 } from "./random.js";

const times = <T>(n: number, draw: () => T): T[] => Array.from({ length: n }, draw);

describe("published outputs", () => {
  test("xoshiro128** 1.1 from the state 1, 2, 3, 4 (the authors' C code, as in Rust's rand_xoshiro)", () => {
    const random = Random.fromState([1, 2, 3, 4]);
    expect(times(10, () => random.uint32())).toEqual([
      11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804,
    ]);
  });

  test("SplitMix64 of 1234567 (Rosetta Code)", () => {
    expect(splitMix64(1234567n)).toEqual([6457827717110365317n, 3203168211198807973n]);
  });

  test("a seed becomes SplitMix64's outputs, low word first", () => {
    const words = splitMix64(1234567n).flatMap((output) => [Number(output & 0xffffffffn), Number(output >> 32n)]);
    expect(createRandom(1234567).state()).toEqual(words);
  });

  test("FNV-1a and mulberry32 (SPEC.md §12.1, check 1)", () => {
    expect(fnv1a32("a")).toBe(3826002220);
    expect(fnv1a32("first_stage_model.mlp.0.weight")).toBe(1063515517);
    expect(times(3, mulberry32(1))).toEqual([0.6270739405881613, 0.002735721180215478, 0.5274470399599522]);
  });

  test("FNV-1a reads UTF-8 bytes, not UTF-16 units: é is the bytes c3 a9", () => {
    const step = (hash: number, byte: number) => Number((BigInt(hash ^ byte) * 0x01000193n) & 0xffffffffn);
    expect(fnv1a32("é")).toBe(step(step(0x811c9dc5, 0xc3) >>> 0, 0xa9));
  });
});

describe("state", () => {
  test("a restored generator goes on bit for bit, whatever was drawn before", () => {
    const random = createRandom(7);
    random.normal();
    random.shuffle([1, 2, 3]);
    const saved = JSON.parse(JSON.stringify(random.state())) as ReturnType<Random["state"]>;
    const draw = (from: Random) => [from.normal(), from.next(), from.integer(10), from.sample(1000, 5), from.normal()];
    const expected = draw(random);
    expect(draw(Random.fromState(saved))).toEqual(expected);
    expect(draw(createRandom(7))).not.toEqual(expected);
  });

  test("neighbouring seeds give unrelated draws, and so do seeds that differ above 32 bits", () => {
    const first = [0, 1, 2, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1].map((seed) => createRandom(seed).uint32());
    expect(new Set(first).size).toBe(first.length);
  });
});

describe("distributions, within 5 standard errors", () => {
  const n = 200_000;
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

  test("next is uniform in [0, 1): mean 1/2 with variance 1/12", () => {
    const random = createRandom(1);
    const values = times(n, () => random.next());
    expect(values.every((value) => value >= 0 && value < 1)).toBe(true);
    expect(Math.abs(mean(values) - 1 / 2)).toBeLessThan(5 * Math.sqrt(1 / 12 / n));
    expect(Math.abs(mean(values.map((v) => (v - 0.5) ** 2)) - 1 / 12)).toBeLessThan(5 * Math.sqrt(1 / 180 / n));
  });

  test("next uses 53 bits: some value isn't a multiple of 2^-52", () => {
    const random = createRandom(1);
    expect(times(100, () => random.next() * 2 ** 52).some((value) => !Number.isInteger(value))).toBe(true);
  });

  test("integer is unbiased where a plain remainder is not: n = 3 · 2^30", () => {
    // draw % n of 32 bits would put half of all draws, not a third, below 2^30.
    const random = createRandom(2);
    const below = times(n, () => random.integer(3 * 2 ** 30)).filter((value) => value < 2 ** 30).length / n;
    expect(Math.abs(below - 1 / 3)).toBeLessThan(5 * Math.sqrt(2 / 9 / n));
  });

  test("normal has mean 0, variance 1 and kurtosis 3", () => {
    const random = createRandom(3);
    const values = times(n, () => random.normal());
    expect(Math.abs(mean(values))).toBeLessThan(5 / Math.sqrt(n));
    expect(Math.abs(mean(values.map((v) => v ** 2)) - 1)).toBeLessThan(5 * Math.sqrt(2 / n));
    expect(Math.abs(mean(values.map((v) => v ** 4)) - 3)).toBeLessThan(5 * Math.sqrt(96 / n));
  });

  test("shuffle gives each of the 6 orders of 3 items, sample each of the 12 ordered pairs of 4, equally often", () => {
    const random = createRandom(4);
    const count = (draw: () => number[]) => {
      const counts = new Map<string, number>();
      for (let i = 0; i < 60_000; i++) {
        const key = draw().join();
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
      return [...counts.values()];
    };
    for (const [cells, counts] of [
      [6, count(() => random.shuffle([0, 1, 2]))],
      [12, count(() => random.sample(4, 2))],
    ] as const) {
      expect(counts).toHaveLength(cells);
      const sigma = Math.sqrt((60_000 / cells) * (1 - 1 / cells));
      for (const seen of counts) expect(Math.abs(seen - 60_000 / cells)).toBeLessThan(5 * sigma);
    }
  });
});

test("shuffle leaves what it was given alone", () => {
  const items = Object.freeze([1, 2, 3, 4, 5, 6, 7, 8]);
  const shuffled = createRandom(5).shuffle(items);
  expect(shuffled).not.toEqual(items);
  expect([...shuffled].sort()).toEqual(items);
});

test("sample draws without replacement, all when asked for all, and few from very many", () => {
  const random = createRandom(6);
  expect(random.sample(100, 100).sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expect(random.sample(0, 0)).toEqual([]);
  const few = random.sample(2 ** 32, 1000);
  expect(new Set(few).size).toBe(1000);
  expect(Math.max(...few)).toBeGreaterThan(2 ** 31);
});

test.each<[string, () => unknown]>([
  ["a negative seed", () => createRandom(-1)],
  ["a fractional seed", () => createRandom(0.5)],
  ["a seed beyond 2^53", () => createRandom(2 ** 53)],
  ["a seed of mulberry32 beyond 32 bits", () => mulberry32(2 ** 32)],
  ["integer(0)", () => createRandom(1).integer(0)],
  ["integer beyond 2^32", () => createRandom(1).integer(2 ** 32 + 1)],
  ["a sample larger than its population", () => createRandom(1).sample(3, 4)],
  ["the all-zero state, which would return 0 for ever", () => Random.fromState([0, 0, 0, 0])],
  ["a state of words beyond 32 bits", () => Random.fromState([1, 2, 3, 2 ** 32])],
])("refuses %s", (_, call) => {
  expect(call).toThrow(InvalidInputError);
});

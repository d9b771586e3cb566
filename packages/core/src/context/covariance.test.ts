import { describe, expect, test } from "vitest";
import { CovarianceSum, gramMatrix, readMoments, type VectorSource } from "./covariance.js";

/** Unit vectors that scatter by `spread` around one direction. */
function unitVectors(count: number, dimensions: number, spread: number, seed = 1): Float32Array[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    const vector = Float64Array.from({ length: dimensions }, (_, i) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.cos(i) + spread * (state / 2 ** 32 - 0.5);
    });
    const length = Math.hypot(...vector);
    return Float32Array.from(vector, (value) => value / length);
  });
}

/** The covariance by its definition, in two passes. */
function twoPasses(vectors: readonly Float32Array[]): { mean: number[]; covariance: number[] } {
  const dimensions = vectors[0]!.length;
  const average = (of: (vector: Float32Array) => number) =>
    vectors.reduce((sum, vector) => sum + of(vector), 0) / vectors.length;
  const mean = Array.from({ length: dimensions }, (_, i) => average((vector) => vector[i]!));
  const covariance = Array.from({ length: dimensions ** 2 }, (_, at) => {
    const [i, j] = [Math.floor(at / dimensions), at % dimensions];
    return average((vector) => (vector[i]! - mean[i]!) * (vector[j]! - mean[j]!));
  });
  return { mean, covariance };
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)), a.length === b.length ? 0 : Number.NaN);
const trace = (matrix: ArrayLike<number>, n: number): number =>
  Array.from({ length: n }, (_, i) => matrix[i * n + i]!).reduce((sum, value) => sum + value, 0);

describe("readMoments", () => {
  test.each([
    [1, "ordinary"],
    [1e-3, "alike"],
    [3e-6, "nearly identical"],
  ])("equals two passes with a spread of %d (%s)", async (spread) => {
    const [count, dimensions] = [700, 21];
    const vectors = unitVectors(count, dimensions, spread);
    const expected = twoPasses(vectors);
    const { mean, covariance } = await readMoments("test", vectors);
    expect(distance(mean, expected.mean)).toBeLessThan(1e-15);
    const error = distance(covariance!, expected.covariance) / trace(expected.covariance, dimensions);
    expect(error).toBeLessThan(1e-9);
    // Control: dividing by J − 1.
    const other = expected.covariance.map((value) => (value * count) / (count - 1));
    expect(distance(covariance!, other) / trace(other, dimensions)).toBeGreaterThan(1e-5);
  });

  test("stays exact where E[xxᵀ] − mmᵀ has lost the digits", async () => {
    const [count, dimensions] = [700, 21];
    const vectors = unitVectors(count, dimensions, 3e-6);
    const { mean, covariance } = twoPasses(vectors);
    const naive = covariance.map((_, at) => {
      const [i, j] = [Math.floor(at / dimensions), at % dimensions];
      return vectors.reduce((sum, vector) => sum + vector[i]! * vector[j]!, 0) / count - mean[i]! * mean[j]!;
    });
    expect(distance(naive, covariance) / trace(covariance, dimensions)).toBeGreaterThan(1e-6);
  });

  test("isn't misled by first vectors that are all the same", async () => {
    const vectors = [...Array<Float32Array>(30).fill(unitVectors(1, 21, 4, 9)[0]!), ...unitVectors(300, 21, 1e-3)];
    const { covariance } = await readMoments("test", vectors);
    expect(distance(covariance!, twoPasses(vectors).covariance)).toBeLessThan(1e-14);
  });

  test("keeps rows up to J = D and sums from J = D + 1, with the same result", async () => {
    const vectors = unitVectors(10, 9, 1);
    const kept = await readMoments("test", vectors.slice(0, 9));
    expect(kept.covariance).toBeUndefined();
    expect([...kept.rows!]).toEqual(vectors.slice(0, 9).flatMap((vector) => [...vector]));
    const summed = await readMoments("test", vectors);
    expect(summed.rows).toBeUndefined();
    expect(distance(summed.covariance!, twoPasses(vectors).covariance)).toBeLessThan(1e-15);
    // The trace of the Gram matrix is the covariance's.
    const gram = gramMatrix(kept.rows!, kept.mean);
    expect(trace(gram, 9)).toBeCloseTo(trace(twoPasses(vectors.slice(0, 9)).covariance, 9), 14);
  });

  test("reads packed rows, arrays and asynchronous streams alike", async () => {
    const vectors = unitVectors(40, 5, 1);
    async function* stream() {
      yield* vectors;
    }
    const sources: VectorSource[] = [
      stream(),
      { rows: Float32Array.from(vectors.flatMap((v) => [...v])), dimensions: 5 },
    ];
    const expected = await readMoments("test", vectors);
    for (const source of sources) expect(await readMoments("test", source)).toEqual(expected);
  });

  const unit = Float32Array.of(0.6, 0.8);
  test.each([
    ["no vectors", [], /got 0 context vectors, expected at least 1/, undefined],
    ["NaN", [unit, Float32Array.of(0, Number.NaN)], /vector 1 has NaN in dimension 1/, 1],
    [
      "infinity",
      [unit, unit, Float32Array.of(Number.NEGATIVE_INFINITY, 0)],
      /vector 2 has -Infinity in dimension 0/,
      2,
    ],
    ["a zero vector", [unit, Float32Array.of(0, 0)], /vector 1 is zero/, 1],
    ["another dimension", [unit, Float32Array.of(1, 0, 0)], /vector 1 has 3 dimensions, expected 2/, 1],
    ["a vector that isn't of unit length", [unit, Float32Array.of(3, 4)], /vector 1 has length 5.00000, expected 1/, 1],
  ])("refuses %s and names the position", async (_, vectors, message, position) => {
    await expect(readMoments("test", vectors)).rejects.toMatchObject({
      code: "INVALID_INPUT",
      message: expect.stringMatching(message),
      position,
    });
  });

  test("refuses packed rows that don't divide by their dimensions", async () => {
    const source = { rows: new Float32Array(7), dimensions: 2 };
    await expect(readMoments("test", source)).rejects.toThrow(/7 numbers don't divide into rows of 2 dimensions/);
  });
});

test("CovarianceSum doesn't depend on the shift beyond rounding", () => {
  const vectors = unitVectors(600, 7, 1);
  const [near, far] = [vectors[0]!, new Float32Array(7)].map((shift) => {
    const sum = new CovarianceSum(Float64Array.from(shift));
    for (const vector of vectors) sum.add(vector);
    return sum.finish();
  });
  expect(distance(near!.covariance, far!.covariance)).toBeLessThan(1e-14);
  expect(distance(near!.mean, far!.mean)).toBeLessThan(1e-15);
});

/** The spectral map against the figures that numpy computed in float64 (test/parity/golden/spectral). */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { fitSpectralMap, type SpectralMap } from "./spectral-map.js";

interface GoldenCase {
  readonly name: string;
  readonly a: number;
  readonly s: number;
  readonly b: number;
  readonly context: number[][];
  readonly embeddings: number[][];
  readonly mean: number[];
  readonly mean_norm_squared: number;
  readonly eigenvalues_scaled_descending: number[];
  readonly W: number[][];
  readonly mapped: number[][];
}

const file = new URL("../../../../test/parity/golden/spectral/spectral.json", import.meta.url);
const cases = JSON.parse(readFileSync(file, "utf8")) as GoldenCase[];

const float32 = (rows: number[][]): Float32Array[] => rows.map((row) => Float32Array.from(row));
const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)), a.length === b.length ? 0 : Number.NaN);

/** normalise(W (e − b m)) in float64. */
function inFloat64(weights: ArrayLike<number>, mean: Float64Array, b: number, vector: Float32Array): number[] {
  const n = mean.length;
  const mapped = Array.from(mean, (_, i) => {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += weights[i * n + j]! * (vector[j]! - b * mean[j]!);
    return sum;
  });
  const length = Math.hypot(...mapped);
  return mapped.map((value) => value / length);
}

/** W of other eigenvalues on the same basis, by the formula. */
function weightsOf(map: SpectralMap, eigenvalues: Float64Array, { a, s }: GoldenCase): Float64Array {
  const { dimensions: n, rank, basis } = map.spectrum;
  const factor = (l: number) => ((1 - s) * l + s) ** (-a / 2);
  return Float64Array.from({ length: n * n }, (_, at) => {
    const [i, j] = [Math.floor(at / n), at % n];
    let sum = i === j ? factor(0) : 0;
    for (let k = 0; k < rank; k++) {
      sum += (factor(eigenvalues[k]!) - factor(0)) * basis[k * n + i]! * basis[k * n + j]!;
    }
    return sum;
  });
}

describe.each(cases.map((golden) => [golden.name, golden] as const))("golden: %s", (_, golden) => {
  const context = float32(golden.context);
  const embeddings = float32(golden.embeddings);
  const strength = { a: golden.a, s: golden.s, b: golden.b };
  // Controls need a map that acts, and a spectrum.
  const acts = golden.a > 0;

  test("mean, eigenvalues and W agree to 1e-9 in float64", async () => {
    const map = await fitSpectralMap(context, { strength });
    expect(distance(map.mean, golden.mean)).toBeLessThan(1e-9);
    expect(map.meanNormSquared).toBeCloseTo(golden.mean_norm_squared, 9);
    // Of the largest one: the file's inputs have 9 decimals, which for small entries isn't all of a float32.
    const largest = Math.max(1, golden.eigenvalues_scaled_descending[0]!);
    expect(distance(map.eigenvalues, golden.eigenvalues_scaled_descending) / largest).toBeLessThan(1e-9);
    expect(distance(map.weights(), golden.W.flat())).toBeLessThan(1e-9);
  });

  test("mapped vectors agree to 1e-9 in float64 and 1e-5 in float32", async () => {
    const map = await fitSpectralMap(context, { strength });
    const mapped = map.apply(embeddings);
    golden.mapped.forEach((expected, i) => {
      expect(distance(inFloat64(map.weights(), map.mean, golden.b, embeddings[i]!), expected)).toBeLessThan(1e-9);
      expect(distance(mapped[i]!, expected)).toBeLessThan(1e-5);
    });
  });

  if (!acts) return;
  test("control: another context and another strength give other vectors", async () => {
    const reversed = context.map((vector) => vector.toReversed());
    const others = [
      await fitSpectralMap(reversed, { strength }),
      await fitSpectralMap(context, { strength: { ...strength, b: golden.b / 2 } }),
    ];
    if (context.length > 1) others.push(await fitSpectralMap(context, { strength: { ...strength, a: golden.a / 2 } }));
    for (const other of others) {
      const mapped = other.apply(embeddings).flatMap((vector) => [...vector]);
      expect(distance(mapped, golden.mapped.flat())).toBeGreaterThan(1e-3);
    }
  });

  if (context.length === 1) return;
  const spread = (golden.eigenvalues_scaled_descending[0] ?? 0) > 0;
  test.runIf(spread)("eigenvalues behind the map have the sum of squares that W S W has", async () => {
    const map = await fitSpectralMap(context, { strength });
    const { dimensions, eigenvalues, spectrum } = map;
    const { W } = golden;
    // W S W, from S = U diag(l) Uᵀ: its trace is the sum of its eigenvalues, that of its square the sum of their squares.
    const at = (i: number, j: number) => {
      let sum = 0;
      for (let k = 0; k < spectrum.rank; k++) {
        const [x, y] = [i, j].map((row) =>
          W[row]!.reduce((all, w, c) => all + w * spectrum.basis[k * dimensions + c]!, 0),
        );
        sum += eigenvalues[k]! * x! * y!;
      }
      return sum;
    };
    const all = Array.from({ length: dimensions }, (_, i) => Array.from({ length: dimensions }, (__, j) => at(i, j)));
    const trace = all.reduce((sum, row, i) => sum + row[i]!, 0);
    const squares = all.flat().reduce((sum, value) => sum + value * value, 0);
    const mapped = map.mappedEigenvalues;
    expect(mapped.reduce((sum, l) => sum + l, 0) / dimensions).toBeCloseTo(1, 9);
    expect(mapped.reduce((sum, l) => sum + l * l, 0)).toBeCloseTo(squares / (trace / dimensions) ** 2, 6);
    // The control: the eigenvalues before it are less flat.
    const before = eigenvalues.reduce((sum, l) => sum + l * l, 0);
    expect(before - squares / (trace / dimensions) ** 2 > 1e-3).toBe(acts);
  });

  test("control: eigenvalues that aren't scaled to mean 1 give another W", async () => {
    const map = await fitSpectralMap(context, { strength });
    expect(distance(weightsOf(map, map.eigenvalues, golden), golden.W.flat())).toBeLessThan(1e-9);
    let total = 0;
    for (const vector of context) total += vector.reduce((sum, value, i) => sum + (value - map.mean[i]!) ** 2, 0);
    const unscaled = (by: number) => map.eigenvalues.map((value) => (value * total) / by / map.dimensions);
    const [byJ, byJMinusOne] = [context.length, context.length - 1].map((by) => weightsOf(map, unscaled(by), golden));
    expect(distance(byJ!, golden.W.flat())).toBeGreaterThan(1e-2);
    // Scaling to mean 1 hides whether the covariance was divided by J or J − 1; without it, W tells them apart.
    expect(distance(byJMinusOne!, golden.W.flat())).toBeGreaterThan(1e-2);
    expect(distance(byJ!, byJMinusOne!)).toBeGreaterThan(1e-4);
  });
});

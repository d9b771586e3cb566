import { describe, expect, test } from "vitest";
import { symmetricEigen } from "./symmetric-eigen.js";

function randomSymmetric(n: number, seed: number): Float64Array {
  let state = seed;
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      matrix[i * n + j] = state / 2 ** 32 - 0.5;
      matrix[j * n + i] = matrix[i * n + j]!;
    }
  }
  return matrix;
}

/** Largest entry of A v − l v over all pairs, and of V Vᵀ − 1. */
function errors(matrix: Float64Array, n: number): { residual: number; orthogonality: number; values: number[] } {
  const { values, vectors } = symmetricEigen(matrix, n);
  let [residual, orthogonality] = [0, 0];
  for (let k = 0; k < n; k++) {
    for (let i = 0; i < n; i++) {
      let [product, inner] = [0, 0];
      for (let j = 0; j < n; j++) {
        product += matrix[i * n + j]! * vectors[k * n + j]!;
        inner += vectors[k * n + j]! * vectors[i * n + j]!;
      }
      residual = Math.max(residual, Math.abs(product - values[k]! * vectors[k * n + i]!));
      orthogonality = Math.max(orthogonality, Math.abs(inner - (i === k ? 1 : 0)));
    }
  }
  return { residual, orthogonality, values: [...values] };
}

describe("symmetricEigen", () => {
  // Sizes around a panel of 8 and a pair of 2, and one whose rotations fill several batches.
  test.each([1, 2, 3, 7, 8, 9, 16, 33, 400])("takes a random matrix of size %i apart", (n) => {
    const { residual, orthogonality, values } = errors(randomSymmetric(n, n), n);
    expect(residual).toBeLessThan(1e-13 * Math.sqrt(n));
    expect(orthogonality).toBeLessThan(1e-13);
    expect(values).toEqual(values.toSorted((a, b) => b - a));
  });

  test("knows a matrix whose eigenvalues are on paper: 2, −1, −1, ... gives 2 − 2 cos(k π / (n + 1))", () => {
    const n = 50;
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      matrix[i * n + i] = 2;
      if (i > 0) matrix[i * n + i - 1] = matrix[(i - 1) * n + i] = -1;
    }
    const { values } = symmetricEigen(matrix, n);
    for (let k = 1; k <= n; k++) expect(values[n - k]).toBeCloseTo(2 - 2 * Math.cos((k * Math.PI) / (n + 1)), 13);
  });

  test("keeps vectors orthogonal where eigenvalues agree to 15 digits (Wilkinson's matrix of 21)", () => {
    const n = 21;
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      matrix[i * n + i] = Math.abs(10 - i);
      if (i > 0) matrix[i * n + i - 1] = matrix[(i - 1) * n + i] = 1;
    }
    const { residual, orthogonality, values } = errors(matrix, n);
    expect(residual).toBeLessThan(1e-13);
    expect(orthogonality).toBeLessThan(1e-13);
    expect(values[0]).toBeCloseTo(10.746194182903393, 12);
    expect(values[0]! - values[1]!).toBeLessThan(1e-12);
  });

  test("gives the zero matrix and the identity their own values", () => {
    expect([...symmetricEigen(new Float64Array(9), 3).values]).toEqual([0, 0, 0]);
    const identity = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
    expect(errors(identity, 3)).toEqual({ residual: 0, orthogonality: 0, values: [1, 1, 1] });
  });

  test.each([1e-200, 1e200])("neither vanishes nor overflows at entries of %d", (scale) => {
    const [high, low] = symmetricEigen(Float64Array.of(2 * scale, scale, scale, 2 * scale), 2).values;
    expect(high! / scale).toBeCloseTo(3, 12);
    expect(low! / scale).toBeCloseTo(1, 12);
  });

  test("finds one value and zeros in a matrix of rank one", () => {
    const n = 100;
    const { residual, orthogonality, values } = errors(new Float64Array(n * n).fill(1), n);
    expect(residual).toBeLessThan(1e-12);
    expect(orthogonality).toBeLessThan(1e-13);
    expect(values[0]).toBeCloseTo(n, 10);
    expect(Math.max(...values.slice(1).map(Math.abs))).toBeLessThan(1e-12);
  });

  test("refuses a size that isn't the matrix's, and a matrix that isn't finite", () => {
    expect(() => symmetricEigen(new Float64Array(6), 2)).toThrow(/6 numbers are no 2 x 2 matrix/);
    expect(() => symmetricEigen(Float64Array.of(1, Number.NaN, Number.NaN, 1), 2)).toThrow(/isn't finite/);
  });
});

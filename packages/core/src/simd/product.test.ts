import { describe, expect, test } from "vitest";
import { OuterSum, ROW_BLOCK, simdRowProduct, transposedProduct } from "./product.js";

/** Numbers of -0.5 to 0.5, the same on every machine. */
function numbers(count: number, seed: number): Float64Array {
  let state = seed;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32 - 0.5;
  });
}

/** aᵀ b by its definition, for a [depth, m] and b [depth, n]. */
function naive(a: ArrayLike<number>, b: ArrayLike<number>, depth: number): number[] {
  const [m, n] = [a.length / depth, b.length / depth];
  return Array.from({ length: m * n }, (_, at) => {
    let sum = 0;
    for (let k = 0; k < depth; k++) sum += a[k * m + Math.floor(at / n)]! * b[k * n + (at % n)]!;
    return sum;
  });
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)), a.length === b.length ? 0 : Number.NaN);

describe("OuterSum", () => {
  // 300 vectors cross a block of 256; 133 dimensions leave a part of a panel and cross a group of 32 panels.
  test.each([
    [1, 1],
    [3, 5],
    [4, 256],
    [7, 257],
    [133, 300],
  ])("equals the definition: %i dimensions, %i vectors", (n, count) => {
    const x = numbers(n * count, 1);
    const sum = new OuterSum(n);
    for (let k = 0; k < count; k++) sum.push(x, 0, k * n);
    expect(distance(sum.matrix(), naive(x, x, count))).toBeLessThan(1e-12);
    const control = naive(
      x.map((value, i) => (i === 0 ? value + 1 : value)),
      x,
      count,
    );
    expect(distance(sum.matrix(), control)).toBeGreaterThan(1e-3);
  });

  test("takes the shift, the stride and the scale of a vector", () => {
    const sum = new OuterSum(2);
    sum.push(Float64Array.of(9, 3, 9, 5), Float64Array.of(1, 2), 1, 2, 10); // 10 · (3 − 1, 5 − 2) = (20, 30)
    expect([...sum.matrix()]).toEqual([400, 600, 600, 900]);
  });
});

test.each([
  [1, 1, 1],
  [5, 3, 9],
  [40, 17, 4],
])("transposedProduct equals the definition: depth %i, %i x %i", (depth, m, n) => {
  const [a, b] = [numbers(depth * m, 1), numbers(depth * n, 2)];
  expect(distance(transposedProduct(a, b, depth), naive(a, b, depth))).toBeLessThan(1e-13);
});

describe("simdRowProduct", () => {
  const [inner, outer] = [37, 19];
  const matrix = numbers(inner * outer, 3);
  const rows = Float32Array.from(numbers(ROW_BLOCK * inner, 4));
  const product = simdRowProduct(matrix, inner, outer);
  const all = new Float32Array(ROW_BLOCK * outer);
  product(rows, ROW_BLOCK, all);

  test("equals the definition to float32 rounding", () => {
    for (let r = 0; r < ROW_BLOCK; r++) {
      const row = rows.subarray(r * inner, (r + 1) * inner);
      expect(distance(all.subarray(r * outer, (r + 1) * outer), naive(row, matrix, inner))).toBeLessThan(2e-6);
    }
  });

  test("gives a row the same bits alone, after a full block, and beside others", () => {
    for (const count of [1, 3, 4, 5]) {
      const out = new Float32Array(count * outer);
      product(rows.subarray(7 * inner), count, out);
      expect(out).toEqual(all.subarray(7 * outer, (7 + count) * outer));
    }
  });
});

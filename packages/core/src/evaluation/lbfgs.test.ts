import { expect, test } from "vitest";
import { minimise } from "./lbfgs.js";

test("finds the minimum of Rosenbrock's valley, (1, 1), from the usual start", async () => {
  const { x, value, converged } = await minimise(
    (at, gradient) => {
      const [a, b] = [at[0]!, at[1]!];
      gradient[0] = -2 * (1 - a) - 400 * a * (b - a * a);
      gradient[1] = 200 * (b - a * a);
      return (1 - a) ** 2 + 100 * (b - a * a) ** 2;
    },
    Float64Array.of(-1.2, 1),
  );
  expect(converged).toBe(true);
  expect(x[0]).toBeCloseTo(1, 6);
  expect(x[1]).toBeCloseTo(1, 6);
  expect(value).toBeLessThan(1e-12);
});

test("an ill-conditioned quadratic: x_i = 1 / (i + 1) for Σ (i + 1)² x² / 2 − (i + 1) x", async () => {
  const start = new Float64Array(30);
  const { x, converged } = await minimise((at, gradient) => {
    let value = 0;
    at.forEach((entry, i) => {
      const h = (i + 1) ** 2;
      const b = i + 1;
      gradient[i] = h * entry - b;
      value += (h * entry * entry) / 2 - b * entry;
    });
    return value;
  }, start);
  expect(converged).toBe(true);
  x.forEach((entry, i) => {
    expect(entry).toBeCloseTo(1 / (i + 1), 6);
  });
  expect(start.every((entry) => entry === 0)).toBe(true);
});

test("says that it did not arrive where the steps run out", async () => {
  const { converged, iterations } = await minimise(
    (at, gradient) => {
      gradient[0] = 4 * (at[0]! - 2) ** 3;
      return (at[0]! - 2) ** 4;
    },
    Float64Array.of(0),
    { iterations: 3 },
  );
  expect({ converged, iterations }).toEqual({ converged: false, iterations: 3 });
});

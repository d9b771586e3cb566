import { describe, expect, test } from "vitest";
import { simdRowProduct } from "../simd/product.js";
import { fitSpectralMap, SpectralMap } from "./spectral-map.js";
import { type FloatTensor, Spectrum } from "./spectrum.js";

function unit(values: Iterable<number>): Float32Array {
  const vector = Float64Array.from(values);
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return Float32Array.from(vector, (value) => value / length);
}

/** Unit vectors around one direction, spread unequally over the dimensions. */
function corpus(count: number, dimensions: number, seed = 1): Float32Array[] {
  let state = seed;
  return Array.from({ length: count }, () =>
    unit(
      Float64Array.from({ length: dimensions }, (_, i) => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        return (0.1 * Math.cos(i) + state / 2 ** 32 - 0.5) / (1 + i);
      }),
    ),
  );
}

/** The formula in float64, from a map's W. */
function byFormula(map: SpectralMap, vector: Float32Array): number[] {
  const n = map.dimensions;
  const b = map.strength === "off" ? 0 : map.strength.b;
  const weights = map.weights();
  const mapped = Array.from({ length: n }, (_, i) =>
    Array.from(vector, (value, j) => weights[i * n + j]! * (value - b * map.mean[j]!)).reduce((sum, x) => sum + x, 0),
  );
  const length = Math.hypot(...mapped);
  return mapped.map((value) => value / length);
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)), a.length === b.length ? 0 : Number.NaN);

describe("SpectralMap", () => {
  test("on paper: two vectors (1, 0) and (0, 1)", async () => {
    // m = (1/2, 1/2), S = [[1, −1], [−1, 1]] / 4 with values 1/2 and 0, scaled to mean 1: 2 and 0.
    const map = await fitSpectralMap([Float32Array.of(1, 0), Float32Array.of(0, 1)], {
      strength: { a: 1, s: 0.5, b: 1 },
    });
    expect([...map.mean]).toEqual([0.5, 0.5]);
    expect(map.meanNormSquared).toBe(0.5);
    expect(distance(map.eigenvalues, [2, 0])).toBeLessThan(1e-15);
    // f(2) = 1.5^(−1/2), f(0) = 0.5^(−1/2); W has their half sum on the diagonal and their half difference beside it.
    const [high, low] = [1 / Math.sqrt(1.5), 1 / Math.sqrt(0.5)];
    const [on, off] = [(low + high) / 2, (low - high) / 2];
    expect(distance(map.weights(), [on, off, off, on])).toBeLessThan(1e-15);
    // (1, 0) − m points along the first eigenvector, which W only scales.
    expect(distance(map.apply([Float32Array.of(1, 0)])[0]!, [Math.SQRT1_2, -Math.SQRT1_2])).toBeLessThan(1e-7);
  });

  // 12 of 40 dimensions take two thin products, 20 and 39 one square one, 41 and 200 the covariance.
  test.each([2, 3, 12, 20, 39, 40, 41, 200])(
    "apply follows the formula with %i context vectors of 40 dimensions",
    async (count) => {
      const map = await fitSpectralMap(corpus(count, 40));
      const texts = corpus(5, 40, 7);
      const mapped = map.apply(texts);
      const other = await fitSpectralMap(corpus(count, 40, 2));
      texts.forEach((text, i) => {
        expect(distance(mapped[i]!, byFormula(map, text))).toBeLessThan(1e-6);
        expect(distance(mapped[i]!, byFormula(other, text))).toBeGreaterThan(1e-3); // control: another context
      });
    },
  );

  test("the inner products of J vectors give the same W as their covariance", async () => {
    const vectors = corpus(24, 40);
    // Every vector twice changes neither mean nor covariance, and 48 vectors take the covariance's way.
    const [few, twice] = await Promise.all([fitSpectralMap(vectors), fitSpectralMap([...vectors, ...vectors])]);
    expect(distance(few.weights(), twice.weights())).toBeLessThan(1e-12);
    expect(few.spectrum.rank).toBe(23);
    expect(twice.spectrum.rank).toBe(23);
  });

  test.each([12, 200])(
    "gives a text the same bits alone, in any batch and packed (%i context vectors)",
    async (count) => {
      const map = await fitSpectralMap(corpus(count, 40));
      const texts = corpus(131, 40, 5); // two blocks of 64 and a rest of 3
      const all = map.apply(texts);
      expect([0, 1, 63, 64, 130].map((i) => map.apply([texts[i]!])[0])).toEqual([0, 1, 63, 64, 130].map((i) => all[i]));
      const packed = map.applyRows(Float32Array.from(texts.flatMap((text) => [...text])));
      expect(packed).toEqual(Float32Array.from(all.flatMap((vector) => [...vector])));
      for (const vector of all) expect(Math.hypot(...vector)).toBeCloseTo(1, 6);
    },
  );

  test("in turns gives the same bits, leaves the event loop a turn every 256 vectors, and stops when aborted", async () => {
    const vectors = corpus(1100, 24);
    const map = await fitSpectralMap(vectors.slice(0, 40));
    let turns = 0;
    let done = false;
    const count = () => {
      turns++;
      if (!done) setImmediate(count);
    };
    setImmediate(count);
    const mapped = await map.applyInTurns(vectors);
    done = true;
    expect(turns).toBeGreaterThanOrEqual(4);
    expect(mapped).toEqual(map.apply(vectors));
    const reason = new Error("enough");
    const controller = new AbortController();
    setImmediate(() => controller.abort(reason));
    await expect(map.applyInTurns(vectors, controller.signal)).rejects.toBe(reason);
  });

  test("off gives copies, bit for bit, and saves as off", async () => {
    const map = await fitSpectralMap(corpus(50, 8), { strength: "off" });
    const texts = corpus(3, 8, 3);
    const mapped = map.apply(texts);
    expect(mapped).toEqual(texts);
    expect(mapped[0]).not.toBe(texts[0]);
    expect(SpectralMap.fromTensors(map.toTensors()).strength).toBe("off");
  });

  test("one context vector: W is the identity and only the mean acts", async () => {
    const [context, text] = corpus(2, 8) as [Float32Array, Float32Array];
    const map = await fitSpectralMap([context], { strength: { a: 1, s: 0.1, b: 0.5 } });
    expect(map.degenerate).toBe(false);
    expect([...map.eigenvalues]).toEqual(Array(8).fill(0));
    const expected = unit(text.map((value, i) => value - 0.5 * context[i]!));
    expect(distance(map.apply([text])[0]!, expected)).toBeLessThan(1e-7);
  });

  test.each([3, 1000])("%i identical context vectors act like one and are reported", async (count) => {
    const [context, text] = corpus(2, 8) as [Float32Array, Float32Array];
    const map = await fitSpectralMap(Array<Float32Array>(count).fill(context));
    expect(map.degenerate).toBe(true);
    const one = await fitSpectralMap([context]);
    expect(distance(map.apply([text])[0]!, one.apply([text])[0]!)).toBeLessThan(1e-7);
  });

  test("differences at the level of float32 rounding are no spread", async () => {
    const context = corpus(1, 8)[0]!;
    const vectors = Array.from({ length: 100 }, (_, j) =>
      context.map((value, i) => (i === j % 8 ? value * (1 + 1e-7) : value)),
    );
    expect((await fitSpectralMap(vectors)).degenerate).toBe(true);
    const visible = vectors.map((vector, j) => unit(vector.map((value, i) => (i === j % 8 ? value + 1e-4 : value))));
    expect((await fitSpectralMap(visible)).degenerate).toBe(false); // control
  });

  test("a corpus of near-duplicates by the thousand and a constant dimension stays finite", async () => {
    const vectors = corpus(20, 16).map((vector) => unit(vector.map((value, i) => (i === 3 ? 0 : value))));
    const many = Array.from({ length: 3000 }, (_, j) => vectors[j < 2900 ? 0 : j % 20]!);
    const map = await fitSpectralMap(many);
    expect(map.eigenvalues.at(-1)).toBe(0);
    const text = corpus(1, 16, 9)[0]!;
    expect(distance(map.apply([text])[0]!, byFormula(map, text))).toBeLessThan(1e-6);
  });

  test("another strength for the same spectrum gives another map without a fit", async () => {
    const vectors = corpus(60, 12);
    const map = await fitSpectralMap(vectors);
    const strength = { a: 0.7, s: 0.1, b: 0.2 };
    const text = corpus(1, 12, 4);
    const again = new SpectralMap(map.spectrum, { strength }).apply(text);
    expect(again).toEqual((await fitSpectralMap(vectors, { strength })).apply(text));
    expect(distance(again[0]!, map.apply(text)[0]!)).toBeGreaterThan(1e-2);
  });

  test("takes another implementation of the product: one square matrix, or two thin ones where that is less work", async () => {
    const shapes = async (count: number) => {
      const seen: number[][] = [];
      const rowProduct: typeof simdRowProduct = (matrix, inner, outer) => {
        seen.push([inner, outer]);
        return simdRowProduct(matrix, inner, outer);
      };
      const map = await fitSpectralMap(corpus(count, 12), { rowProduct });
      for (let i = 0; i < 2; i++) map.apply(corpus(1, 12, 4)); // made once
      return seen;
    };
    expect(await shapes(60)).toEqual([[12, 12]]);
    expect(await shapes(7)).toEqual([[12, 12]]); // rank 6
    expect(await shapes(6)).toEqual([
      [12, 5],
      [5, 12],
    ]); // 2 · 5 · 12 < 12²
  });

  test("refuses to map e = b m, which has no direction left, by its position", async () => {
    const context = corpus(1, 8)[0]!;
    const map = await fitSpectralMap([context], { strength: { a: 0.35, s: 0.3, b: 1 } });
    const texts = [...corpus(70, 8, 3), context];
    expect(() => map.apply(texts)).toThrow(
      expect.objectContaining({
        code: "INVALID_INPUT",
        position: 70,
        message: expect.stringMatching(/vector 70 is 1 times the context's mean/),
      }),
    );
  });

  test.each([
    ["NaN", Float32Array.of(Number.NaN, 0), /vector 1 has NaN in dimension 0/],
    ["a zero vector", new Float32Array(2), /vector 1 is zero/],
    ["another dimension", Float32Array.of(1), /vector 1 has 1 dimensions, expected 2/],
    ["another length", Float32Array.of(1, 1), /vector 1 has length 1.41421, expected 1/],
  ])("refuses to map %s", async (_, vector, message) => {
    const map = await fitSpectralMap([Float32Array.of(1, 0), Float32Array.of(0, 1)]);
    expect(() => map.apply([Float32Array.of(0.6, 0.8), vector])).toThrow(
      expect.objectContaining({ position: 1, message: expect.stringMatching(message) }),
    );
    expect(() => map.applyRows(new Float32Array(3))).toThrow(/3 numbers don't divide into rows of 2/);
  });

  test.each([
    [{ a: -0.1, s: 0.3, b: 0.5 }, /strength a is -0.1/],
    [{ a: 0.35, s: 0, b: 0.5 }, /strength s is 0, expected a number above 0/],
    [{ a: 0.35, s: 0.3, b: Number.NaN }, /strength b is NaN/],
  ])("refuses the strength %j before reading a vector", async (strength, message) => {
    await expect(fitSpectralMap([], { strength })).rejects.toThrow(message);
  });
});

describe("tensors", () => {
  test.each([1, 6, 60])("bring back the same map, to the bit (%i context vectors)", async (count) => {
    const map = await fitSpectralMap(corpus(count, 12));
    const back = SpectralMap.fromTensors(map.toTensors());
    expect(back.strength).toEqual(map.strength);
    expect(back.spectrum).toEqual(map.spectrum);
    const texts = corpus(4, 12, 8);
    expect(back.apply(texts)).toEqual(map.apply(texts));
  });

  test("are copies", async () => {
    const map = await fitSpectralMap(corpus(6, 12));
    map.toTensors().mean!.data.fill(9);
    expect(map.mean[0]).not.toBe(9);
  });

  const f64 = (shape: number[], data: number[]): FloatTensor => ({
    dtype: "float64",
    shape,
    data: Float64Array.from(data),
  });
  const good = {
    count: f64([1], [2]),
    mean: f64([2], [0.5, 0.5]),
    eigenvalues: f64([2], [2, 0]),
    basis: f64([1, 2], [0.6, 0.8]),
    strength: f64([3], [0.35, 0.3, 0.5]),
  };
  test.each<[string, Record<string, FloatTensor | undefined>, RegExp]>([
    ["a missing tensor", { mean: undefined }, /"mean" is missing, expected float64\[any\]/],
    [
      "a wrong dtype",
      { mean: { ...good.mean, dtype: "float32" as "float64" } },
      /"mean" is float32\[2\] with 2 numbers/,
    ],
    [
      "a wrong shape",
      { eigenvalues: f64([3], [3, 0, 0]) },
      /"eigenvalues" is float64\[3\] with 3 numbers, expected float64\[2\]/,
    ],
    ["data that the shape doesn't hold", { basis: f64([1, 2], [1]) }, /"basis" is float64\[1, 2\] with 1 numbers/],
    ["NaN", { mean: f64([2], [0, Number.NaN]) }, /"mean" has NaN at 1/],
    ["half a count", { count: f64([1], [1.5]) }, /"count" is 1.5/],
    ["ascending eigenvalues", { eigenvalues: f64([2], [0, 2]) }, /isn't descending/],
    ["a negative eigenvalue", { eigenvalues: f64([2], [3, -1]) }, /isn't descending and at least 0/],
    ["unscaled eigenvalues", { eigenvalues: f64([2], [1, 0]) }, /has mean 0.5, expected 1/],
    ["too few vectors", { basis: f64([0, 2], []) }, /has 0 vectors, expected one for each of 1/],
    ["a vector that isn't of unit length", { basis: f64([1, 2], [3, 4]) }, /has a vector 0 of length 5/],
    ["a strength out of range", { strength: f64([3], [0.35, 0, 0.5]) }, /strength s is 0/],
  ])("refuse %s", (_, change, message) => {
    expect(Spectrum.fromTensors(good).rank).toBe(1); // control
    const altered = Object.fromEntries(
      Object.entries({ ...good, ...change }).filter(([, tensor]) => tensor !== undefined),
    ) as Record<string, FloatTensor>;
    expect(() => SpectralMap.fromTensors(altered)).toThrow(message);
  });
});

import { describe, expect, test } from "vitest";
import { add, type Float, input, matMul, storedTensor, transposeLast } from "../graph/index.js";
import { dynamicQuantizedLinear, quantizedRows, rowQuantizedLinear } from "../graph/ops/quantized.js";
import { encodeModel } from "../onnx/encode.js";
import { Runtime, type TensorData } from "../runtime/runtime.js";
import { quantizedView, quantizeRows, type WeightSource } from "./quantize.js";

describe("quantizeRows", () => {
  test("gives each row the scale of its own largest entry", () => {
    // Row 1: 127/254 = 0.5 a step, so 1 is 2 steps. Row 2: 1 a step. Row 3 has nothing to scale.
    const { values, scales } = quantizeRows(Float32Array.of(63.5, 1, -0.2, -127, 2.6, 0, 0, 0, 0), 3, "w");
    expect([...scales]).toEqual([0.5, 1, 0]);
    expect([...values]).toEqual([127, 2, 0, -127, 3, 0, 0, 0, 0]);
  });

  test("is never off by more than half a step, and uses the whole range", () => {
    const matrix = Float32Array.from({ length: 7 * 33 }, (_, i) => Math.sin(i * i) * 10 ** ((i % 7) - 3));
    const { values, scales } = quantizeRows(matrix, 7, "w");
    for (let row = 0; row < 7; row++) {
      const entries = values.subarray(row * 33, row * 33 + 33);
      expect(Math.max(...entries.map(Math.abs))).toBe(127);
      entries.forEach((value, i) => {
        expect(Math.abs(value * scales[row]! - matrix[row * 33 + i]!)).toBeLessThanOrEqual(scales[row]! * 0.5001);
      });
    }
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])("refuses %d by row and name", (bad) => {
    expect(() => quantizeRows(Float32Array.of(1, 2, 3, bad), 2, "encoder.w")).toThrow("row 1 of encoder.w");
  });
});

describe("quantizedView", () => {
  const matrix = Float32Array.of(1, 2, 3, 4, 5, 6); // [2, 3]
  let reads = 0;
  const file = {
    path: "model.safetensors",
    tensors: new Map([
      ["m.w.weight", { dtype: "F16", shape: [2, 3], byteLength: 12 }],
      ["m.b", { dtype: "F32", shape: [2], byteLength: 8 }],
    ]),
    read: async () => Float32Array.of(7, 8),
    readFloat32: async (name: string) => {
      reads++;
      return name === "m.b" ? Float32Array.of(7, 8) : matrix;
    },
  } as unknown as WeightSource;
  const parameters = [
    { name: "p/w.weight", dtype: "int8", shape: [2, 3] },
    { name: "p/w.weight_scale", dtype: "float32", shape: [2] },
    { name: "p/b", dtype: "float32", shape: [2] },
  ] as const;

  test("shows int8 matrices with their scales, reads each once, and lets the rest through", async () => {
    reads = 0;
    const view = quantizedView(file, parameters, { prefix: "m.", activations: "row" });
    expect(view.tensors.get("m.w.weight")).toEqual({ dtype: "I8", shape: [2, 3], byteLength: 6 });
    const expected = quantizeRows(matrix, 2, "w");
    expect(await view.readFloat32("m.w.weight_scale")).toEqual(expected.scales);
    expect(await view.read("m.w.weight")).toEqual(expected.values);
    expect(reads).toBe(1);
    expect([...(await view.readFloat32("m.b"))]).toEqual([7, 8]);
  });

  test("turns matrices over where the activations have one scale", async () => {
    const view = quantizedView(file, parameters, { prefix: "m.", activations: "dynamic" });
    expect(view.tensors.get("m.w.weight")?.shape).toEqual([3, 2]);
    const { values } = quantizeRows(matrix, 2, "w");
    // [[a b c], [d e f]] → [[a d], [b e], [c f]]
    expect(await view.read("m.w.weight")).toEqual(Int8Array.from([0, 3, 1, 4, 2, 5], (i) => values[i]!));
  });
});

describe("int8 in the graph", () => {
  const random = (n: number, seed: number) =>
    Float32Array.from({ length: n }, (_, i) => Math.sin((i + 1) * seed * 12.9));
  const float = (shape: number[], data: Float32Array): TensorData => ({ dtype: "float32", shape, data });

  async function run(
    outputs: Record<string, Float>,
    tensors: Record<string, TensorData>,
    feeds: Record<string, TensorData>,
  ): Promise<Record<string, Float32Array>> {
    await using runtime = await Runtime.start();
    const store = runtime.createStore();
    await store.write(tensors);
    const session = await runtime.open(encodeModel(outputs), { weights: store });
    const results = await session.run(feeds);
    return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, data as Float32Array]));
  }

  const [inner, width] = [48, 20];
  const { values, scales } = quantizeRows(random(width * inner, 2), width, "w");
  const x = input("x", "float32", ["n", inner]);
  const weights = storedTensor("w", "int8", [width, inner]);
  const scale = storedTensor("s", "float32", [width]) as Float;
  const tensors: Record<string, TensorData> = {
    w: { dtype: "int8", shape: [width, inner], data: values },
    s: float([width], scales),
  };
  /** What the formula says, in float64: activations to 127 levels of each row's largest entry. */
  const expected = (rows: Float32Array) => {
    const n = rows.length / inner;
    return Array.from({ length: n * width }, (_, at) => {
      const row = rows.subarray(Math.floor(at / width) * inner).subarray(0, inner);
      const largest = Math.max(...row.map(Math.abs));
      const out = at % width;
      return row.reduce((sum, value, k) => {
        const level = largest === 0 ? 0 : Math.round((value / largest) * 127);
        return sum + ((level * largest) / 127) * values[out * inner + k]! * scales[out]!;
      }, 0);
    });
  };

  test("rows of any size are quantised each by itself, zeros stay zeros", async () => {
    const rows = random(5 * inner, 3).map((value, i) => value * [1, 1e-4, 3e4, 0, 1e-20][Math.floor(i / inner)]!);
    const { y } = await run({ y: rowQuantizedLinear(x, weights, scale) }, tensors, { x: float([5, inner], rows) });
    expected(rows).forEach((value, at) => {
      const largest = Math.max(
        ...rows
          .subarray(Math.floor(at / width) * inner)
          .subarray(0, inner)
          .map(Math.abs),
      );
      // A level that falls on a half may round the other way; one level of one entry is worth largest/127 · |w|.
      expect(Math.abs(y![at]! - value)).toBeLessThanOrEqual((largest / 127) * 1.01);
    });
    const alone = await run({ y: rowQuantizedLinear(x, weights, scale) }, tensors, {
      x: float([1, inner], rows.slice(inner, 2 * inner)),
    });
    expect(alone.y).toEqual(y!.slice(width, 2 * width));
  });

  test("control: with one scale for all rows a small row drowns", async () => {
    const turned = new Int8Array(values.length);
    values.forEach((value, i) => {
      turned[(i % inner) * width + Math.floor(i / inner)] = value;
    });
    const rows = random(2 * inner, 3).map((value, i) => (i < inner ? value * 1e4 : value * 1e-2));
    const { y } = await run(
      { y: dynamicQuantizedLinear(x, storedTensor("t", "int8", [inner, width]), scale, undefined) },
      { t: { dtype: "int8", shape: [inner, width], data: turned }, s: tensors.s! },
      { x: float([2, inner], rows) },
    );
    expect([...y!.slice(width)].every((value) => value === 0)).toBe(true);
    const want = expected(rows.slice(0, inner));
    y!.slice(0, width).forEach((value, at) => {
      expect(Math.abs(value - want[at]!)).toBeLessThan(1e4 * 0.3);
    });
  });

  test("look-ups are the rows times their scales", async () => {
    const ids = input("ids", "int32", ["n"]);
    const { rows } = await run({ rows: quantizedRows(weights, scale, ids) }, tensors, {
      ids: { dtype: "int32", shape: [3], data: Int32Array.of(19, 0, 19) },
    });
    [19, 0, 19].forEach((row, i) => {
      const want = values.subarray(row * inner, (row + 1) * inner).map((value) => value) as Int8Array;
      want.forEach((value, k) => {
        expect(rows![i * inner + k]).toBeCloseTo(value * scales[row]!, 6);
      });
    });
  });

  test("the dequantised product is what float32 gives for the same numbers", async () => {
    // One entry a row: its level is exactly 127, so nothing is lost but rounding in float32.
    const rows = new Float32Array(3 * inner);
    [5, 17, 40].forEach((k, row) => {
      rows[row * inner + k] = row - 1.5;
    });
    const w = storedTensor("f", "float32", [width, inner]) as Float;
    const dense = Float32Array.from(values, (value, i) => value * scales[Math.floor(i / inner)]!);
    const { y, z } = await run(
      { y: rowQuantizedLinear(x, weights, scale), z: add(matMul(x, transposeLast(w)), matMul(x, transposeLast(w))) },
      { ...tensors, f: float([width, inner], dense) },
      { x: float([3, inner], rows) },
    );
    y!.forEach((value, at) => {
      expect(2 * value).toBeCloseTo(z![at]!, 5);
    });
  });
});

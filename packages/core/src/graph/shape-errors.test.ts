import { describe, expect, test } from "vitest";
import * as g from "./index.js";
import { input } from "./index.js";

describe("shapes that don't fit", () => {
  const f = (name: string, ...shape: g.Dim[]) => input(name, "float32", shape);

  test.each<[string, () => unknown, string]>([
    ["add", () => g.add(f("a", 2, 3), f("b", 2)), "a is float32[2, 3], b is float32[2]"],
    ["add of two types", () => g.add(f("a", 2), input("b", "float64", [2])), "a is float32[2], b is float64[2]"],
    ["matMul", () => g.matMul(f("a", "B", 768), f("b", 512, 256)), "a is float32[B, 768], b is float32[512, 256]"],
    [
      "matMul of a swapped operand",
      () => g.matMul(f("a", "B", 768), f("b", 768, 256), { transB: 1 }),
      "a is float32[B, 768], b is float32[768, 256], transposed",
    ],
    [
      "gemm's bias",
      () => g.gemm(f("a", 1, 3), f("b", 3, 4), f("c", 5, 4)),
      "float32[5, 4] does not fit a result of [1, 4]",
    ],
    ["reshape", () => g.reshape(f("a", "B", 6), ["B", 4]), "has 6*B elements, [B, 4] has 4*B"],
    ["expand", () => g.expand(f("a", 2), [3]), "float32[2] does not broadcast to [3]"],
    ["transpose", () => g.transpose(f("a", 2, 3), { perm: [0, 0] }), "[0,0] is no permutation"],
    ["concat", () => g.concat([f("a", 2, 3), f("b", 3, 3)], 1), "float32[2, 3], float32[3, 3]"],
    ["concat of two types", () => g.concat([f("a", 2), input("b", "float64", [2])], 0), "float32[2], float64[2]"],
    ["slice past the end", () => g.slice(f("a", 4), { axis: 0, start: 1, end: 5 }), "1 to 5 is not within axis 0"],
    ["slice from the end", () => g.slice(f("a", 4), { axis: 0, start: -1, end: 4 }), "-1 to 4 is not within axis 0"],
    ["pad", () => g.pad(f("a", 4), { axis: 0, before: 1, after: 1, size: 7 }), "1 + 4 + 1 is 6 at axis 0"],
    ["split", () => g.split(f("a", 2, 5), { axis: 1, parts: 2 }), "axis 1 of float32[2, 5] can't be cut into 2"],
    ["reduceSum", () => g.reduceSum(f("a", 2), { axes: [1] }), "axes [1] are outside of float32[2]"],
    ["layerNorm", () => g.layerNorm(f("a", 2, 4), f("gain", 3), undefined, { epsilon: 0.1 }), "gain float32[3]"],
    ["where", () => g.where(input("c", "bool", [3]), f("a", 2), f("b", 2)), "the condition is bool[3]"],
    [
      "scatterAdd",
      () => g.scatterAdd(f("t", 4, 2), input("i", "int64", [3]), f("rows", 2, 2)),
      "rows are float32[2, 2]",
    ],
    ["constant", () => g.constant("float32", [2, 2], [1, 2, 3]), "holds 4 numbers, got 3"],
  ])("%s: the error names both", (_, make, message) => {
    expect(make).toThrow(message);
    expect(make).toThrow(expect.objectContaining({ code: "INVALID_INPUT" }));
  });

  test("a sum over no axes is the value itself, where ONNX would sum over all", () => {
    const a = f("a", 2, 3);
    expect(g.reduceSum(a, { axes: [] })).toBe(a);
  });
});

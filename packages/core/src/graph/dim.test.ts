import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InvalidInputError } from "../errors.js";
import { addDims, broadcastShapes, type Dim, evaluateDim, multiplyDims, parseDim, subtractDims } from "./dim.js";

/** Dimensions as users of the graph make them: names and numbers, added and multiplied to any depth. */
const dims: fc.Arbitrary<Dim> = fc.letrec<{ dim: Dim }>((tie) => ({
  dim: fc.oneof(
    { maxDepth: 4 },
    fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constantFrom("B", "S", "N", "heads_2")),
    fc.array(tie("dim"), { minLength: 1, maxLength: 3 }).map(addDims),
    fc.array(tie("dim"), { minLength: 1, maxLength: 3 }).map(multiplyDims),
  ),
})).dim;
const SIZES = new Map([
  ["B", 3],
  ["S", 7],
  ["N", 11],
  ["heads_2", 2],
]);
const at = (dim: Dim) => evaluateDim(dim, SIZES)!;

describe("dimensions", () => {
  test("sums and products are written in one form", () => {
    expect(addDims([8, "S"])).toBe("(8+S)");
    expect(addDims(["S", 3, 5])).toBe("(8+S)");
    expect(addDims(["(8+S)", 3])).toBe("(11+S)");
    expect(addDims(["S", "S"])).toBe("2*S");
    expect(addDims([2, 3])).toBe(5);
    expect(multiplyDims(["S", "B"])).toBe("B*S");
    expect(multiplyDims([2, "S", 4])).toBe("8*S");
    expect(multiplyDims(["S", 0])).toBe(0);
    expect(multiplyDims([])).toBe(1);
    expect(multiplyDims(["B", "(8+S)"])).toBe("(8*B+B*S)");
    expect(addDims([multiplyDims(["B", 8]), multiplyDims(["S", "B"])])).toBe(multiplyDims(["(S+8)", "B"]));
    expect(subtractDims("(8*B+B*S)", "8*B")).toBe("B*S");
    expect(subtractDims(512, "S")).toBe("(512+-1*S)");
  });

  test("a dimension comes apart into what it was made of", () => {
    expect(parseDim("(8+S)")).toEqual({ operation: "+", parts: [8, "S"] });
    expect(parseDim("B*S")).toEqual({ operation: "*", parts: ["B", "S"] });
    expect(parseDim("(8+S)*(B+1)")).toEqual({ operation: "*", parts: ["(8+S)", "(B+1)"] });
    expect(parseDim("(a+b)+(c+d)")).toEqual({ operation: "+", parts: ["(a+b)", "(c+d)"] });
    expect(parseDim("B*S+1")).toEqual({ operation: "+", parts: ["B*S", 1] });
    expect(parseDim("(B)")).toBe("B");
    expect(parseDim(7)).toBe(7);
    expect(evaluateDim("(8*B+B*S)", SIZES)).toBe(8 * 3 + 3 * 7);
    expect(evaluateDim("(B+missing)", SIZES)).toBeUndefined();
  });

  test("what isn't a dimension is refused", () => {
    for (const text of ["", "2x", "B-1", "1e3", "B S", "B**S"]) {
      expect(() => multiplyDims([text]), text).toThrow(InvalidInputError);
    }
    expect(() => multiplyDims(["(B+S"])).toThrow(/unbalanced/);
  });

  test("broadcasting follows numpy's rule, and a symbol only fits itself or 1", () => {
    expect(broadcastShapes(["B", 1, 4], ["S", 1])).toEqual(["B", "S", 4]);
    expect(broadcastShapes([], [2, 0])).toEqual([2, 0]);
    expect(broadcastShapes([1], [0])).toEqual([0]);
    expect(broadcastShapes(["B"], ["S"])).toBeUndefined();
    expect(broadcastShapes(["B"], [3])).toBeUndefined();
  });

  test("adding, subtracting and multiplying agree with arithmetic for all sizes", () => {
    fc.assert(
      fc.property(dims, dims, (a, b) => {
        expect(at(addDims([a, b]))).toBe(at(a) + at(b));
        expect(at(multiplyDims([a, b]))).toBe(at(a) * at(b));
        expect(at(subtractDims(a, b))).toBe(at(a) - at(b));
      }),
      { seed: 7, numRuns: 300 },
    );
  });

  test("equal dimensions are equal strings: order, grouping and distribution don't matter", () => {
    fc.assert(
      fc.property(dims, dims, dims, (a, b, c) => {
        expect(addDims([a, b])).toBe(addDims([b, a]));
        expect(multiplyDims([a, b])).toBe(multiplyDims([b, a]));
        expect(addDims([a, addDims([b, c])])).toBe(addDims([addDims([a, b]), c]));
        expect(multiplyDims([a, multiplyDims([b, c])])).toBe(multiplyDims([multiplyDims([a, b]), c]));
        expect(multiplyDims([a, addDims([b, c])])).toBe(addDims([multiplyDims([a, b]), multiplyDims([a, c])]));
        expect(subtractDims(addDims([a, b]), b)).toBe(addDims([a]));
        expect(subtractDims(a, a)).toBe(0);
      }),
      { seed: 8, numRuns: 300 },
    );
  });

  test("the canonical form is a fixed point, and putting the parts together again changes nothing", () => {
    fc.assert(
      fc.property(dims, (dim) => {
        expect(addDims([dim])).toBe(dim);
        expect(multiplyDims([dim])).toBe(dim);
        const parsed = parseDim(dim);
        if (typeof parsed === "object") {
          expect((parsed.operation === "+" ? addDims : multiplyDims)(parsed.parts)).toBe(dim);
        }
      }),
      { seed: 9, numRuns: 300 },
    );
  });
});

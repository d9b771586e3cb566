import { expect, test } from "vitest";
import { gradientsOf, input, mul, reduceSum, transpose, transposeLast } from "../graph/index.js";
import { Runtime } from "../runtime/runtime.js";
import { float32, runGraph } from "./golden.test.support.js";
import { firstPositions, rotaryTables, rotate } from "./rotary.js";

test("the gradient of a rotation is the rotation back, also behind a transpose and of any length", async () => {
  await using runtime = await Runtime.start({ threads: 1 });
  // As for keys: transposed before the rotation and after it. ONNX Runtime moves transposes about, also past a Pad.
  const x = input("x", "float32", [1, "L", 2, 4]);
  const weights = input("w", "float32", [1, 2, 4, "L"]);
  const tables = rotaryTables({ positions: 8, width: 4, base: 10, dtype: "float32" });
  const turned = rotate(transpose(x, { perm: [0, 2, 1, 3] }), firstPositions(tables, "L"));
  const loss = reduceSum(mul(transposeLast(turned), weights), { axes: [0, 1, 2, 3] });
  const [gradient] = gradientsOf(loss, [x]) as [typeof x];
  const numbers = Array.from({ length: 24 }, (_, i) => Math.sin(i + 1));
  const feeds = { x: float32([1, 3, 2, 4], numbers), w: float32([1, 2, 4, 3], numbers) };
  const { gradient: found } = await runGraph(runtime, { gradient, loss }, new Map(), feeds);
  // Position 2, head 1, entries 0 and 2: weights w₀ and w₂ turned by −2 (the first frequency is 1).
  const at = (position: number, head: number, entry: number) => Number(found!.data[(position * 2 + head) * 4 + entry]);
  const w = (head: number, position: number, entry: number) => numbers[(head * 4 + entry) * 3 + position]!;
  const [cos, sin] = [Math.cos(2), Math.sin(2)];
  expect(at(2, 1, 0)).toBeCloseTo(w(1, 2, 0) * cos + w(1, 2, 2) * sin, 5);
  expect(at(2, 1, 2)).toBeCloseTo(w(1, 2, 2) * cos - w(1, 2, 0) * sin, 5);
  expect(at(0, 1, 3)).toBeCloseTo(w(1, 0, 3), 6);
});

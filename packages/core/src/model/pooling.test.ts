import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { gelu, input } from "../graph/index.js";
import { encodeModel } from "../onnx/encode.js";
import { Runtime } from "../runtime/runtime.js";
import { publishedWeights } from "./checkpoint.js";
import { float32, goldenBackbone, goldenJson, runGraph } from "./golden.test.support.js";
import { GraphWeights } from "./graph-weights.js";
import type { JsonObject } from "./json-file.js";
import { pool } from "./pooling.js";
import { PRESETS, softPrompt } from "./two-stage.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

describe("the mean of a text's tokens (check 4)", () => {
  const hidden = input("hidden", "float32", ["B", "S", 2]);
  const mask = input("mask", "float32", ["B", "S"]);
  const mean = (rows: readonly number[][], ones: readonly number[]) =>
    runGraph(runtime, { mean: pool("mean", hidden, mask) }, new Map(), {
      hidden: float32([1, rows.length, 2], rows.flat()),
      mask: float32([1, rows.length], ones),
    }).then(({ mean: found }) => [...(found!.data as Float32Array)]);

  test("is not changed by padding, whatever stands there", async () => {
    const tokens = [
      [1, 5],
      [2, 7],
      [6, 0],
    ];
    expect(await mean(tokens, [1, 1, 1])).toEqual([3, 4]); // (1 + 2 + 6)/3, (5 + 7 + 0)/3
    expect(await mean([...tokens, [100, -100], [3, 3]], [1, 1, 1, 0, 0])).toEqual([3, 4]);
    expect(await mean([...tokens, [100, -100]], [1, 1, 1, 1])).not.toEqual([3, 4]);
  });

  test("of no tokens is zero", async () => {
    expect(await mean([[1, 5]], [0])).toEqual([0, 0]);
  });
});

test("GELU is the exact one, and the approximation differs (check 3)", async () => {
  const { gelu: golden } = goldenJson<{ gelu: Record<string, number> }>("golden.json");
  const points = Object.keys(golden).map(Number);
  const x = input("x", "float32", ["N"]);
  const outputs = { exact: gelu(x, "erf"), approximate: gelu(x, "tanh") };
  const found = await runGraph(runtime, outputs, new Map(), { x: float32([points.length], points) });
  points.forEach((point, i) => {
    expect(Number(found.exact!.data[i])).toBeCloseTo(golden[String(point)]!, 6);
    expect(Math.abs(Number(found.approximate!.data[i]) - golden[String(point)]!)).toBeGreaterThan(1e-5);
  });
});

test("the soft prompt depends on no input, so it is one for all texts and contexts (check 9)", () => {
  const { config } = goldenJson<{ config: { backbone: JsonObject } }>("cde-v2/fixture.json");
  const backbone = goldenBackbone("modernbert", config.backbone);
  const prompt = softPrompt(
    { firstStage: backbone, secondStage: backbone, contextDocuments: 4, tokensPerDocument: 1, path: PRESETS.v2 },
    publishedWeights(new GraphWeights()),
  );
  expect(encodeModel({ prompt }).inputs).toEqual([]);
  expect(prompt.shape).toEqual([8, 32]);
});

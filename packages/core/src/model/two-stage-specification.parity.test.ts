/** Both stages against golden.json: the specification's own float64 model, whose weights are drawn by name. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Int, input } from "../graph/index.js";
import { fnv1a32, mulberry32 } from "../random.js";
import { Runtime, type TensorData } from "../runtime/runtime.js";
import type { BackboneConfig } from "./backbone-config.js";
import { publishedWeights } from "./checkpoint.js";
import { difference, float32, goldenJson, int32, rows, runGraph } from "./golden.test.support.js";
import { GraphWeights } from "./graph-weights.js";
import {
  contextPrefix,
  firstStage,
  PRESETS,
  type SecondStagePath,
  secondStage,
  softPrompt,
  type TwoStageConfig,
} from "./two-stage.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

const T = PRESETS["v1-train"];
const H = PRESETS["v1-hub"];
const V2 = PRESETS.v2;
/** The token of ":" in golden.json. */
const COLON = 3;

const ids = input("ids", "int32", ["B", "S"]) as Int;
const mask = input("mask", "float32", ["B", "S"]);

type Texts = { readonly ids: TensorData; readonly mask: TensorData };

function configOf(backbone: BackboneConfig, path: SecondStagePath, contextDocuments: number): TwoStageConfig {
  return { firstStage: backbone, secondStage: backbone, contextDocuments, tokensPerDocument: 1, path };
}

/** Texts with `count` more places of padding. */
function padded({ ids: tokens, mask: ones }: Texts, count: number): Texts {
  const [batch, length] = tokens.shape as [number, number];
  const longer = (data: ArrayLike<unknown>) =>
    Array.from({ length: batch * (length + count) }, (_, i) => {
      const at = i % (length + count);
      return at < length ? Number(data[Math.floor(i / (length + count)) * length + at]) : 0;
    });
  const shape = [batch, length + count];
  return { ids: int32(shape, longer(tokens.data)), mask: float32(shape, longer(ones.data)) };
}

/** Row 0 of the inputs with its tokens between [CLS] and [SEP] in reverse. */
function reversed({ ids: tokens, mask: ones }: Texts): Texts {
  const data = Int32Array.from(tokens.data as Int32Array);
  const inner = data.subarray(1, tokens.shape[1]! - 1);
  inner.reverse();
  return { ids: { ...tokens, data }, mask: ones };
}

/** Portable weights of golden.json: drawn by name, so that no file is needed. */
function portableWeight({ name, shape }: { name: string; shape: readonly unknown[] }): TensorData {
  const dims = shape as number[];
  const plain = name.replace(/^p\//, "");
  const random = mulberry32(fnv1a32(plain));
  const spread = Math.sqrt(3 / dims.at(-1)!);
  const values = Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => {
    const u = 2 * random() - 1;
    if (plain.includes("embeddings.weight")) return u;
    if (dims.length === 2) return u * spread;
    return plain.endsWith("bias") ? 0.1 * u : 1 + 0.1 * u;
  });
  return float32(dims, values);
}

interface PortableRun {
  readonly output: number[][];
  readonly pooled: number[][];
  readonly layer_last_row0_text: number[][];
  readonly max_change_when_context_permuted: number;
  readonly max_change_row0_when_text_tokens_reversed: number;
}

describe("golden.json: the specification's own float64 model", () => {
  const golden = goldenJson<{
    inputs: { context_ids: number[][]; context_mask: number[][]; ids: number[][]; mask: number[][] };
    nomic: { context_embeddings: number[][]; soft_prompt: number[][] } & Record<string, PortableRun>;
    modernbert: { context_embeddings: number[][]; soft_prompt: number[][] } & Record<string, PortableRun>;
  }>("golden.json");
  const matrix = (values: readonly number[][]) => float32([values.length, values[0]!.length], values.flat());
  const integers = (values: readonly number[][]) => int32([values.length, values[0]!.length], values.flat());
  const texts = { ids: integers(golden.inputs.ids), mask: matrix(golden.inputs.mask) };
  const contexts = { ids: integers(golden.inputs.context_ids), mask: matrix(golden.inputs.context_mask) };
  const common = { hiddenSize: 32, heads: 4, vocabularySize: 64, maxPositions: 64 };
  const nomic = {
    ...common,
    architecture: "nomic-bert",
    layers: 2,
    intermediateSize: 256,
    typeVocabularySize: 2,
    rotaryBase: 1000,
    layerNormEpsilon: 1e-12,
  } as const;
  const modern = {
    ...common,
    architecture: "modernbert",
    layers: 4,
    intermediateSize: 48,
    localAttention: 8,
    globalEveryLayers: 3,
    globalRotaryBase: 160_000,
    localRotaryBase: 10_000,
    layerNormEpsilon: 1e-5,
  } as const;

  const cases: [string, "nomic" | "modernbert", string, SecondStagePath][] = [
    ["checks 11, 12", "nomic", "T", T],
    ["check 13", "nomic", "H", H],
    ["check 18", "nomic", "T_residual", { ...T, residual: true }],
    ["check 17", "modernbert", "M", { ...V2, residual: false, skipPrompt: false }],
    ["check 17", "modernbert", "M_residual", { ...V2, skipPrompt: false }],
    ["check 17", "modernbert", "M_residual_prefixmask", V2],
  ];

  test.each(cases)("%s: %s %s agrees from context ids to vectors", async (_, kind, name, path) => {
    const config = configOf(kind === "nomic" ? nomic : modern, path, 6);
    const expected = golden[kind][name] as PortableRun;
    const run = (graph: Parameters<typeof runGraph>[1], feeds: Record<string, TensorData>) =>
      runGraph(runtime, graph, portableWeight, feeds);
    const parts = publishedWeights(new GraphWeights());
    const { vectors: context } = await run(firstStage(config, parts, { ids, mask }), contexts);
    expect(difference(context!, matrix(golden[kind].context_embeddings))).toBeLessThanOrEqual(1e-5);

    const second = async (changes: Record<string, TensorData> = {}) => {
      const prefix = contextPrefix(config, parts, { context: input("context", "float32", [6, 32]) });
      const graph = {
        ...secondStage(config, parts, { ids, mask, prefix, promptEnd: COLON }),
        prompt: softPrompt(config, parts),
      };
      return run(graph, { ...texts, context: context!, ...changes });
    };
    const found = await second();
    expect(difference(found.prompt!, matrix(golden[kind].soft_prompt))).toBeLessThanOrEqual(1e-5);
    expect(difference(found.pooled!, matrix(expected.pooled))).toBeLessThanOrEqual(1e-5);
    expect(difference(found.vectors!, matrix(expected.output))).toBeLessThanOrEqual(1e-5);

    // Check 14: the order of the context.
    const order = [3, 0, 5, 1, 4, 2];
    const permuted = float32(
      [6, 32],
      order.flatMap((row) => [...(rows(context!, row, row + 1).data as Float32Array)]),
    );
    const moved = difference((await second({ context: permuted })).vectors!, found.vectors!);
    if (path.contextHasOrder) expect(moved).toBeCloseTo(expected.max_change_when_context_permuted, 4);
    else expect(moved).toBeLessThanOrEqual(1e-6);
    const replaced = float32(
      [6, 32],
      (context!.data as Float32Array).map((value) => -value),
    );
    expect(difference((await second({ context: replaced })).vectors!, found.vectors!)).toBeGreaterThan(1e-2);

    // Check 15: the order of the text. Row 0 only.
    const backwards = reversed({ ids: rows(texts.ids, 0, 1), mask: rows(texts.mask, 0, 1) });
    const turned = difference((await second({ ...backwards })).vectors!, rows(found.vectors!, 0, 1));
    expect(turned).toBeCloseTo(expected.max_change_row0_when_text_tokens_reversed, 4);

    // Check 16: padding.
    const longer = await second({ ...padded(texts, 3) });
    expect(difference(longer.vectors!, found.vectors!)).toBeLessThanOrEqual(1e-6);
  });

  test("residual − no residual = pooled, and with a zero head the output is pooled (check 18)", async () => {
    const parts = publishedWeights(new GraphWeights());
    const vectorsOf = async (residual: boolean, zeroHead = false) => {
      const config = configOf(modern, { ...V2, residual }, 6);
      const prefix = contextPrefix(config, parts, { context: input("context", "float32", [6, 32]) });
      const context = float32(
        [6, 32],
        Array.from({ length: 192 }, (_, i) => Math.sin(i)),
      );
      return runGraph(
        runtime,
        secondStage(config, parts, { ids, mask, prefix, promptEnd: COLON }),
        (port) => {
          const tensor = portableWeight(port);
          return zeroHead && port.name.includes("output_projection")
            ? float32(tensor.shape, new Float32Array(tensor.data.length))
            : tensor;
        },
        { ...texts, context },
      );
    };
    const [residual, without, zero] = [await vectorsOf(true), await vectorsOf(false), await vectorsOf(true, true)];
    const [a, b] = [residual.vectors!.data as Float32Array, without.vectors!.data as Float32Array];
    expect(
      difference(
        float32(
          residual.vectors!.shape,
          a.map((value, i) => value - b[i]!),
        ),
        residual.pooled!,
      ),
    ).toBeLessThanOrEqual(1e-6);
    expect(difference(zero.vectors!, zero.pooled!)).toBe(0);
    expect(difference(residual.vectors!, residual.pooled!)).toBeGreaterThan(0.01);
  });
});

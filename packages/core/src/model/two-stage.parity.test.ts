/** Both stages against the authors' classes: v1 as trained and as on the hub, v2, and the mistakes that one makes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Int, input } from "../graph/index.js";
import { Runtime, type TensorData } from "../runtime/runtime.js";
import { publishedWeights } from "./checkpoint.js";
import {
  asMask,
  difference,
  float32,
  goldenBackbone,
  goldenJson,
  goldenTensors,
  int32,
  rows,
  runGraph,
} from "./golden.test.support.js";
import { EXACT, GraphWeights, type NumericForm } from "./graph-weights.js";
import type { JsonObject } from "./json-file.js";
import { poolSegments, segmentWeights } from "./pooling.js";
import {
  contextPrefix,
  contextTokens,
  firstStage,
  maskAfterPrompt,
  PRESETS,
  prefixTokens,
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
/** The fixtures' tokenizer has the colon at 3. */
const COLON = 3;

const ids = input("ids", "int32", ["B", "S"]) as Int;
const mask = input("mask", "float32", ["B", "S"]);
const segments = input("segments", "float32", ["B", 2, "S"]);

type Weights = ReadonlyMap<string, TensorData>;

function load(folder: string, type: "nomic_bert" | "modernbert") {
  const fixture = goldenJson<{ config: { backbone: JsonObject }; tolerance_abs: number }>(`${folder}/fixture.json`);
  const expected = goldenTensors(`${folder}/expected.safetensors`);
  return {
    backbone: goldenBackbone(type, fixture.config.backbone),
    tolerance: fixture.tolerance_abs,
    expected: (name: string) => expected.get(name)!,
    /** ids and mask of "doc", "query" and so on, as feeds. */
    texts: (name: string) => ({ ids: expected.get(`${name}_ids`)!, mask: asMask(expected.get(`${name}_mask`)!) }),
  };
}
type Texts = { readonly ids: TensorData; readonly mask: TensorData };

const stage1 = { ...load("cde-v1-stage1", "nomic_bert"), weights: goldenTensors("cde-v1-stage1/weights.safetensors") };
const v1 = { ...load("cde-v1-stage2", "nomic_bert"), weights: goldenTensors("cde-v1-stage2/weights.safetensors") };
const v2 = { ...load("cde-v2", "modernbert"), weights: goldenTensors("cde-v2/weights.safetensors") };

function configOf(
  backbone: TwoStageConfig["firstStage"],
  path: SecondStagePath,
  contextDocuments: number,
): TwoStageConfig {
  return { firstStage: backbone, secondStage: backbone, contextDocuments, tokensPerDocument: 1, path };
}

interface SecondRun {
  readonly texts: Texts;
  readonly context: TensorData;
  readonly dropped?: TensorData;
}

/** The second stage on golden weights, context vectors and texts. */
function runSecond(config: TwoStageConfig, weights: Weights, { texts, context, dropped }: SecondRun) {
  const parts = publishedWeights(new GraphWeights());
  const prefix = contextPrefix(config, parts, {
    context: input("context", "float32", context.shape),
    ...(dropped && { dropped: input("dropped", "float32", ["B", contextTokens(config)]) }),
  });
  const outputs = {
    ...secondStage(config, parts, { ids, mask, prefix, promptEnd: COLON }),
    prompt: softPrompt(config, parts),
  };
  return runGraph(runtime, outputs, weights, { ...texts, context, ...(dropped && { dropped }) });
}

function runFirst(config: TwoStageConfig, weights: Weights, texts: Texts, form: NumericForm = EXACT) {
  return runGraph(runtime, firstStage(config, publishedWeights(new GraphWeights(form)), { ids, mask }), weights, {
    ...texts,
  });
}

/** Context vectors in another order. */
function shuffled(context: TensorData): TensorData {
  const [count] = context.shape as [number];
  const order = Array.from({ length: count }, (_, i) => (i * 3 + 1) % count); // 3 is coprime to 4 and 8
  return float32(
    context.shape,
    order.flatMap((row) => [...(rows(context, row, row + 1).data as Float32Array)]),
  );
}

describe("cde-v1, first stage", () => {
  const config = configOf(stage1.backbone, T, 4);
  const { tolerance, expected } = stage1;

  test("hidden states, means and context vectors are the reference's", async () => {
    const texts = stage1.texts("context");
    const { hidden, pooled, vectors } = await runFirst(config, stage1.weights, texts);
    expect(difference(hidden!, expected("last_hidden_state"), texts.mask)).toBeLessThanOrEqual(tolerance);
    expect(difference(pooled!, expected("mean_pooled"))).toBeLessThanOrEqual(tolerance);
    expect(difference(vectors!, expected("context_vectors"))).toBeLessThanOrEqual(tolerance);
  });

  test("the head with the approximate GELU, no head, and unit vectors differ", async () => {
    const texts = stage1.texts("context");
    const { vectors, pooled } = await runFirst(config, stage1.weights, texts, { ...EXACT, gelu: "tanh" });
    expect(difference(vectors!, expected("context_vectors"))).toBeGreaterThan(10 * tolerance);
    expect(difference(pooled!, expected("context_vectors"))).toBeGreaterThan(0.1);
    const data = expected("context_vectors").data as Float32Array;
    expect(Math.abs(Math.hypot(...data.subarray(0, 32)) - 1)).toBeGreaterThan(0.1);
  });

  test("two tokens a document are the reference's, and the mean of both isn't either", async () => {
    const texts = stage1.texts("T2");
    const shape = texts.mask.shape as [number, number];
    const weights = segmentWeights(texts.mask.data as Float32Array, shape, 2);
    const graph = firstStage(config, publishedWeights(new GraphWeights()), { ids, mask, segments });
    const feeds = { ...texts, segments: float32([shape[0], 2, shape[1]], weights) };
    const { vectors } = await runGraph(runtime, graph, stage1.weights, feeds);
    expect(difference(vectors!, expected("T2_context_vectors"))).toBeLessThanOrEqual(tolerance);
    const whole = await runFirst(config, stage1.weights, texts);
    const twice = [...(whole.vectors!.data as Float32Array)];
    const repeated = Array.from({ length: 4 }, (_, i) => [
      ...twice.slice(32 * i, 32 * i + 32),
      ...twice.slice(32 * i, 32 * i + 32),
    ]);
    expect(difference(float32([4, 2, 32], repeated.flat()), expected("T2_context_vectors"))).toBeGreaterThan(0.1);
  });
});

test("segments without tokens are the mean of the whole padded text (check 5)", async () => {
  const { mean_pool_3d: golden } = goldenJson<{
    mean_pool_3d: { in: number[][][]; mask: number[][]; out: number[][][] };
  }>("golden.json");
  const weights = segmentWeights(golden.mask[0]!, [1, 8], 4);
  const hidden = golden.in[0]!;
  const means = Array.from({ length: 4 }, (_, segment) =>
    [0, 1].map((entry) => hidden.reduce((sum, row, at) => sum + weights[segment * 8 + at]! * row[entry]!, 0)),
  );
  expect(means).toEqual(golden.out[0]);
  // In the graph padding counts as zero, as in the class that gives zeros there: 22 tokens of 8 places.
  const graph = {
    means: poolSegments(input("hidden", "float32", ["B", "S", 2]), mask, input("w", "float32", ["B", 4, "S"])),
  };
  const feeds = {
    hidden: float32([1, 8, 2], hidden.flat()),
    mask: float32([1, 8], golden.mask[0]!),
    w: float32([1, 4, 8], weights),
  };
  const { means: found } = await runGraph(runtime, graph, new Map(), feeds);
  expect([...(found!.data as Float32Array)]).toEqual([1, 2, 4, 5, 0.75, 1.125, 0.75, 1.125]);
});

describe.each([
  ["T", T],
  ["H", H],
  ["T_residual", { ...T, residual: true }],
] as const)("cde-v1, second stage, path %s", (name, path) => {
  const { tolerance, expected, weights } = v1;
  const vectorsOf = async (config: TwoStageConfig, run: SecondRun) => (await runSecond(config, weights, run)).vectors!;

  test.each([4, 8])("documents, queries and dropped contexts are the reference's with %i contexts", async (count) => {
    const config = configOf(v1.backbone, path, count);
    const context = rows(expected("context_vectors"), 0, count);
    const key = `${name}/J${count}`;
    const query = v1.texts("query");
    const document = await vectorsOf(config, { texts: v1.texts("doc"), context });
    expect(difference(document, expected(`${key}/doc`))).toBeLessThanOrEqual(tolerance);
    const plain = await vectorsOf(config, { texts: query, context });
    expect(difference(plain, expected(`${key}/query`))).toBeLessThanOrEqual(tolerance);
    const dropped = asMask(expected(`drop_mask_J${count}`));
    const dropping = await vectorsOf(config, { texts: query, context, dropped });
    expect(difference(dropping, expected(`${key}/query_drop_mask`))).toBeLessThanOrEqual(tolerance);
    const all = float32([3, count], new Float32Array(3 * count).fill(1));
    const none = await vectorsOf(config, { texts: query, context, dropped: all });
    expect(difference(none, expected(`${key}/query_all_null`))).toBeLessThanOrEqual(tolerance);
    expect(difference(none, plain)).toBeGreaterThan(0.1);
  });

  test("hidden states and means before the head are the reference's", async () => {
    const config = configOf(v1.backbone, path, 4);
    const context = rows(expected("context_vectors"), 0, 4);
    const texts = v1.texts("doc");
    const { hidden, pooled, prompt } = await runSecond(config, weights, { texts, context });
    expect(difference(prompt!, expected("soft_prompt"))).toBeLessThanOrEqual(tolerance);
    expect(difference(pooled!, expected(`${name}/J4/doc_pooled`))).toBeLessThanOrEqual(tolerance);
    const [, places, width] = hidden!.shape as [number, number, number];
    expect(places).toBe(prefixTokens(config) + texts.ids.shape[1]!); // check 8
    const first = float32([places, width], (hidden!.data as Float32Array).subarray(0, places * width));
    const seen = float32(
      [places],
      [...Array<number>(12).fill(1), ...(texts.mask.data.subarray(0, 16) as Float32Array)],
    );
    expect(difference(first, expected(`${name}/J4/doc_row0_hidden`), seen)).toBeLessThanOrEqual(tolerance);
  });

  test("another context, and every switch turned the other way, differ", async () => {
    const config = configOf(v1.backbone, path, 4);
    const texts = v1.texts("doc");
    const context = rows(expected("context_vectors"), 0, 4);
    const other = await vectorsOf(config, { texts, context: rows(expected("context_vectors"), 4, 8) });
    expect(difference(other, expected(`${name}/J4/doc`))).toBeGreaterThan(0.01);
    for (const change of ["contextHasOrder", "embedAgain", "residual"] as const) {
      const wrong = configOf(v1.backbone, { ...path, [change]: !path[change] }, 4);
      const vectors = await vectorsOf(wrong, { texts, context });
      expect(difference(vectors, expected(`${name}/J4/doc`)), change).toBeGreaterThan(10 * tolerance);
    }
  });

  test("the order of the context matters where it has one, and nowhere else (check 14)", async () => {
    const config = configOf(v1.backbone, path, 8);
    const texts = v1.texts("doc");
    const context = rows(expected("context_vectors"), 0, 8);
    const change = difference(
      await vectorsOf(config, { texts, context: shuffled(context) }),
      expected(`${name}/J8/doc`),
    );
    if (path.contextHasOrder) expect(change).toBeGreaterThan(1e-2);
    else expect(change).toBeLessThanOrEqual(2e-6);
  });

  test("surplus context vectors are not read, and too few are refused with both numbers (check 10)", async () => {
    const config = configOf(v1.backbone, path, 4);
    const texts = v1.texts("query");
    const surplus = await vectorsOf(config, { texts, context: expected("context_vectors") });
    expect(difference(surplus, expected(`${name}/J4/query`))).toBeLessThanOrEqual(tolerance);
    expect(() => runSecond(config, weights, { texts, context: rows(expected("context_vectors"), 0, 3) })).toThrow(
      "the context is float32[3, 32], the second stage reads 4 vectors of 32",
    );
  });
});

test("two tokens a document: a context of 4 documents is read as 8 vectors, in their order", async () => {
  const config = { ...configOf(v1.backbone, T, 4), tokensPerDocument: 2 };
  const vectors = v1.expected("T2_context_vectors");
  const context = { ...vectors, shape: [8, 32] };
  const run = { texts: v1.texts("query"), context };
  const { vectors: found } = await runSecond(config, v1.weights, run);
  expect(difference(found!, v1.expected("T2_query"))).toBeLessThanOrEqual(v1.tolerance);
  const { vectors: wrong } = await runSecond(configOf(v1.backbone, T, 4), v1.weights, run);
  expect(difference(wrong!, v1.expected("T2_query"))).toBeGreaterThan(0.01);
});

describe("cde-v2", () => {
  const { tolerance, expected, weights } = v2;
  const variants = [
    ["residual_prefixmask", V2],
    ["residual", { ...V2, skipPrompt: false }],
    ["plain", { ...V2, skipPrompt: false, residual: false }],
  ] as const;

  test("the first stage's context vectors are the reference's", async () => {
    const { vectors } = await runFirst(configOf(v2.backbone, V2, 4), weights, v2.texts("context"));
    expect(difference(vectors!, expected("context_vectors"))).toBeLessThanOrEqual(tolerance);
  });

  test.each(variants)("%s: documents and queries are the reference's with 4 and 8 contexts", async (name, path) => {
    for (const count of [4, 8]) {
      const config = configOf(v2.backbone, path, count);
      const context = rows(expected("context_vectors"), 0, count);
      for (const kind of ["doc", "query"]) {
        const { vectors, prompt } = await runSecond(config, weights, { texts: v2.texts(kind), context });
        expect(difference(prompt!, expected("soft_prompt"))).toBeLessThanOrEqual(tolerance);
        const figure = difference(vectors!, expected(`${name}/J${count}/${kind}`));
        expect(figure, `${kind}, ${count} contexts`).toBeLessThanOrEqual(tolerance);
      }
    }
  });

  test.each([4, 8])(
    "dropped contexts, prompt ends and hidden states are the reference's with %i contexts",
    async (count) => {
      const config = configOf(v2.backbone, V2, count);
      const context = rows(expected("context_vectors"), 0, count);
      const key = `residual_prefixmask/J${count}`;
      const query = v2.texts("query");
      const { pooled, hidden } = await runSecond(config, weights, { texts: query, context });
      expect(difference(pooled!, expected(`${key}/query_pooled`))).toBeLessThanOrEqual(tolerance);
      const masks = {
        query_drop_mask: asMask(expected(`drop_mask_J${count}`)),
        query_all_null: float32([3, count], new Float32Array(3 * count).fill(1)),
      };
      for (const [name, dropped] of Object.entries(masks)) {
        const { vectors } = await runSecond(config, weights, { texts: query, context, dropped });
        expect(difference(vectors!, expected(`${key}/${name}`)), name).toBeLessThanOrEqual(tolerance);
      }
      const edge = await runSecond(config, weights, { texts: v2.texts("edge"), context });
      expect(difference(edge.pooled!, expected(`${key}/edge_pooled`))).toBeLessThanOrEqual(tolerance);
      expect(difference(edge.vectors!, expected(`${key}/edge`))).toBeLessThanOrEqual(tolerance);
      if (count === 4) {
        const [, places, width] = hidden!.shape as [number, number, number];
        const first = float32([places, width], (hidden!.data as Float32Array).subarray(0, places * width));
        const seen = float32(
          [places],
          [...Array<number>(12).fill(1), ...(query.mask.data.subarray(0, 12) as Float32Array)],
        );
        expect(difference(first, expected(`${key}/query_row0_hidden`), seen)).toBeLessThanOrEqual(tolerance);
      }
    },
  );

  test("no prompt mask, no residual, one norm instead of two, another or shuffled context differ", async () => {
    const context = rows(expected("context_vectors"), 0, 8);
    const texts = v2.texts("query");
    const reference = expected("residual_prefixmask/J8/query");
    for (const change of ["skipPrompt", "residual", "embedAgain", "contextHasOrder"] as const) {
      const wrong = configOf(v2.backbone, { ...V2, [change]: !V2[change] }, 8);
      const { vectors } = await runSecond(wrong, weights, { texts, context });
      expect(difference(vectors!, reference), change).toBeGreaterThan(10 * tolerance);
    }
    const config = configOf(v2.backbone, V2, 8);
    for (const other of [shuffled(context), rows(expected("context_vectors"), 1, 9)]) {
      const { vectors } = await runSecond(config, weights, { texts, context: other });
      expect(difference(vectors!, reference)).toBeGreaterThan(10 * tolerance);
    }
  });
});

test("pooling begins after the first colon that isn't at position 0 or padding (check 20)", async () => {
  const cases: [ids: number[], mask: number[], pooled: number[]][] = [
    [
      [1, 15, 16, 3, 22, 23, 2],
      [1, 1, 1, 1, 1, 1, 1],
      [0, 0, 0, 0, 1, 1, 1],
    ],
    [
      [1, 15, 16, 5, 22, 23, 2],
      [1, 1, 1, 1, 1, 1, 1],
      [1, 1, 1, 1, 1, 1, 1],
    ],
    [
      [3, 15, 16, 5, 22, 23, 2],
      [1, 1, 1, 1, 1, 1, 1],
      [1, 1, 1, 1, 1, 1, 1],
    ],
    [
      [1, 15, 3, 16, 3, 23, 2],
      [1, 1, 1, 1, 1, 1, 1],
      [0, 0, 0, 1, 1, 1, 1],
    ],
    [
      [1, 15, 16, 2, 0, 3, 0],
      [1, 1, 1, 1, 0, 0, 0],
      [1, 1, 1, 1, 0, 0, 0],
    ],
    [
      [3, 3, 16, 2, 0, 0, 0],
      [1, 1, 1, 1, 0, 0, 0],
      [0, 0, 1, 1, 0, 0, 0],
    ],
  ];
  const graph = { counted: maskAfterPrompt(ids, mask, COLON, 40) };
  const { counted } = await runGraph(runtime, graph, new Map(), {
    ids: int32(
      [cases.length, 7],
      cases.flatMap(([row]) => row),
    ),
    mask: float32(
      [cases.length, 7],
      cases.flatMap(([, row]) => row),
    ),
  });
  expect([...(counted!.data as Float32Array)]).toEqual(cases.flatMap(([, , row]) => row));
});

/** Loss and gradients through both stages against the authors' training step, and other paths that must differ. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Float, gradientsOf, type Int, infoNce, input } from "../graph/index.js";
import { Runtime, type TensorData } from "../runtime/runtime.js";
import { publishedWeights } from "./checkpoint.js";
import {
  asMask,
  difference,
  float32,
  goldenBackbone,
  goldenJson,
  goldenTensors,
  relativeDifference,
  runGraph,
} from "./golden.test.support.js";
import { GraphWeights } from "./graph-weights.js";
import type { JsonObject } from "./json-file.js";
import {
  contextPrefix,
  firstStage,
  PRESETS,
  type SecondStagePath,
  secondStage,
  type TwoStageConfig,
} from "./two-stage.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

/** 1/temperature. */
const LOGIT_SCALE = 50;

interface Step {
  readonly config: TwoStageConfig;
  readonly weights: ReadonlyMap<string, TensorData>;
  readonly feeds: Readonly<Record<string, TensorData>>;
  readonly labels: TensorData;
  readonly duplicate: TensorData;
  /** Names of the parameters whose gradients are wanted. */
  readonly parameters: readonly string[];
}

/** One training step's loss and gradients in one graph; queries and documents read the same context. */
async function runStep({ config, weights, feeds, labels, duplicate, parameters }: Step) {
  const all = new GraphWeights();
  const parts = publishedWeights(all);
  const texts = (name: string, batch: string, length: string) => ({
    ids: input(`${name}Ids`, "int32", [batch, length]) as Int,
    mask: input(`${name}Mask`, "float32", [batch, length]),
  });
  const { vectors: context } = firstStage(config, parts, texts("context", "C", "L"));
  const vectorsOf = (name: string, batch: string, length: string) => {
    const { ids, mask } = texts(name, batch, length);
    const dropped = feeds[`${name}Dropped`] && input(`${name}Dropped`, "float32", [batch, config.contextDocuments]);
    const prefix = contextPrefix(config, parts, { context, ...(dropped && { dropped }) });
    return secondStage(config, parts, { ids, mask, prefix, promptEnd: 3 }).vectors;
  };
  const queryVectors = vectorsOf("query", "Q", "S");
  const documentVectors = vectorsOf("doc", "D", "R");
  const table = (name: string) => input(name, "float32", ["Q", "D"]);
  const loss = infoNce({
    queryVectors,
    documentVectors,
    labels: table("labels"),
    masked: table("duplicate"),
    logitScale: LOGIT_SCALE,
  });
  const targets = {
    grad_e_query: queryVectors,
    grad_e_doc: documentVectors,
    grad_context: context,
    ...Object.fromEntries(parameters.map((name) => [`grad/${name}`, all.parameters.get(name) as Float])),
  };
  const gradients = gradientsOf(loss, Object.values(targets));
  const outputs = Object.fromEntries(Object.keys(targets).map((name, i) => [name, gradients[i]!]));
  return runGraph(runtime, { loss, e_query: queryVectors, e_doc: documentVectors, ...outputs }, weights, {
    ...feeds,
    labels,
    duplicate,
  });
}

function load(folder: string) {
  const tolerance = goldenJson<{ tolerance: { loss: number; gradient_relative_to_largest_entry: number } }>(
    `${folder}/fixture.json`,
  ).tolerance;
  return { tolerance, tensors: goldenTensors(`${folder}/expected.safetensors`) };
}
type Golden = ReturnType<typeof load>;

/** `contextIds` and so on from tensors called `context_ids`. */
function feedsOf({ tensors }: Golden, names: Readonly<Record<string, string>>): Record<string, TensorData> {
  return Object.fromEntries(
    Object.entries(names).flatMap(([feed, name]) => [
      [`${feed}Ids`, tensors.get(`${name}_ids`)!],
      [`${feed}Mask`, asMask(tensors.get(`${name}_mask`)!)],
    ]),
  );
}

function gradientNames({ tensors }: Golden, prefix: string): string[] {
  return [...tensors.keys()].flatMap((name) =>
    name.startsWith(`${prefix}grad/`) ? [name.slice(`${prefix}grad/`.length)] : [],
  );
}

/** Every stored vector, loss and gradient under `prefix` against the step's. */
function expectParity(
  found: Readonly<Record<string, TensorData>>,
  { tensors, tolerance }: Golden,
  prefix: string,
): void {
  const stored = [...tensors.keys()].flatMap((name) => (name.startsWith(prefix) ? [name.slice(prefix.length)] : []));
  const loss = { ...found.loss!, shape: [1] };
  expect(difference(loss, tensors.get(`${prefix}loss`)!)).toBeLessThanOrEqual(tolerance.loss);
  for (const name of stored.filter((entry) => /^e_(query|doc)$/.test(entry)))
    expect(difference(found[name]!, tensors.get(prefix + name)!), name).toBeLessThanOrEqual(1e-4);
  const gradients = stored.filter((entry) => /^grad[/_]/.test(entry));
  expect(gradients.length).toBeGreaterThanOrEqual(3);
  for (const name of gradients) {
    const figure = relativeDifference(found[name]!, tensors.get(prefix + name)!);
    expect(figure, name).toBeLessThanOrEqual(tolerance.gradient_relative_to_largest_entry);
  }
}

function identity(size: number): TensorData {
  return float32(
    [size, size],
    Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0)),
  );
}

describe("cde-v1-grad", () => {
  const golden = load("cde-v1-grad");
  const { config } = goldenJson<{ config: { backbone: JsonObject } }>("cde-v1-stage1/fixture.json");
  const backbone = goldenBackbone("nomic_bert", config.backbone);
  const weights = new Map([
    ...goldenTensors("cde-v1-stage1/weights.safetensors"),
    ...goldenTensors("cde-v1-stage2/weights.safetensors"),
  ]);
  const step = (path: SecondStagePath, prefix: string) =>
    runStep({
      config: { firstStage: backbone, secondStage: backbone, contextDocuments: 4, tokensPerDocument: 1, path },
      weights,
      feeds: feedsOf(golden, { context: "context", query: "query", doc: "doc" }),
      labels: identity(4),
      duplicate: float32([4, 4], new Float32Array(16)),
      parameters: gradientNames(golden, prefix),
    });

  test.each([
    ["T", "v1-train"],
    ["H", "v1-hub"],
  ] as const)("path %s: loss, vectors and gradients are the reference's", async (name, preset) => {
    expectParity(await step(PRESETS[preset], `${name}/`), golden, `${name}/`);
  });

  test("the gradients of one path are not those of the other", async () => {
    const found = await step(PRESETS["v1-hub"], "T/");
    for (const name of gradientNames(golden, "T/"))
      expect(relativeDifference(found[`grad/${name}`]!, golden.tensors.get(`T/grad/${name}`)!), name).toBeGreaterThan(
        0.05,
      );
  });
});

describe("cde-v2-grad", () => {
  const golden = load("cde-v2-grad");
  const { config } = goldenJson<{ config: { backbone: JsonObject } }>("cde-v2/fixture.json");
  const backbone = goldenBackbone("modernbert", config.backbone);
  const weights = goldenTensors("cde-v2/weights.safetensors");
  const step = (prefix: string, extra: Record<string, TensorData> = {}, duplicate = golden.tensors.get("duplicate")!) =>
    runStep({
      config: {
        firstStage: backbone,
        secondStage: backbone,
        contextDocuments: 6,
        tokensPerDocument: 1,
        path: PRESETS.v2,
      },
      weights,
      feeds: {
        ...feedsOf(golden, { context: `${prefix}context`, query: "query", doc: "doc_and_negative" }),
        ...extra,
      },
      labels: asMask(golden.tensors.get("one_hot")!),
      duplicate: asMask(duplicate),
      parameters: gradientNames(golden, prefix),
    });

  test("with hard negatives and masked duplicates, loss, vectors and gradients are the reference's", async () => {
    const found = await step("");
    expectParity(
      found,
      { ...golden, tensors: new Map([...golden.tensors].filter(([name]) => !name.startsWith("seqdrop/"))) },
      "",
    );
  });

  test("the gradients without the duplicates' mask differ", async () => {
    const none = { ...golden.tensors.get("duplicate")!, data: new Int32Array(32) };
    const found = await step("", {}, none);
    expect(relativeDifference(found.grad_context!, golden.tensors.get("grad_context")!)).toBeGreaterThan(1e-3);
  });

  test("with context dropout and recorded masks, loss and the null context's gradient are the reference's", async () => {
    const dropped = {
      queryDropped: asMask(golden.tensors.get("seqdrop/query_drop_mask")!),
      docDropped: asMask(golden.tensors.get("seqdrop/doc_drop_mask")!),
    };
    const found = await step("seqdrop/", dropped);
    expectParity(found, golden, "seqdrop/");
    const none = float32([4, 6], new Float32Array(24));
    const others = await step("seqdrop/", { ...dropped, queryDropped: none });
    expect(Math.abs(Number(others.loss!.data[0]) - Number(found.loss!.data[0]))).toBeGreaterThan(1e-3);
  });
});

interface Pairs {
  readonly e1: readonly number[][];
  readonly e2: readonly number[][];
  readonly logitScale?: number;
}

describe("golden.json: the loss of three pairs", () => {
  const { loss: golden } = goldenJson<{
    loss: {
      e1: number[][];
      e2: number[][];
      mask: number[][];
      loss_t50: number;
      loss_t20: number;
      loss_t50_masked: number;
      grad_e1_t50: number[][];
      grad_e2_t50: number[][];
    };
  }>("golden.json");
  const matrix = (values: readonly number[][]) => float32([values.length, values[0]!.length], values.flat());
  const identityRows = (columns: number) =>
    [0, 1, 2].map((row) => Array.from({ length: columns }, (_, column) => (row === column ? 1 : 0)));
  const none = [0, 1, 2].map(() => [0, 0, 0]);
  const queryVectors = input("e1", "float32", ["Q", 3]);
  const documentVectors = input("e2", "float32", ["D", 3]);
  const labels = input("labels", "float32", ["Q", "D"]);
  const duplicate = input("duplicate", "float32", ["Q", "D"]);
  const run = (mask: readonly number[][], { e1, e2, logitScale = LOGIT_SCALE }: Pairs = golden) => {
    const loss = infoNce({ queryVectors, documentVectors, labels, masked: duplicate, logitScale });
    const [g1, g2] = gradientsOf(loss, [queryVectors, documentVectors]) as [Float, Float];
    return runGraph(runtime, { loss, g1, g2 }, new Map(), {
      e1: matrix(e1),
      e2: matrix(e2),
      labels: matrix(identityRows(e2.length)),
      duplicate: matrix(mask),
    });
  };
  const lossOf = async (...args: Parameters<typeof run>) => Number((await run(...args)).loss!.data[0]);

  test("is the specification's at both scales and with a mask, with its gradients (check 21)", async () => {
    const plain = await run(none);
    expect(Number(plain.loss!.data[0])).toBeCloseTo(golden.loss_t50, 5);
    expect(difference(plain.g1!, matrix(golden.grad_e1_t50))).toBeLessThanOrEqual(1e-5);
    expect(difference(plain.g2!, matrix(golden.grad_e2_t50))).toBeLessThanOrEqual(1e-5);
    expect(await lossOf(none, { ...golden, logitScale: 20 })).toBeCloseTo(golden.loss_t20, 5);
    expect(await lossOf(golden.mask)).toBeCloseTo(golden.loss_t50_masked, 5);
  });

  test("doesn't depend on lengths, and does on which side the queries are (check 21)", async () => {
    const longer = golden.e1.map((row) => row.map((value) => 3 * value));
    expect(await lossOf(none, { ...golden, e1: longer })).toBeCloseTo(golden.loss_t50, 5);
    const exchanged = await lossOf(none, { e1: golden.e2, e2: golden.e1 });
    expect(Math.abs(exchanged - golden.loss_t50)).toBeGreaterThan(0.01);
  });

  test("is not changed by a masked document, and is by the same one unmasked (check 23)", async () => {
    const more = { ...golden, e2: [...golden.e2, [1, 0.5, 0.5]] };
    const column = (value: number) => none.map((row) => [...row, value]);
    expect(await lossOf(column(1), more)).toBeCloseTo(golden.loss_t50, 6);
    expect(Math.abs((await lossOf(column(0), more)) - golden.loss_t50)).toBeGreaterThan(0.01);
  });
});

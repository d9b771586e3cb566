/** Cached gradients against the direct ones, and against the authors' own two-stage step (`cde-v1-grad`, `cde-v2-grad`). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { textInputs } from "../encoder/biencoder.js";
import { type Float, gradientsOf, infoNce, input, l2Normalize } from "../graph/index.js";
import { backboneOf } from "../model/architectures.js";
import type { BackboneConfig } from "../model/backbone-config.js";
import { publishedWeights } from "../model/checkpoint.js";
import {
  asMask,
  difference,
  float32,
  goldenBackbone,
  goldenJson,
  goldenTensors,
  int32,
  relativeDifference,
  runGraph,
} from "../model/golden.test.support.js";
import { GraphWeights } from "../model/graph-weights.js";
import type { JsonObject } from "../model/json-file.js";
import { pool } from "../model/pooling.js";
import { attendToPrefix, initialPrefix, prefixCache } from "../model/prefix-stage.js";
import {
  contextPrefix,
  firstStage,
  PRESETS,
  prefixTokens,
  secondStage,
  type TwoStageConfig,
} from "../model/two-stage.js";
import { createRandom } from "../random.js";
import { Runtime, type TensorData } from "../runtime/runtime.js";
import { Contrast } from "./contrast.js";
import { addGradients, contextGradient, embedTexts, type MicroBatchLimits, writeContext } from "./gradient-cache.js";
import { ContrastiveLoss } from "./loss.js";
import { float32Tensor, Parameters } from "./parameters.js";
import { Replica } from "./replica.js";
import { CONTEXT_GRADIENT, emptyTables, flushTables, Stage, type StagePlan, weightsOf } from "./stage.js";
import { idsSource } from "./text-source.js";
import { TrainedWeights } from "./trained-weights.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

type Tensors = ReadonlyMap<string, TensorData>;

interface Step {
  readonly text: StagePlan;
  readonly first?: StagePlan;
  readonly weights: Tensors;
  readonly queries: readonly Int32Array[];
  readonly documents: readonly Int32Array[];
  readonly context?: readonly Int32Array[];
  readonly dropped?: Float32Array;
  readonly contrast: Contrast;
  readonly width: number;
  readonly places?: number;
  readonly logitScale: number;
  /** Whether the gradient goes on into the first stage. @default true */
  readonly throughContext?: boolean;
}

/** Limits of micro-batches, and whether a second worker takes every other one. */
interface Way extends MicroBatchLimits {
  /** @default 1 */
  readonly workers?: 1 | 2;
}

const replicas: Replica[] = [];
afterAll(async () => {
  for (const replica of replicas) await replica[Symbol.asyncDispose]();
});

/** Weights and sessions of a step; opening them is what takes long. */
async function open(step: Step, workers: 1 | 2) {
  const plans = [step.text, ...(step.first ? [step.first] : [])];
  const shapes = new Map(plans.flatMap(({ vectors }) => weightsOf([vectors])).map((tensor) => [tensor.name, tensor]));
  const parameters = await Parameters.create(runtime, shapes.values());
  await parameters.weights.write({ logScale: float32Tensor([1], Float32Array.of(Math.log(step.logitScale))) });
  for (const name of shapes.keys()) await parameters.weights.write({ [name]: step.weights.get(name)! });
  const state = runtime.createStore();
  const tables = emptyTables(plans, parameters);
  const replica =
    workers === 1
      ? undefined
      : await Replica.open(runtime, parameters, {
          read: [...shapes.values()],
          tables: new Set(tables.keys()),
          options: { threads: 1 },
        });
  if (replica) replicas.push(replica);
  const text = await Stage.open(runtime, step.text, parameters, state, tables, { replica });
  const first = step.first && (await Stage.open(runtime, step.first, parameters, state, tables, { replica }));
  const widths = [{ width: step.width, weight: 1 }];
  const settings = { dimensions: step.width, symmetric: false, widths, distillation: undefined };
  const loss = await ContrastiveLoss.open(runtime, settings, parameters.weights.at("logScale"));
  return { names: [...shapes.keys()], parameters, state, tables, text, first, loss, replica };
}

const opened = {
  1: new WeakMap<StagePlan, ReturnType<typeof open>>(),
  2: new WeakMap<StagePlan, ReturnType<typeof open>>(),
};

/** One step by gradient caching: the loss, and all gradients by name. Steps with one text plan share their sessions. */
async function cachedStep(step: Step, { workers = 1, ...limits }: Way) {
  const ready = opened[workers].get(step.text) ?? open(step, workers);
  opened[workers].set(step.text, ready);
  const { names, parameters, state, tables, text, first, loss, replica } = await ready;
  for (const name of names) await parameters.weights.write({ [name]: step.weights.get(name)! });
  parameters.changed();
  const stores = { state, beside: replica?.state };
  await parameters.zeroGradients();
  const ids = [...step.queries, ...step.documents];
  const contextTexts = step.context && idsSource(step.context, 0);
  if (first && contextTexts) {
    await writeContext(stores, await embedTexts({ stage: first, texts: contextTexts, limits }), step.width);
  }
  const from =
    first && contextTexts && (step.throughContext ?? true) ? { stage: first, texts: contextTexts } : undefined;
  const given = {
    stage: text,
    texts: idsSource(ids, 0),
    limits,
    context: first && { ...stores, places: step.places ?? 0, from },
    dropped: step.dropped,
  };
  const vectors = await embedTexts(given);
  const at = step.queries.length * step.width;
  const found = await loss.run(step.contrast, { queries: vectors.subarray(0, at), documents: vectors.subarray(at) });
  const dVectors = new Float32Array(vectors.length);
  dVectors.set(found.dQueries);
  dVectors.set(found.dDocuments, at);
  await addGradients(given, dVectors);
  await flushTables(tables, parameters);
  await replica?.collect();
  const gradients = new Map<string, TensorData>();
  for (const name of names) gradients.set(name, await parameters.gradients.read(name));
  return {
    loss: found.loss,
    gradients,
    context: from && { ...(await state.read(CONTEXT_GRADIENT)), data: await contextGradient(stores) },
  };
}

/** The largest distance between two sets of gradients, each in units of its tensor's largest entry. */
function farthest(found: Tensors, expected: Tensors, names: Iterable<string> = expected.keys()): number {
  return Math.max(...[...names].map((name) => relativeDifference(found.get(name)!, expected.get(name)!)));
}

const CHUNKS: readonly (readonly [string, Way])[] = [
  ["1 text", { tokens: 1e6, texts: 1 }],
  ["2 texts", { tokens: 1e6, texts: 2 }],
  ["10 tokens", { tokens: 10, texts: 64 }],
  ["the whole batch", { tokens: 1e6, texts: 64 }],
  ["20 tokens by two workers", { tokens: 20, texts: 64, workers: 2 }],
  ["half of the batch by two workers", { tokens: 1e6, texts: 64, workers: 2 }],
];

describe("a biencoder", () => {
  const { config } = goldenJson<{ config: JsonObject }>("bert-tiny/fixture.json");
  const backbone = goldenBackbone("bert", config);
  const weights = goldenTensors("bert-tiny/weights.safetensors");
  const width = backbone.hiddenSize;

  function graph(of: GraphWeights, ids: ReturnType<typeof textInputs>["ids"], mask: Float): Float {
    const model = backboneOf(backbone, of);
    return l2Normalize(pool("mean", model.encode(model.embed(ids), mask), mask));
  }

  function textsOf(seed: number, count: number): Int32Array[] {
    const random = createRandom(seed);
    // Ids repeat often, within texts and between them: rows of the table are added up.
    return Array.from({ length: count }, () =>
      Int32Array.from({ length: 2 + random.integer(6) }, () => 1 + random.integer(9)),
    );
  }

  function stepOf(seed: number): Step {
    const trained = new TrainedWeights();
    const { ids, mask } = textInputs();
    return {
      text: { weights: trained, vectors: graph(trained, ids, mask) },
      weights,
      queries: textsOf(seed, 5),
      documents: textsOf(seed + 1, 7),
      contrast: new Contrast({ ids: [..."abcde"], negatives: [1, 0, 0, 1, 0] }),
      width,
      logitScale: 20,
    };
  }

  /** Loss and gradients in one graph, with the table's gradient by the graph's own scatter. */
  async function direct({ queries, documents, contrast, logitScale }: Step) {
    const all = new GraphWeights();
    const texts = (name: string) => ({
      ids: input(`${name}Ids`, "int32", [`B${name}`, `S${name}`]),
      mask: input(`${name}Mask`, "float32", [`B${name}`, `S${name}`]) as Float,
    });
    const [q, d] = [texts("Q"), texts("D")];
    const loss = infoNce({
      queryVectors: graph(all, q.ids, q.mask),
      documentVectors: graph(all, d.ids, d.mask),
      labels: input("labels", "float32", ["BQ", "BD"]) as Float,
      masked: input("masked", "float32", ["BQ", "BD"]) as Float,
      logitScale,
    });
    const names = [...all.parameters.keys()];
    const gradients = gradientsOf(loss, [...all.parameters.values()]);
    const padded = (name: string, given: readonly Int32Array[]) => {
      const length = Math.max(...given.map((ids) => ids.length));
      const row = (of: (ids: Int32Array, i: number) => number) =>
        given.flatMap((ids) => Array.from({ length }, (_, i) => of(ids, i)));
      return {
        [`${name}Ids`]: int32(
          [given.length, length],
          row((ids, i) => ids[i] ?? 0),
        ),
        [`${name}Mask`]: float32(
          [given.length, length],
          row((ids, i) => (i < ids.length ? 1 : 0)),
        ),
      };
    };
    const { labels, masked } = contrast.ofQueries(0, contrast.queries);
    const shape = [contrast.queries, contrast.documents];
    const out = await runGraph(
      runtime,
      { loss, ...Object.fromEntries(names.map((name, i) => [`d/${name}`, gradients[i]!])) },
      weights,
      {
        ...padded("Q", queries),
        ...padded("D", documents),
        labels: float32(shape, labels),
        masked: float32(shape, masked),
      },
    );
    return { loss: Number(out.loss!.data[0]), gradients: new Map(names.map((name) => [name, out[`d/${name}`]!])) };
  }

  const step = stepOf(7);

  test.each(CHUNKS)("has the direct gradients in micro-batches of %s", async (_, limits) => {
    const [found, expected] = [await cachedStep(step, limits), await direct(step)];
    expect(found.loss).toBeCloseTo(expected.loss, 5);
    expect(found.gradients.size).toBeGreaterThan(30);
    // Keys' biases change no softmax: their gradient is rounding, and has no largest entry to measure by.
    const names = [...expected.gradients.keys()].filter((name) => !name.endsWith("self.key.bias"));
    expect(farthest(found.gradients, expected.gradients, names)).toBeLessThan(1e-5);
    for (const [name, gradient] of found.gradients) {
      if (name.endsWith("self.key.bias"))
        expect(difference(gradient, expected.gradients.get(name)!)).toBeLessThan(1e-6);
    }
  });

  test("is the same by two workers to the last bit however often, with weights that changed in between", async () => {
    const way: Way = { tokens: 20, texts: 64, workers: 2 };
    const before = await cachedStep(step, way);
    const bias = "encoder.layer.1.output.dense.bias";
    const moved = new Map(weights).set(bias, {
      ...weights.get(bias)!,
      data: (weights.get(bias)!.data as Float32Array).map((x, i) => x + 0.1 * (i % 3)),
    });
    const between = await cachedStep({ ...step, weights: moved }, way);
    expect(farthest(between.gradients, before.gradients)).toBeGreaterThan(1e-3);
    const alone = await cachedStep({ ...step, weights: moved }, { ...way, workers: 1 });
    const names = [...alone.gradients.keys()].filter((name) => !name.endsWith("self.key.bias"));
    expect(farthest(between.gradients, alone.gradients, names)).toBeLessThan(1e-5);
    expect(await cachedStep(step, way)).toEqual(before);
  });

  test("has other gradients for another batch", async () => {
    const [found, expected] = [await cachedStep(step, CHUNKS[1]![1]), await direct(stepOf(11))];
    expect(farthest(found.gradients, expected.gradients)).toBeGreaterThan(0.1);
  });
});

interface TwoStageGolden {
  readonly folder: string;
  readonly backbone: BackboneConfig;
  readonly weights: Tensors;
  readonly config: TwoStageConfig;
}

function twoStageStep(
  { folder, weights, config }: TwoStageGolden,
  options: { prefix?: string; documents: string; context?: string; contrast: Contrast; dropout?: boolean },
): { step: Step; expected: Tensors } {
  const golden = goldenTensors(`${folder}/expected.safetensors`);
  const { prefix = "", dropout = false } = options;
  const width = config.secondStage.hiddenSize;
  const [text, first] = [new TrainedWeights(), new TrainedWeights()];
  const parts = publishedWeights(text);
  const context = input("context", "float32", [config.contextDocuments, width]) as Float;
  const dropped = input("dropped", "float32", ["B", config.contextDocuments]) as Float;
  const { ids, mask } = textInputs();
  const before = contextPrefix(config, parts, { context, ...(dropout && { dropped }) });
  const { vectors } = secondStage(config, parts, { ids, mask, prefix: before, promptEnd: 3 });
  const masks = ["query", "doc"].map((name) => golden.get(`${prefix}${name}_drop_mask`));
  return {
    step: {
      text: { weights: text, vectors: l2Normalize(vectors), context },
      first: { weights: first, vectors: firstStage(config, publishedWeights(first), textInputs()).vectors },
      weights,
      queries: textsOf(golden, "query"),
      documents: textsOf(golden, options.documents),
      context: textsOf(golden, options.context ?? "context"),
      contrast: options.contrast,
      width,
      places: prefixTokens(config),
      logitScale: 50,
      ...(dropout && { dropped: Float32Array.from(masks.flatMap((entry) => [...asMask(entry!).data].map(Number))) }),
    },
    expected: golden,
  };
}

/** Golden ids without their padding. */
function textsOf(golden: Tensors, name: string): Int32Array[] {
  const ids = golden.get(`${name}_ids`)!;
  const mask = golden.get(`${name}_mask`)!;
  const [rows = 0, length = 0] = ids.shape;
  return Array.from({ length: rows }, (_, row) => {
    const real = (_id: number, i: number) => Number(mask.data[row * length + i]) === 1;
    return Int32Array.from(ids.data.subarray(row * length, (row + 1) * length) as Int32Array).filter(real);
  });
}

function expectParity(found: Awaited<ReturnType<typeof cachedStep>>, expected: Tensors, prefix: string): void {
  expect(Math.abs(found.loss - Number(expected.get(`${prefix}loss`)!.data[0]))).toBeLessThan(1e-4);
  const names = [...expected.keys()].flatMap((name) =>
    name.startsWith(`${prefix}grad/`) ? [name.slice(`${prefix}grad/`.length)] : [],
  );
  expect(names.length).toBeGreaterThanOrEqual(3);
  for (const name of names) {
    const figure = relativeDifference(found.gradients.get(name)!, expected.get(`${prefix}grad/${name}`)!);
    expect(figure, name).toBeLessThan(1e-4);
  }
  const context = expected.get(`${prefix}grad_context`); // not stored with context dropout
  if (context) expect(relativeDifference(found.context!, context)).toBeLessThan(1e-4);
}

describe("the paper's two stages", () => {
  const plain = (size: number) =>
    new Contrast({ ids: Array.from({ length: size }, (_, i) => String(i)), negatives: Array<number>(size).fill(0) });
  const v1 = (): TwoStageGolden => {
    const { config } = goldenJson<{ config: { backbone: JsonObject } }>("cde-v1-stage1/fixture.json");
    const backbone = goldenBackbone("nomic_bert", config.backbone);
    return {
      folder: "cde-v1-grad",
      backbone,
      weights: new Map([
        ...goldenTensors("cde-v1-stage1/weights.safetensors"),
        ...goldenTensors("cde-v1-stage2/weights.safetensors"),
      ]),
      config: {
        firstStage: backbone,
        secondStage: backbone,
        contextDocuments: 4,
        tokensPerDocument: 1,
        path: PRESETS["v1-train"],
      },
    };
  };
  const v2 = (): TwoStageGolden => {
    const { config } = goldenJson<{ config: { backbone: JsonObject } }>("cde-v2/fixture.json");
    const backbone = goldenBackbone("modernbert", config.backbone);
    return {
      folder: "cde-v2-grad",
      backbone,
      weights: goldenTensors("cde-v2/weights.safetensors"),
      config: {
        firstStage: backbone,
        secondStage: backbone,
        contextDocuments: 6,
        tokensPerDocument: 1,
        path: PRESETS.v2,
      },
    };
  };
  const withNegatives = (golden: Tensors) =>
    new Contrast({
      ids: [..."abcd"],
      negatives: [1, 1, 1, 1],
      falseNegatives: Uint8Array.from(golden.get("duplicate")!.data as Int32Array),
    });

  const first = twoStageStep(v1(), { documents: "doc", contrast: plain(4) });
  const second = twoStageStep(v2(), {
    documents: "doc_and_negative",
    contrast: withNegatives(goldenTensors("cde-v2-grad/expected.safetensors")),
  });

  test.each(CHUNKS)("v1 has the reference's gradients in micro-batches of %s", async (_, limits) => {
    expectParity(await cachedStep(first.step, limits), first.expected, "T/");
  });

  test.each(CHUNKS)(
    "v2, with hard negatives and a filter, has those of its GradCache in micro-batches of %s",
    async (_, limits) => expectParity(await cachedStep(second.step, limits), second.expected, ""),
  );

  test("v2 with context dropout has those of the recorded masks, the null context's too", async () => {
    const golden = goldenTensors("cde-v2-grad/expected.safetensors");
    const options = {
      prefix: "seqdrop/",
      documents: "doc_and_negative",
      context: golden.has("seqdrop/context_ids") ? "seqdrop/context" : "context",
      contrast: withNegatives(golden),
      dropout: true,
    };
    const { step, expected } = twoStageStep(v2(), options);
    const found = await cachedStep(step, { tokens: 1e6, texts: 3 });
    expectParity(found, expected, "seqdrop/");
    const without = await cachedStep({ ...step, dropped: new Float32Array(step.dropped!.length) }, CHUNKS[1]![1]);
    expect(Math.abs(without.loss - found.loss)).toBeGreaterThan(1e-3);
  });

  test("leave the first stage alone where the gradient stops at the context", async () => {
    const { step, expected } = first;
    const text = { weights: step.text.weights, vectors: step.text.vectors };
    const found = await cachedStep({ ...step, text, throughContext: false }, CHUNKS[1]![1]);
    expect(found.loss).toBeCloseTo(Number(expected.get("T/loss")!.data[0]), 4);
    for (const [name, { data }] of found.gradients) {
      const moved = (data as Float32Array).some((value) => value !== 0);
      if (name.startsWith("first_stage_model.")) expect(moved, name).toBe(false);
    }
    const name = "second_stage_model.output_projection.0.weight";
    expect((found.gradients.get(name)!.data as Float32Array).some((value) => value !== 0)).toBe(true);
  });

  test("have other gradients with another context", async () => {
    const found = await cachedStep({ ...first.step, context: first.step.queries }, CHUNKS[1]![1]);
    expect(relativeDifference(found.context!, first.expected.get("T/grad_context")!)).toBeGreaterThan(0.1);
  });
});

describe("a prefix stage", () => {
  const { config } = goldenJson<{ config: JsonObject }>("bert-tiny/fixture.json");
  const backbone = goldenBackbone("bert", config);
  const stage = { softmax: "gated", layers: 1 } as const;
  const weights = new Map([
    ...goldenTensors("bert-tiny/weights.safetensors"),
    ...Object.entries(initialPrefix(backbone, stage, 5)).map(([name, tensor]): [string, TensorData] => {
      const gate = name.endsWith("gate");
      return [name, gate ? { ...tensor, data: (tensor.data as Float32Array).map((_, i) => 0.3 + 0.1 * i) } : tensor];
    }),
  ]);
  const texts = (seed: number, count: number) => {
    const random = createRandom(seed);
    return Array.from({ length: count }, () =>
      Int32Array.from({ length: 2 + random.integer(5) }, () => 1 + random.integer(20)),
    );
  };

  function stepOf(): Step {
    const [text, first] = [new TrainedWeights(), new TrainedWeights()];
    const context = input("context", "float32", ["C", backbone.hiddenSize]) as Float;
    const vectorsOf = (all: TrainedWeights, attend?: ReturnType<typeof attendToPrefix>) => {
      const { ids, mask } = textInputs();
      const model = backboneOf(backbone, all);
      return l2Normalize(pool("mean", model.encode(model.embed(ids), mask, attend ? { attend } : {}), mask));
    };
    const cache = prefixCache(backbone, stage, text, context);
    return {
      text: { weights: text, vectors: vectorsOf(text, attendToPrefix(stage, cache)), context },
      first: { weights: first, vectors: vectorsOf(first) },
      weights,
      queries: texts(1, 4),
      documents: texts(2, 4),
      context: texts(3, 6),
      contrast: new Contrast({ ids: [..."abcd"], negatives: [0, 0, 0, 0] }),
      width: backbone.hiddenSize,
      logitScale: 20,
    };
  }

  test("has the same gradients in micro-batches as in one, and those of finite differences", async () => {
    const step = stepOf();
    const whole = await cachedStep(step, CHUNKS[3]![1]);
    for (const [, limits] of CHUNKS.filter((_, i) => i !== 3)) {
      const found = await cachedStep(step, limits);
      const names = [...whole.gradients.keys()].filter((name) => !name.endsWith("self.key.bias"));
      expect(farthest(found.gradients, whole.gradients, names)).toBeLessThan(1e-5);
    }
    // Weights that texts and context share: the gradient is the sum of both ways.
    const h = 2e-2;
    for (const name of ["encoder.layer.0.output.dense.bias", "prefix.projection.bias"]) {
      const at = async (by: number) => {
        const changed = step.weights.get(name)!;
        const data = (changed.data as Float32Array).slice();
        data[1]! += by;
        const moved = new Map(step.weights).set(name, { ...changed, data });
        return (await cachedStep({ ...step, weights: moved }, CHUNKS[3]![1])).loss;
      };
      const expected = ((await at(h)) - (await at(-h))) / (2 * h);
      const largest = Math.max(...(whole.gradients.get(name)!.data as Float32Array).map(Math.abs));
      expect(Math.abs(Number(whole.gradients.get(name)!.data[1]) - expected) / largest, name).toBeLessThan(0.02);
    }
  });
});

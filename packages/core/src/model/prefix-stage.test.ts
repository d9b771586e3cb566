import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { numbersOf, randomNumbers, tensor } from "../graph/gradients.test.support.js";
import {
  add,
  concat,
  constant,
  differentiate,
  expand,
  type Float,
  type FloatType,
  type Int,
  input,
  l2Normalize,
  layerNorm,
  matMul,
  mul,
  reshape,
  scalar,
  slice,
  softmax,
  sub,
  transposeLast,
} from "../graph/index.js";
import { encodeModel } from "../onnx/encode.js";
import { Runtime, type TensorData } from "../runtime/runtime.js";
import { backboneOf } from "./architectures.js";
import { type Attend, MASKED, scaled } from "./attention.js";
import type { BackboneConfig } from "./backbone-config.js";
import { EXACT, GraphWeights, type NumericForm } from "./graph-weights.js";
import { pool } from "./pooling.js";
import { attendToPrefix, initialPrefix, type PrefixConfig, prefixCache, prefixLayers } from "./prefix-stage.js";

const [B, T, C] = [2, 5, 3];
const N = C + T;
const COMMON = {
  hiddenSize: 8,
  layers: 2,
  heads: 2,
  intermediateSize: 12,
  vocabularySize: 13,
  maxPositions: 12,
  layerNormEpsilon: 1e-12,
};
const BERT: BackboneConfig = { ...COMMON, architecture: "bert", typeVocabularySize: 2, activation: "gelu" };
const NOMIC: BackboneConfig = { ...COMMON, architecture: "nomic-bert", typeVocabularySize: 2, rotaryBase: 100 };
const MODERN: BackboneConfig = {
  ...COMMON,
  architecture: "modernbert",
  layers: 3,
  localAttention: 2,
  globalEveryLayers: 2,
  globalRotaryBase: 100,
  localRotaryBase: 10,
};

interface Inputs {
  readonly ids: Int;
  readonly mask: Float;
  readonly context: Float;
}

function inputs(dtype: FloatType): Inputs {
  return {
    ids: input("ids", "int32", [B, T]),
    mask: input("mask", dtype, [B, T]),
    context: input("context", dtype, [C, COMMON.hiddenSize]),
  };
}

/** The second text is three tokens long. */
function feeds(dtype: FloatType, context: readonly number[]): Record<string, TensorData> {
  return {
    ids: tensor("int32", [B, T], [3, 7, 1, 12, 5, 9, 2, 4, 0, 0]),
    mask: tensor(dtype, [B, T], [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]),
    context: tensor(dtype, [C, COMMON.hiddenSize], context),
  };
}

function contextRows(seed: number): number[] {
  const random = randomNumbers(seed);
  return Array.from({ length: C }, () => Array.from({ length: COMMON.hiddenSize }, () => random() - 0.5)).flatMap(
    (row) => row.map((value) => value / Math.hypot(...row)),
  );
}

function vectorsOf(hidden: Float, mask: Float): Float {
  return l2Normalize(pool("mean", hidden, mask));
}

/** What is shipped and trained: the cache, and the text that reads it. */
function cached(config: BackboneConfig, stage: PrefixConfig, weights: GraphWeights, at: Inputs): Float {
  const backbone = backboneOf(config, weights);
  const attend = attendToPrefix(stage, prefixCache(config, stage, weights, at.context));
  return vectorsOf(backbone.encode(backbone.embed(at.ids), at.mask, { attend }), at.mask);
}

/** The same as one sequence [context | text] under a prefix mask, written from its definition. */
function uncached(config: BackboneConfig, stage: PrefixConfig, weights: GraphWeights, at: Inputs): Float {
  const { hiddenSize: width } = config;
  const backbone = backboneOf(config, weights);
  const rows = weights.within("prefix").linear(at.context, "projection", { inputs: width, outputs: width });
  const tokens = concat([expand(asTokens(config, weights, rows), [B, C, width]), backbone.embed(at.ids)], 1);
  const mask = concat([expand(scalar(1, "float32"), [B, C]), at.mask], 1);
  const reading = prefixLayers(config, stage);
  const column = (of: (row: number) => number) =>
    constant(
      "float32",
      [1, 1, N, 1],
      Array.from({ length: N }, (_, row) => of(row)),
    ) as Float;
  const isContext = column((row) => (row < C ? 1 : 0));
  const attend: Attend = ({ layer, q, k, v, unturned, bias }) => {
    const part = (x: Float, start: number, end: number, axis = 2) => slice(x, { axis, start, end });
    const toContext = matMul(scaled(unturned.q), transposeLast(part(unturned.k, 0, C)));
    const toText = add(matMul(scaled(q), transposeLast(part(k, C, N))), part(bias, C, N, 3));
    if (stage.softmax === "joint") {
      const hideContext = column((row) => (row < C || reading.includes(layer) ? 0 : MASKED));
      const hideText = column((row) => (row < C ? MASKED : 0));
      return matMul(softmax(concat([add(toContext, hideContext), add(toText, hideText)], 3)), v);
    }
    const ofContext = matMul(softmax(toContext), part(v, 0, C));
    const ofText = matMul(softmax(toText), part(v, C, N));
    const gate = reading.includes(layer)
      ? reshape(weights.get(`prefix.layer.${layer}.gate`, [config.heads]), [config.heads, 1, 1, 1])
      : scalar(0, "float32");
    const mixed = add(ofText, mul(gate, ofContext));
    return add(mul(isContext, ofContext), mul(sub(scalar(1, "float32"), isContext), mixed));
  };
  const hidden = backbone.encode(tokens, mask, { attend });
  return vectorsOf(slice(hidden, { axis: 1, start: C, end: N }), at.mask);
}

/** What each architecture does to embedded tokens last, and BERT where it is given any. */
function asTokens(config: BackboneConfig, weights: GraphWeights, rows: Float): Float {
  const { hiddenSize: width, layerNormEpsilon: epsilon } = config;
  if (config.architecture === "bert") return rows;
  if (config.architecture === "modernbert")
    return layerNorm(rows, weights.get("embeddings.norm.weight", [width]), undefined, { epsilon });
  const types = weights.get("embeddings.token_type_embeddings.weight", [2, width]);
  return add(rows, slice(types, { axis: 0, start: 0, end: 1 }));
}

function values(parameters: ReadonlyMap<string, Float>, seed = 3): Record<string, TensorData> {
  const random = randomNumbers(seed);
  return Object.fromEntries(
    [...parameters].map(([name, { dtype, shape }]) => {
      const size = shape.reduce<number>((a, b) => a * Number(b), 1);
      const middle = /norm.*weight|emb_ln.weight/i.test(name) ? 1 : 0;
      const numbers = Array.from({ length: size }, () => middle + 1.2 * (random() - 0.5));
      return [name, tensor(dtype, shape as number[], numbers)];
    }),
  );
}

function furthest(a: TensorData, b: TensorData): number {
  const other = numbersOf(b);
  return Math.max(...numbersOf(a).map((value, i) => Math.abs(value - other[i]!)));
}

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

/** Runs graphs over the same weights, drawn or given. */
async function run(
  weights: GraphWeights,
  graphs: Readonly<Record<string, Float>>,
  given: Record<string, TensorData>,
  changed: Record<string, TensorData> = {},
): Promise<Readonly<Record<string, TensorData>>> {
  const store = runtime.createStore();
  await store.write({ ...values(weights.parameters), ...changed });
  const session = await runtime.open(encodeModel(graphs), { weights: store });
  const result = await session.run(given);
  await session.close();
  await store.drop();
  return result;
}

const STAGES: readonly PrefixConfig[] = [
  { softmax: "joint", layers: 1 },
  { softmax: "joint", layers: 2 },
  { softmax: "gated", layers: 1 },
  { softmax: "gated", layers: 2 },
];

describe("cached keys and values", () => {
  test.each(
    [BERT, NOMIC, MODERN].flatMap((config) => STAGES.map((stage) => [config.architecture, stage, config] as const)),
  )(
    "of a %s give the vectors of one sequence under a prefix mask (%o), and of another context they don't",
    async (_, stage, config) => {
      const weights = new GraphWeights();
      const at = inputs("float32");
      const graphs = { cached: cached(config, stage, weights, at), uncached: uncached(config, stage, weights, at) };
      const found = await run(weights, graphs, feeds("float32", contextRows(1)));
      const other = await run(weights, graphs, feeds("float32", contextRows(2)));
      expect(furthest(found.cached!, found.uncached!)).toBeLessThanOrEqual(1e-6);
      expect(furthest(other.cached!, found.uncached!)).toBeGreaterThan(1e-3);
    },
  );

  test.each(STAGES)("have no order (%o)", async (stage) => {
    const weights = new GraphWeights();
    const graphs = { vectors: cached(BERT, stage, weights, inputs("float32")) };
    const rows = contextRows(1);
    const turned = [...rows.slice(8), ...rows.slice(0, 8)];
    const repeated = [...rows.slice(0, 16), ...rows.slice(0, 8)];
    const of = async (context: number[]) => (await run(weights, graphs, feeds("float32", context))).vectors!;
    expect(furthest(await of(rows), await of(turned))).toBeLessThanOrEqual(1e-6);
    expect(furthest(await of(rows), await of(repeated))).toBeGreaterThan(1e-3);
  });
});

describe("a new gated stage", () => {
  test("is its base, to the last bit, with any context; and with open gates it isn't", async () => {
    const stage: PrefixConfig = { softmax: "gated", layers: 2 };
    const weights = new GraphWeights();
    const at = inputs("float32");
    const backbone = backboneOf(BERT, weights);
    const base = vectorsOf(backbone.encode(backbone.embed(at.ids), at.mask), at.mask);
    const graphs = { base, vectors: cached(BERT, stage, weights, at) };
    const found = await run(weights, graphs, feeds("float32", contextRows(1)), initialPrefix(BERT, stage, 0));
    expect(numbersOf(found.vectors!)).toEqual(numbersOf(found.base!));
    const open = await run(weights, graphs, feeds("float32", contextRows(1)));
    expect(furthest(open.vectors!, open.base!)).toBeGreaterThan(1e-3);
  });

  test("has tensors that its seed determines, for the layers that attend", () => {
    const stage: PrefixConfig = { softmax: "gated", layers: 1 };
    const made = initialPrefix(BERT, stage, 7);
    expect(Object.keys(made)).toEqual(["prefix.projection.weight", "prefix.projection.bias", "prefix.layer.1.gate"]);
    expect(initialPrefix(BERT, stage, 7)).toEqual(made);
    expect(initialPrefix(BERT, stage, 8)).not.toEqual(made);
    expect(Object.keys(initialPrefix(BERT, { ...stage, softmax: "joint" }, 7))).toHaveLength(2);
    const projection = numbersOf(made["prefix.projection.weight"]!);
    expect(Math.max(...projection.map((value, i) => Math.abs(value - (i % 9 === 0 ? 1 : 0))))).toBeLessThanOrEqual(
      0.02 + 1e-7,
    );
  });

  test("refuses more layers than there are, and none", () => {
    for (const layers of [0, 3, 1.5]) {
      expect(() => prefixLayers(BERT, { layers })).toThrow(`from 1 to the 2 that the model has, got ${layers}`);
    }
  });
});

describe("the gradient of everything that a prefix stage reads", () => {
  test.each(STAGES.slice(1))("meets central differences to 1e-6 in float64 (%o)", async (stage) => {
    const form: NumericForm = { ...EXACT, dtype: "float64", gelu: "tanh", layerNorm: "composed" };
    const weights = new GraphWeights(form);
    const at = inputs("float64");
    const vectors = cached(BERT, stage, weights, at);
    const parameters = [...weights.parameters];
    const dy = input("dy", "float64", vectors.shape) as Float;
    const targets: readonly (readonly [string, Float])[] = [...parameters, ["context", at.context]];
    const gradients = differentiate(
      [[vectors, dy]],
      targets.map(([, value]) => value),
    );
    const named = Object.fromEntries(targets.map(([name], i) => [`g/${name}`, gradients[i]!]));
    const given = feeds("float64", contextRows(1));
    const random = randomNumbers(9);
    const seed = Array.from({ length: B * COMMON.hiddenSize }, () => random() - 0.5);
    const drawn = values(weights.parameters);
    const store = runtime.createStore();
    await store.write(drawn);
    const backward = await runtime.open(encodeModel({ vectors, ...named }), { weights: store });
    const found = await backward.run({ ...given, dy: tensor("float64", [B, COMMON.hiddenSize], seed) });
    const forward = await runtime.open(encodeModel({ vectors }), { weights: store });
    const lossAt = async (name: string, entry: number, by: number) => {
      const { dtype, shape, data } = drawn[name] ?? given[name]!;
      const changed = Array.from(data as Float64Array);
      changed[entry] = changed[entry]! + by;
      const moved = { [name]: tensor(dtype, shape, changed) };
      if (name in drawn) await store.write(moved);
      const result = await forward.run(name in drawn ? given : { ...given, ...moved });
      return numbersOf(result.vectors!).reduce((sum, value, i) => sum + value * seed[i]!, 0);
    };

    const largest = Math.max(...targets.flatMap(([name]) => numbersOf(found[`g/${name}`]!).map(Math.abs)));
    let worst = { at: "", error: 0 };
    const moving = new Set<string>();
    for (const [name] of targets) {
      const gradient = numbersOf(found[`g/${name}`]!);
      for (let i = 0; i < gradient.length; i += Math.max(1, Math.floor(gradient.length / 7))) {
        const measured = ((await lossAt(name, i, 1e-5)) - (await lossAt(name, i, -1e-5))) / 2e-5;
        // A bias of the keys moves no softmax: differences count from a thousandth of the largest gradient.
        const size = Math.max(Math.abs(measured), Math.abs(gradient[i]!), 1e-3 * largest);
        const error = Math.abs(measured - gradient[i]!) / size;
        if (!(error <= worst.error)) worst = { at: `${name}[${i}]`, error };
        if (Math.abs(measured) > 1e-3 * largest) moving.add(name);
      }
      if (drawn[name]) await store.write({ [name]: drawn[name] });
    }
    const gates =
      stage.softmax === "gated" ? prefixLayers(BERT, stage).map((layer) => `prefix.layer.${layer}.gate`) : [];
    expect([...moving]).toEqual(expect.arrayContaining(["context", "prefix.projection.weight", ...gates]));
    expect(worst.error, worst.at).toBeLessThanOrEqual(1e-6);
    await forward.close();
    await backward.close();
    await store.drop();
  });
});

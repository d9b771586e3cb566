/** BERT, NomicBERT and ModernBERT against the authors' classes, each beside the mistakes that one makes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Float, type Int, input, linear, split, type Value } from "../graph/index.js";
import { Runtime, type TensorData } from "../runtime/runtime.js";
import { backboneOf } from "./architectures.js";
import { splitHeads, tokenRows } from "./attention.js";
import type { Backbone } from "./backbone.js";
import type { BackboneConfig, ModernBertConfig, NomicBertConfig } from "./backbone-config.js";
import {
  asMask,
  difference,
  float32,
  goldenBackbone,
  goldenJson,
  goldenTensors,
  int32,
  runGraph,
} from "./golden.test.support.js";
import { EXACT, GraphWeights, type NumericForm } from "./graph-weights.js";
import type { JsonObject } from "./json-file.js";
import { pool } from "./pooling.js";
import { firstPositions, inverseFrequencies, rotaryTables, rotate } from "./rotary.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

function load(folder: string) {
  const { config, tolerance_abs: tolerance } = goldenJson<{ config: JsonObject; tolerance_abs: number }>(
    `${folder}/fixture.json`,
  );
  const expected = goldenTensors(`${folder}/expected.safetensors`);
  return {
    config,
    tolerance,
    weights: goldenTensors(`${folder}/weights.safetensors`),
    expected: (name: string) => expected.get(name)!,
    mask: asMask(expected.get("attention_mask")!),
  };
}
type Fixture = ReturnType<typeof load>;

const ids = input("ids", "int32", ["B", "S"]) as Int;
const mask = input("mask", "float32", ["B", "S"]);

function run(
  fixture: Fixture,
  config: BackboneConfig,
  outputs: (backbone: Backbone) => Record<string, Value>,
  feeds: Record<string, TensorData> = {},
  form: NumericForm = EXACT,
) {
  const graph = outputs(backboneOf(config, new GraphWeights(form)));
  return runGraph(runtime, graph, fixture.weights, {
    ids: fixture.expected("input_ids"),
    mask: fixture.mask,
    ...feeds,
  });
}

const encoded = (backbone: Backbone) => {
  const tokens = backbone.embed(ids);
  const hidden = backbone.encode(tokens, mask);
  return { tokens, hidden, mean: pool("mean", hidden, mask), cls: pool("cls", hidden, mask) };
};

/** Hidden states and means agree, and an all-ones mask or the [CLS] vector don't. */
async function expectParity(fixture: Fixture, config: BackboneConfig): Promise<void> {
  const { hidden, mean, cls } = await run(fixture, config, encoded);
  expect(difference(hidden!, fixture.expected("last_hidden_state"), fixture.mask)).toBeLessThanOrEqual(
    fixture.tolerance,
  );
  expect(difference(mean!, fixture.expected("mean_pooled"))).toBeLessThanOrEqual(fixture.tolerance);
  expect(difference(cls!, fixture.expected("mean_pooled"))).toBeGreaterThan(0.1);
  const everything = float32(fixture.mask.shape, new Float32Array(fixture.mask.data.length).fill(1));
  const unmasked = await run(fixture, config, encoded, { mask: everything });
  expect(difference(unmasked.hidden!, hidden!, fixture.mask)).toBeGreaterThan(0.1);
}

async function expectDifferent(fixture: Fixture, changed: BackboneConfig, atLeast: number): Promise<void> {
  const { hidden } = await run(fixture, changed, encoded);
  expect(difference(hidden!, fixture.expected("last_hidden_state"), fixture.mask)).toBeGreaterThan(atLeast);
}

describe("rotary positions", () => {
  const { inv_freq: golden } = goldenJson<{ inv_freq: Record<string, Record<string, never>> }>("golden.json");

  test.each([1000, 10_000, 160_000])("turn by the published frequencies of base %i (check 2)", (base) => {
    const frequencies = inverseFrequencies(64, base);
    for (const [i, value] of Object.entries(golden[`base${base}_d64`]!))
      expect(Math.abs(frequencies[Number(i)]! / Number(value) - 1)).toBeLessThan(1e-6);
  });

  test("have the published cosines and sines at position 520 (check 2)", async () => {
    const { cos, sin } = rotaryTables({ positions: 521, width: 64, base: 1000, dtype: "float64" });
    const at = (table: Float, i: number) =>
      table.source.kind === "constant" ? Number(table.source.data[520 * 32 + i]) : Number.NaN;
    const { cos_sin_pos520_base1000: expected } = golden as unknown as Record<string, Record<string, [number, number]>>;
    for (const [i, [c, s]] of Object.entries(expected!)) {
      // The golden figures are of a float32 frequency at most, hence 1e-6.
      expect(Math.abs(at(cos, Number(i)) - c)).toBeLessThan(1e-6);
      expect(Math.abs(at(sin, Number(i)) - s)).toBeLessThan(1e-6);
    }
  });

  test("leave position 0 and lengths as they are, and products depend on distance only (check 2)", async () => {
    const x = input("x", "float32", [1, 1, "L", 8]);
    const tables = rotaryTables({ positions: 40, width: 8, base: 1000, dtype: "float32" });
    const row = [0.375, -1, 0.5, 2, 0.25, -0.75, 1.5, 1];
    const same = float32([1, 1, 40, 8], Array.from({ length: 40 }, () => row).flat());
    const { y } = await runGraph(runtime, { y: rotate(x, firstPositions(tables, "L")) }, new Map(), { x: same });
    const turned = (p: number) => Array.from((y!.data as Float32Array).subarray(8 * p, 8 * p + 8));
    const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
    expect(turned(0)).toEqual(row);
    for (const p of [1, 17, 39]) expect(dot(turned(p), turned(p))).toBeCloseTo(dot(row, row), 5);
    expect(dot(turned(3), turned(9))).toBeCloseTo(dot(turned(33), turned(39)), 5);
    expect(Math.abs(dot(turned(3), turned(9)) - dot(turned(3), turned(10)))).toBeGreaterThan(0.01);
  });
});

describe("bert-tiny", () => {
  const fixture = load("bert-tiny");
  const config = (changes?: JsonObject) => goldenBackbone("bert", fixture.config, changes);

  test("hidden states and means are the reference's; a wrong mask or pooling aren't", () =>
    expectParity(fixture, config()));

  test("the first layer is the reference's", async () => {
    const { hidden } = await run(fixture, config({ num_hidden_layers: 1 }), encoded);
    expect(difference(hidden!, fixture.expected("layer0"), fixture.mask)).toBeLessThanOrEqual(fixture.tolerance);
  });

  test.each(["gelu_new", "relu"])("%s instead of the exact GELU differs", (hidden_act) =>
    expectDifferent(fixture, config({ hidden_act }), 2e-4),
  );
});

describe("nomic-bert-tiny", () => {
  const fixture = load("nomic-bert-tiny");
  const config = goldenBackbone("nomic_bert", fixture.config) as NomicBertConfig;

  test("hidden states and means are the reference's; a wrong mask or pooling aren't", () =>
    expectParity(fixture, config));

  test("embedding norm and first layer are the reference's", async () => {
    for (const [layers, name] of [
      [0, "after_emb_ln"],
      [1, "layer0"],
    ] as const) {
      const { hidden } = await run(fixture, { ...config, layers }, encoded);
      expect(difference(hidden!, fixture.expected(name), fixture.mask), name).toBeLessThanOrEqual(fixture.tolerance);
    }
  });

  test("queries and keys after rotation are the reference's, and before it they aren't", async () => {
    const shape = tokenRows("B", "S", config.heads, config.hiddenSize);
    const { rotaryBase: base, maxPositions: positions } = config;
    const tables = rotaryTables({ positions, width: shape.width, base, dtype: "float32" });
    const x = input("x", "float32", [24, 32]);
    const weight = new GraphWeights().get("encoder.layers.0.attn.Wqkv.weight", [96, 32]);
    const [q, k] = split(linear(x, weight), { axis: 1, parts: 3 }).map((part) =>
      splitHeads(part, { ...shape, batch: 1, length: 24 }),
    ) as [Float, Float];
    const first = fixture.expected("after_emb_ln").data.slice(0, 24 * 32) as Float32Array;
    const outputs = {
      q: rotate(q, firstPositions(tables, 24)),
      k: rotate(k, firstPositions(tables, 24)),
      unturned: q,
    };
    const found = await runGraph(runtime, outputs, fixture.weights, { x: float32([24, 32], first) });
    // The fixture has [tokens, heads, entries], the graph [1, heads, tokens, entries].
    const inOrder = ({ data }: TensorData) =>
      float32(
        [24, 4, 8],
        Array.from({ length: data.length }, (_, i) => {
          const [token, head, entry] = [Math.floor(i / 32), Math.floor(i / 8) % 4, i % 8];
          return Number(data[(head * 24 + token) * 8 + entry]);
        }),
      );
    for (const name of ["q", "k"] as const) {
      const expected = fixture.expected(`row0_layer0_${name}_after_rope`);
      expect(difference(inOrder(found[name]!), expected)).toBeLessThanOrEqual(fixture.tolerance);
    }
    expect(difference(inOrder(found.unturned!), fixture.expected("row0_layer0_q_after_rope"))).toBeGreaterThan(0.1);
  });

  test("another rotary base, no rotation, or value and gate exchanged differ", async () => {
    await expectDifferent(fixture, { ...config, rotaryBase: 10_000 }, 0.1);
    const unturned = await run(fixture, config, (backbone) => ({
      hidden: backbone.encode(backbone.embed(ids), mask, { withoutPosition: 24 }),
    }));
    expect(difference(unturned.hidden!, fixture.expected("last_hidden_state"), fixture.mask)).toBeGreaterThan(0.1);
    const swapped = new Map(
      [...fixture.weights].map(([name, tensor]) => [
        name.replace(/fc1([12])/, (_, digit) => `fc1${digit === "1" ? 2 : 1}`),
        tensor,
      ]),
    );
    await expectDifferent({ ...fixture, weights: swapped }, config, 0.1);
  });

  test("padding changes nothing at real tokens", async () => {
    const { hidden } = await run(fixture, config, encoded);
    const [batch, length] = fixture.mask.shape as [number, number];
    const padded = (data: ArrayLike<number>) =>
      Array.from({ length: batch * (length + 3) }, (_, i) => {
        const at = i % (length + 3);
        return at < length ? data[Math.floor(i / (length + 3)) * length + at]! : 0;
      });
    const longer = await run(fixture, config, encoded, {
      ids: int32([batch, length + 3], padded(fixture.expected("input_ids").data as Int32Array)),
      mask: float32([batch, length + 3], padded(fixture.mask.data as Float32Array)),
    });
    expect(difference(longer.mean!, fixture.expected("mean_pooled"))).toBeLessThanOrEqual(fixture.tolerance);
    expect(hidden!.shape[1]).toBe(length);
  });
});

describe("modernbert-tiny", () => {
  const fixture = load("modernbert-tiny");
  const config = goldenBackbone("modernbert", fixture.config) as ModernBertConfig;

  test("hidden states and means are the reference's; a wrong mask or pooling aren't", () =>
    expectParity(fixture, config));

  test("the embedding layer is the reference's", async () => {
    const { tokens } = await run(fixture, config, encoded);
    const expected = fixture.expected("after_embeddings");
    expect(difference(tokens!, expected, fixture.mask)).toBeLessThanOrEqual(fixture.tolerance);
  });

  test("given vectors pass the embedding norm, and without it they differ", async () => {
    const vectors = fixture.expected("inputs_embeds");
    const vectorMask = asMask(fixture.expected("inputs_embeds_mask"));
    const expected = fixture.expected("inputs_embeds_last_hidden_state");
    const given = input("given", "float32", ["B", "S", 32]);
    const { again, once } = await run(
      fixture,
      config,
      (backbone) => ({
        again: backbone.encode(given, mask, { embedAgain: true }),
        once: backbone.encode(given, mask),
      }),
      { given: vectors, mask: vectorMask },
    );
    expect(difference(again!, expected, vectorMask)).toBeLessThanOrEqual(fixture.tolerance);
    expect(difference(once!, expected, vectorMask)).toBeGreaterThan(0.1);
  });

  test.each<[string, Partial<ModernBertConfig>, number]>([
    ["a window of all tokens", { localAttention: 64 }, 0.1],
    ["a window one token too small", { localAttention: 6 }, 0.1],
    ["exchanged rotary bases", { globalRotaryBase: 10_000, localRotaryBase: 160_000 }, 0.1],
    ["every second layer global", { globalEveryLayers: 2 }, 0.1],
    ["an epsilon of 1e-3", { layerNormEpsilon: 1e-3 }, 1e-3],
  ])("%s differs", (_, changes, atLeast) => expectDifferent(fixture, { ...config, ...changes }, atLeast));

  test("the approximate GELU differs", async () => {
    const { hidden } = await run(fixture, config, encoded, {}, { ...EXACT, gelu: "tanh" });
    const distance = difference(hidden!, fixture.expected("last_hidden_state"), fixture.mask);
    expect(distance).toBeGreaterThan(10 * fixture.tolerance);
  });
});

describe("some of the layers", () => {
  test.each([
    ["bert", "bert-tiny"],
    ["nomic_bert", "nomic-bert-tiny"],
    ["modernbert", "modernbert-tiny"],
  ] as const)("of %s, the lower ones and then the upper, are the whole; others aren't", async (type, folder) => {
    const fixture = load(folder);
    const config = goldenBackbone(type, fixture.config);
    const { layers } = config;
    const part = (tokens: Float, backbone: Backbone, start: number, end: number) =>
      backbone.encode(tokens, mask, { layers: { start, end } });
    const { whole, cut, short } = await run(fixture, config, (backbone) => {
      const tokens = backbone.embed(ids);
      return {
        whole: backbone.encode(tokens, mask),
        cut: part(part(tokens, backbone, 0, 1), backbone, 1, layers),
        short: part(tokens, backbone, 0, layers - 1),
      };
    });
    expect(difference(cut!, whole!)).toBe(0);
    expect(difference(short!, whole!)).toBeGreaterThan(0.01);
  });

  test("are refused where the model has none such", () => {
    const { config } = load("bert-tiny");
    const backbone = backboneOf(goldenBackbone("bert", config), new GraphWeights());
    for (const layers of [
      { start: 1, end: 3 },
      { start: 2, end: 1 },
      { start: -1, end: 1 },
    ]) {
      expect(() => backbone.encode(backbone.embed(ids), mask, { layers })).toThrow(
        "are no part of a model of 2 layers",
      );
    }
  });
});

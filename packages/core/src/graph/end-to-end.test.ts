import { availableParallelism } from "node:os";
import { describe, expect, test } from "vitest";
import type { BertConfig } from "../model/backbone-config.js";
import { bert } from "../model/bert.js";
import { EXACT, GraphWeights, type NumericForm } from "../model/graph-weights.js";
import { pool } from "../model/pooling.js";
import { encodeModel } from "../onnx/encode.js";
import { Runtime, type Session, type TensorData, type TensorStore } from "../runtime/runtime.js";
import { numbersOf, randomNumbers, tensor } from "./gradients.test.support.js";
import {
  defineOp,
  differentiate,
  type Float,
  gather,
  gradientsOf,
  type Int,
  infoNce,
  input,
  type Op,
  parameter,
  sub,
} from "./index.js";
import { lowerScatterAdd } from "./ops/shape.js";

const CONFIG: BertConfig = {
  architecture: "bert",
  hiddenSize: 8,
  layers: 2,
  heads: 2,
  intermediateSize: 12,
  vocabularySize: 13,
  maxPositions: 9,
  layerNormEpsilon: 1e-12,
  typeVocabularySize: 2,
  activation: "gelu",
};

/** InfoNCE at temperature 0.1 over mean-pooled BERT vectors, document i the positive of query i, and its gradients. */
function contrastiveGraph(config: BertConfig, form: NumericForm) {
  const weights = new GraphWeights(form);
  const model = bert(config, weights);
  const vectors = (name: string, length: string) => {
    const mask = input(`${name}Mask`, form.dtype, ["B", length]) as Float;
    const ids = input(`${name}Ids`, "int32", ["B", length]) as Int;
    return pool("mean", model.encode(model.embed(ids), mask), mask);
  };
  const labels = input("identity", form.dtype, ["B", "B"]) as Float;
  const loss = infoNce({
    queryVectors: vectors("query", "S"),
    documentVectors: vectors("document", "T"),
    labels,
    masked: sub(labels, labels), // none
    logitScale: 10,
  });
  const parameters = [...weights.parameters.entries()];
  const gradients = gradientsOf(
    loss,
    parameters.map(([, value]) => value),
  );
  return {
    parameters,
    forward: encodeModel({ loss }),
    both: encodeModel({ loss, ...Object.fromEntries(parameters.map(([name], i) => [`g/${name}`, gradients[i]!])) }),
  };
}

/** Texts of random ids, every second one padded after two thirds. */
function batch(
  config: BertConfig,
  form: NumericForm,
  seed: number,
  texts: number,
  lengths: [query: number, doc: number],
) {
  const random = randomNumbers(seed);
  const feeds: Record<string, TensorData> = {};
  for (const [i, name] of (["query", "document"] as const).entries()) {
    const length = lengths[i]!;
    const places = Array.from({ length: texts * length }, (_, at) => [Math.floor(at / length), at % length] as const);
    const ids = places.map(() => Math.floor(random() * config.vocabularySize));
    const mask = places.map(([text, at]) => (text % 2 === 1 && at >= (2 * length) / 3 ? 0 : 1));
    feeds[`${name}Ids`] = tensor("int32", [texts, length], ids);
    feeds[`${name}Mask`] = tensor(form.dtype, [texts, length], mask);
  }
  const identity = Array.from({ length: texts * texts }, (_, i) => (i % (texts + 1) === 0 ? 1 : 0));
  return { ...feeds, identity: tensor(form.dtype, [texts, texts], identity) };
}

function randomWeights(parameters: readonly (readonly [string, Float])[], spread: number): Record<string, TensorData> {
  const random = randomNumbers(3);
  return Object.fromEntries(
    parameters.map(([name, { dtype, shape }]) => {
      const size = shape.reduce<number>((a, b) => a * Number(b), 1);
      const middle = name.endsWith("LayerNorm.weight") ? 1 : 0;
      const values = Array.from({ length: size }, () => middle + spread * (2 * random() - 1));
      return [name, tensor(dtype, shape as number[], values)];
    }),
  );
}

describe("two layers of BERT, mask, mean pooling, L2 norm and InfoNCE", () => {
  test("the gradient of every parameter meets central differences to 1e-6 in float64", async () => {
    await using runtime = await Runtime.start({ threads: 1 });
    const form: NumericForm = { dtype: "float64", gelu: "tanh", layerNorm: "composed" };
    const { parameters, forward, both } = contrastiveGraph(CONFIG, form);
    const values = randomWeights(parameters, 0.6);
    const weights = runtime.createStore();
    await weights.write(values);
    const feeds = batch(CONFIG, form, 5, 3, [4, 6]);
    const gradients = await (await runtime.open(both, { weights })).run(feeds);
    const session = await runtime.open(forward, { weights });
    const lossAt = async (name: string, entry: number, by: number) => {
      const { dtype, shape } = values[name]!;
      const changed = numbersOf(values[name]!);
      changed[entry] = changed[entry]! + by;
      await weights.write({ [name]: tensor(dtype, shape, changed) });
      return numbersOf((await session.run(feeds)).loss!)[0]!;
    };

    const step = 1e-5;
    const largest = Math.max(...parameters.flatMap(([name]) => numbersOf(gradients[`g/${name}`]!).map(Math.abs)));
    expect(largest).toBeGreaterThan(0.01);
    let entries = 0;
    let worst = { at: "", error: 0 };
    for (const [name] of parameters) {
      const gradient = numbersOf(gradients[`g/${name}`]!);
      for (let i = 0; i < gradient.length; i += Math.max(1, Math.floor(gradient.length / 9))) {
        const measured = ((await lossAt(name, i, step)) - (await lossAt(name, i, -step))) / (2 * step);
        // Some are 0 by their nature (a bias of the keys moves no softmax), so differences count from 1e-3 of the largest.
        const size = Math.max(Math.abs(measured), Math.abs(gradient[i]!), 1e-3 * largest);
        const error = Math.abs(measured - gradient[i]!) / size;
        if (!(error <= worst.error)) worst = { at: `${name}[${i}]`, error };
        entries++;
      }
      await weights.write({ [name]: values[name]! });
    }
    expect(parameters).toHaveLength(5 + 16 * CONFIG.layers);
    expect(entries).toBeGreaterThan(300);
    expect(worst.error, `${worst.at}, of ${entries} entries`).toBeLessThanOrEqual(1e-6);
  });

  test("gradients cached at the vectors, and sent on text by text, are the direct ones to 1e-9 in float64", async () => {
    await using runtime = await Runtime.start({ threads: 1 });
    const form: NumericForm = { dtype: "float64", gelu: "tanh", layerNorm: "composed" };
    const { parameters, both } = contrastiveGraph(CONFIG, form);
    const weights = runtime.createStore();
    await weights.write(randomWeights(parameters, 0.6));
    const direct = await runtime.open(both, { weights });

    // The same in pieces: vectors of some texts, the loss of vectors, and the gradient of some texts for one at their vectors.
    const tower = new GraphWeights(form);
    const model = bert(CONFIG, tower);
    const mask = input("mask", form.dtype, ["N", "L"]) as Float;
    const vectors = pool("mean", model.encode(model.embed(input("ids", "int32", ["N", "L"]) as Int), mask), mask);
    const [queryVectors, documentVectors, labels] = ["query", "document", "identity"].map((name) =>
      input(name, form.dtype, ["B", name === "identity" ? "B" : CONFIG.hiddenSize]),
    ) as [Float, Float, Float];
    const loss = infoNce({ queryVectors, documentVectors, labels, masked: sub(labels, labels), logitScale: 10 });
    const [atQueries, atDocuments] = gradientsOf(loss, [queryVectors, documentVectors]);
    const names = [...tower.parameters.keys()];
    const sent = differentiate(
      [[vectors, input("cached", form.dtype, ["N", CONFIG.hiddenSize]) as Float]],
      [...tower.parameters.values()],
    ) as Float[];
    const forward = await runtime.open(encodeModel({ vectors }), { weights });
    const middle = await runtime.open(encodeModel({ query: atQueries!, document: atDocuments! }), { weights });
    const backward = await runtime.open(encodeModel(Object.fromEntries(names.map((name, i) => [name, sent[i]!]))), {
      weights,
    });

    const texts = 6;
    const lengths = { query: 4, document: 6 };
    async function cached(feeds: Readonly<Record<string, TensorData>>): Promise<Map<string, number[]>> {
      const pieces = (["query", "document"] as const).flatMap((side) =>
        [0, 2, 4].map((first) => {
          const part = (name: "Ids" | "Mask") => {
            const all = numbersOf(feeds[`${side}${name}`]!);
            const some = all.slice(first * lengths[side], (first + 2) * lengths[side]);
            return tensor(name === "Ids" ? "int32" : form.dtype, [2, lengths[side]], some);
          };
          return { side, first, feeds: { ids: part("Ids"), mask: part("Mask") } };
        }),
      );
      const whole = { query: [] as number[], document: [] as number[] };
      for (const piece of pieces) {
        whole[piece.side].push(...numbersOf((await forward.run(piece.feeds)).vectors!));
      }
      const shape = [texts, CONFIG.hiddenSize];
      const atVectors = await middle.run({
        query: tensor(form.dtype, shape, whole.query),
        document: tensor(form.dtype, shape, whole.document),
        identity: feeds.identity!,
      });
      const sums = new Map<string, number[]>();
      for (const { side, first, feeds: piece } of pieces) {
        const rows = numbersOf(atVectors[side]!).slice(first * CONFIG.hiddenSize, (first + 2) * CONFIG.hiddenSize);
        const found = await backward.run({ ...piece, cached: tensor(form.dtype, [2, CONFIG.hiddenSize], rows) });
        for (const name of names) {
          const before = sums.get(name);
          sums.set(
            name,
            numbersOf(found[name]!).map((value, i) => value + (before?.[i] ?? 0)),
          );
        }
      }
      return sums;
    }
    /** Of the tensor that differs most, relative to its largest entry. */
    const apart = (a: ReadonlyMap<string, number[]>, b: ReadonlyMap<string, number[]>) =>
      Math.max(
        ...names.map((name) => {
          if (name.endsWith("key.bias")) return 0; // 0 but for rounding
          const largest = Math.max(...a.get(name)!.map(Math.abs));
          return Math.max(...a.get(name)!.map((value, i) => Math.abs(value - b.get(name)![i]!))) / largest;
        }),
      );
    const batches = [5, 6].map((seed) => batch(CONFIG, form, seed, texts, [lengths.query, lengths.document]));
    const [one, other] = await Promise.all(
      batches.map(async (feeds) => {
        const all = await direct.run(feeds);
        return new Map(names.map((name) => [name, numbersOf(all[`g/${name}`]!)]));
      }),
    );
    const inPieces = await cached(batches[0]!);
    expect(apart(one!, inPieces)).toBeLessThanOrEqual(1e-9);
    expect(apart(other!, inPieces)).toBeGreaterThan(0.01);
  });
});

const THREADS = availableParallelism();
const TABLE = [4096, 384] as const;
const ROWS = 8192;

/** A scatter by the op that loses updates: only to show that these tests would see it. */
const racingScatterAdd: Op<[table: Float, indices: Int, rows: Float]> = defineOp("ScatterND", {
  infer: ([table]) => ({ dtype: table.dtype, shape: table.shape }),
  gradient: "none",
  lower: (emitter, node, outputs) =>
    lowerScatterAdd(emitter, node.inputs as unknown as [Float, Int, Float], outputs, "ScatterND"),
});

describe("many threads and one give the same gradients", () => {
  const table = parameter("table", TABLE);
  const ids = input("ids", "int32", ["N"]) as Int;
  const rows = input("rows", "float32", ["N", TABLE[1]]);
  const random = randomNumbers(17);
  // Zipf: the id k is drawn in proportion to 1/(k + 1).
  const zipf = Int32Array.from({ length: ROWS }, () => Math.floor(TABLE[0] ** random()) - 1);
  const updates = Float32Array.from({ length: ROWS * TABLE[1] }, () => random() - 0.5);
  const feeds = {
    ids: { dtype: "int32", shape: [ROWS], data: zipf },
    rows: { dtype: "float32", shape: [ROWS, TABLE[1]], data: updates },
  } as const;
  const expected = new Float32Array(TABLE[0] * TABLE[1]);
  zipf.forEach((id, row) => {
    for (let j = 0; j < TABLE[1]; j++) expected[id * TABLE[1] + j]! += updates[row * TABLE[1] + j]!;
  });

  async function scatterSession(runtime: Runtime, gradient: Float): Promise<Session> {
    const weights = runtime.createStore();
    await weights.write({ table: { dtype: "float32", shape: TABLE, data: new Float32Array(expected.length) } });
    return await runtime.open(encodeModel({ gradient }), { weights });
  }
  /** Elements that are not the sum; `tolerance` lets another order of adding pass, which is off by 3e-5. */
  async function wrongElements(session: Session, tolerance: number): Promise<number> {
    const { data } = (await session.run(feeds)).gradient!;
    return (data as Float32Array).reduce(
      (wrong, value, i) => (Math.abs(value - expected[i]!) <= tolerance ? wrong : wrong + 1),
      0,
    );
  }

  test("the embedding lookup's gradient is the sum in order, bit for bit, on one thread and on several", async () => {
    const [gradient] = differentiate([[gather(table, ids), rows]], [table]) as [Float];
    for (const threads of [1, Math.max(2, THREADS)]) {
      await using runtime = await Runtime.start({ threads });
      const session = await scatterSession(runtime, gradient);
      for (let run = 0; run < 3; run++) expect(await wrongElements(session, 0), `${threads} threads`).toBe(0);
    }
  });

  test.skipIf(THREADS < 2)(
    "the same test sees the updates that ScatterND loses (skipped with fewer than 2 cores)",
    async () => {
      const gradient = racingScatterAdd(table, ids, rows);
      await using one = await Runtime.start({ threads: 1 });
      expect(await wrongElements(await scatterSession(one, gradient), 0)).toBe(0);
      await using many = await Runtime.start({ threads: THREADS });
      const session = await scatterSession(many, gradient);
      // Most runs lose updates; some only add in another order, or happen to be right.
      let lost = 0;
      for (let run = 0; run < 240 && lost === 0; run++) lost = await wrongElements(session, 1e-2);
      expect(lost).toBeGreaterThan(0);
    },
  );

  test("2,304 tokens through a BERT: every gradient is equal within float32 rounding, and another batch's isn't", async () => {
    const config = {
      ...CONFIG,
      hiddenSize: 128,
      heads: 4,
      intermediateSize: 512,
      vocabularySize: 1000,
      maxPositions: 128,
    };
    const { parameters, both } = contrastiveGraph(config, EXACT);
    const values = randomWeights(parameters, 0.1);
    const gradientsWith = async (threads: number, ...seeds: number[]) => {
      await using runtime = await Runtime.start({ threads });
      const weights: TensorStore = runtime.createStore();
      await weights.write(values);
      const session = await runtime.open(both, { weights });
      const found = [];
      for (const seed of seeds) found.push(await session.run(batch(config, EXACT, seed, 16, [16, 128])));
      return found;
    };
    /** Of the tensor that differs most, relative to its largest entry. */
    const difference = (a: Readonly<Record<string, TensorData>>, b: Readonly<Record<string, TensorData>>) =>
      Math.max(
        ...parameters.map(([parameter]) => {
          // The keys' bias has the gradient 0, so only rounding is left of it.
          if (parameter.endsWith("key.bias")) return 0;
          const [x, y] = [numbersOf(a[`g/${parameter}`]!), numbersOf(b[`g/${parameter}`]!)];
          let [largest, furthest] = [0, 0];
          x.forEach((value, i) => {
            largest = Math.max(largest, Math.abs(value));
            furthest = Math.max(furthest, Math.abs(value - y[i]!));
          });
          return furthest / largest;
        }),
      );
    const [one, other] = await gradientsWith(1, 1, 2);
    const [many] = await gradientsWith(Math.max(2, THREADS), 1);
    expect(difference(one!, many!)).toBeLessThanOrEqual(1e-5);
    expect(difference(one!, other!)).toBeGreaterThan(1e-2);
  });
});

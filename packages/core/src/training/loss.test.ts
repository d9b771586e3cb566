/** The loss of batches against the reference's own labels, masks, loss and gradients (`golden/train-loss`). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { goldenJson } from "../model/golden.test.support.js";
import { createRandom } from "../random.js";
import { Runtime } from "../runtime/runtime.js";
import { Contrast } from "./contrast.js";
import { ContrastiveLoss, type LossSettings } from "./loss.js";

type Matrix = readonly (readonly number[])[];

interface LossCase {
  readonly name: string;
  readonly logit_scale: number;
  readonly hard_negatives_per_query: number;
  readonly idx: readonly number[];
  readonly hn_tune_threshold: number | null;
  readonly use_in_batch_negatives: boolean;
  readonly e1: Matrix;
  readonly e2: Matrix;
  readonly surrogate_scores: Matrix | null;
  readonly one_hot: Matrix;
  readonly duplicate: Matrix;
  readonly loss: number;
  readonly accuracy: number;
  readonly grad_e1: Matrix;
  readonly grad_e2: Matrix;
}

const { cases, tolerance } = goldenJson<{
  cases: readonly LossCase[];
  tolerance: { loss: number; gradient_relative_to_largest_entry: number };
}>("train-loss/loss.json");

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

const PLAIN: Omit<LossSettings, "dimensions"> = { symmetric: false, widths: [], distillation: undefined };

async function open(dimensions: number, logitScale: number, changes: Partial<LossSettings> = {}) {
  const store = runtime.createStore();
  await store.write({ logScale: { dtype: "float32", shape: [1], data: Float32Array.of(Math.log(logitScale)) } });
  const widths = [{ width: dimensions, weight: 1 }];
  return ContrastiveLoss.open(runtime, { ...PLAIN, dimensions, widths, ...changes }, store.at("logScale"));
}

/** SPEC §5.2: what the surrogate's scores flag, before the rules of the batch. */
function flagged({ surrogate_scores: scores, hn_tune_threshold: t }: LossCase): Uint8Array | undefined {
  if (!scores || t === null || t <= 0) return undefined;
  return Uint8Array.from(scores.flatMap((row, i) => row.map((s) => Number(s >= (t === 1 ? row[i]! : t)))));
}

function contrastOf(example: LossCase): Contrast {
  return new Contrast({
    ids: example.idx.map(String),
    negatives: example.idx.map(() => example.hard_negatives_per_query),
    falseNegatives: flagged(example),
    inBatchNegatives: example.use_in_batch_negatives,
  });
}

function farthest(a: Float32Array, b: Matrix): number {
  const expected = b.flat();
  const largest = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs(value - a[i]!))) / largest;
}

describe("the reference's batches", () => {
  test.each(cases)("$name", async (example) => {
    const contrast = contrastOf(example);
    const { labels, masked } = contrast.ofQueries(0, contrast.queries);
    const shares = example.one_hot.map((row) => row.map((value) => value / row.reduce((a, b) => a + b, 0)));
    expect([...labels]).toEqual(Array.from(Float32Array.from(shares.flat())));
    expect([...masked]).toEqual(example.duplicate.flat());

    const loss = await open(example.e1[0]!.length, example.logit_scale);
    const found = await loss.run(contrast, {
      queries: Float32Array.from(example.e1.flat()),
      documents: Float32Array.from(example.e2.flat()),
    });
    expect(Math.abs(found.loss - example.loss)).toBeLessThan(tolerance.loss);
    expect(found.accuracy).toBeCloseTo(example.accuracy, 6);
    const bound = tolerance.gradient_relative_to_largest_entry;
    expect(farthest(found.dQueries, example.grad_e1)).toBeLessThan(bound);
    expect(farthest(found.dDocuments, example.grad_e2)).toBeLessThan(bound);
  });

  test("and neither labels, masks nor loss are those of a batch that lost its filter or its hard negatives' owners", () => {
    const filtered = cases.find(({ name }) => name === "one hard negative each, threshold 1.0")!;
    const { masked } = contrastOf({ ...filtered, hn_tune_threshold: null }).ofQueries(0, filtered.idx.length);
    expect([...masked]).not.toEqual(filtered.duplicate.flat());
    const own = contrastOf({ ...filtered, idx: filtered.idx.toReversed() });
    expect([...own.ofQueries(0, own.queries).masked]).toEqual(filtered.duplicate.flat()); // ids are names only
  });
});

describe("the other forms of the loss", () => {
  const random = createRandom(3);
  const [pairs, width] = [6, 8];
  const matrix = (rows: number) => Float32Array.from({ length: rows * width }, () => random.normal());
  const vectors = { queries: matrix(pairs), documents: matrix(pairs + 4) };
  const flags = Uint8Array.from({ length: pairs * (pairs + 4) }, () => Number(random.next() < 0.2));
  const contrast = new Contrast({
    ids: Array.from({ length: pairs }, (_, i) => `pair-${i}`),
    negatives: [1, 0, 2, 0, 1, 0],
    falseNegatives: flags,
  });

  /** The same in float64, straight from the formulas. */
  function expected(settings: { symmetric?: boolean; widths?: readonly number[]; logitScale: number }, v = vectors) {
    const cosine = (a: Float32Array, i: number, b: Float32Array, j: number, w: number) => {
      let [dot, aa, bb] = [0, 0, 0];
      for (let k = 0; k < w; k++) {
        const [x, y] = [a[i * width + k]!, b[j * width + k]!];
        dot += x * y;
        aa += x * x;
        bb += y * y;
      }
      return dot / Math.sqrt(aa * bb);
    };
    const total = pairs + 4;
    const owner = [0, 1, 2, 3, 4, 5, 0, 2, 2, 4];
    const kept = (i: number, j: number) => j === i || owner[j] === i || flags[i * total + j] === 0;
    const crossEntropy = (score: (i: number, j: number) => number | undefined, columns: number) => {
      let sum = 0;
      for (let i = 0; i < pairs; i++) {
        let denominator = 0;
        for (let j = 0; j < columns; j++) {
          const s = score(i, j);
          if (s !== undefined) denominator += Math.exp(settings.logitScale * s);
        }
        sum += Math.log(denominator) - settings.logitScale * score(i, i)!;
      }
      return sum / pairs;
    };
    const widths = settings.widths ?? [width];
    const mean = (of: (w: number) => number) => widths.reduce((sum, w) => sum + of(w), 0) / widths.length;
    const forward = mean((w) =>
      crossEntropy((i, j) => (kept(i, j) ? cosine(v.queries, i, v.documents, j, w) : undefined), total),
    );
    if (!settings.symmetric) return forward;
    const back = mean((w) =>
      crossEntropy((i, j) => (kept(j, i) ? cosine(v.documents, i, v.queries, j, w) : undefined), pairs),
    );
    return (forward + back) / 2;
  }

  test("are the formulas': both directions, and the first entries alone", async () => {
    for (const symmetric of [false, true]) {
      for (const widths of [[8], [8, 4, 2]]) {
        const weights = widths.map((w) => ({ width: w, weight: 1 / widths.length }));
        const { loss } = await (await open(width, 20, { symmetric, widths: weights })).run(contrast, vectors);
        expect(loss).toBeCloseTo(expected({ symmetric, widths, logitScale: 20 }), 4);
      }
    }
    expect(expected({ logitScale: 20 })).not.toBeCloseTo(expected({ symmetric: true, logitScale: 20 }), 2);
    expect(expected({ logitScale: 20 })).not.toBeCloseTo(expected({ widths: [8, 4, 2], logitScale: 20 }), 2);
  });

  test("have the gradient of the temperature, which finite differences give", async () => {
    const loss = await open(width, 20, { symmetric: true });
    const { dLogScale } = await loss.run(contrast, vectors);
    const at = (logScale: number) => expected({ symmetric: true, logitScale: Math.exp(logScale) });
    const h = 1e-5;
    expect(dLogScale).toBeCloseTo((at(Math.log(20) + h) - at(Math.log(20) - h)) / (2 * h), 3);
  });

  test("are the same in blocks as in one", async () => {
    const many = 1200; // 1,200 × 1,200 entries are three blocks
    const values = { queries: matrix(many), documents: matrix(many) };
    const ids = Array.from({ length: many }, (_, i) => String(i));
    const large = new Contrast({ ids, negatives: ids.map(() => 0) });
    const loss = await open(width, 5, { symmetric: true });
    const whole = await loss.run(large, values);
    const swapped = await loss.run(large, { queries: values.documents, documents: values.queries });
    expect(swapped.loss).toBeCloseTo(whole.loss, 4); // a symmetric loss has no sides
    // The first query's gradient, by central differences of the whole loss.
    const h = 1e-2;
    const moved = async (by: number) => {
      const queries = values.queries.slice();
      queries[0]! += by;
      return (await loss.run(large, { ...values, queries })).loss;
    };
    expect(many * whole.dQueries[0]!).toBeCloseTo((many * ((await moved(h)) - (await moved(-h)))) / (2 * h), 1);
  });

  test("distil: nothing is lost against oneself, and the term pulls towards the base", async () => {
    const distillation = { weight: 2, temperature: 0.1 };
    const loss = await open(width, 20, { distillation });
    const same = await loss.run(contrast, { ...vectors, base: vectors });
    expect(same.distillation).toBeCloseTo(0, 5);
    expect(same.loss).toBeCloseTo(expected({ logitScale: 20 }), 4);
    const base = { queries: matrix(pairs), documents: matrix(pairs + 4) };
    const other = await loss.run(contrast, { ...vectors, base });
    expect(other.distillation).toBeGreaterThan(0.1);
    expect(other.loss - other.distillation).toBeCloseTo(expected({ logitScale: 20 }), 4);
    expect([...other.dQueries]).not.toEqual([...same.dQueries]);
  });

  test("behind a map are the loss of mapped vectors, with the gradient of those before it", async () => {
    const shift = Float32Array.from({ length: width }, () => 0.3 * random.normal());
    const matrix = new Float32Array(width * width);
    for (let i = 0; i < width; i++) {
      for (let j = 0; j <= i; j++) {
        const entry = Number(i === j) + 0.2 * random.normal();
        matrix[i * width + j] = entry;
        matrix[j * width + i] = entry;
      }
    }
    const mapped = (rows: Float32Array) =>
      rows.map((_, at) => {
        const [row, k] = [Math.floor(at / width), at % width];
        let sum = 0;
        for (let i = 0; i < width; i++) sum += (rows[row * width + i]! - shift[i]!) * matrix[i * width + k]!;
        return sum;
      });
    const behind = (v: typeof vectors) => ({ queries: mapped(v.queries), documents: mapped(v.documents) });
    const map = {
      matrix: { dtype: "float32", shape: [width, width], data: matrix },
      shift: { dtype: "float32", shape: [width], data: shift },
    } as const;
    const loss = await open(width, 20, { symmetric: true, mapped: true });
    const found = await loss.run(contrast, { ...vectors, map });
    expect(found.loss).toBeCloseTo(expected({ symmetric: true, logitScale: 20 }, behind(vectors)), 4);
    expect(found.loss).not.toBeCloseTo(expected({ symmetric: true, logitScale: 20 }), 1);
    const h = 1e-3;
    for (const at of [0, 13, 47]) {
      const moved = (by: number) => {
        const queries = vectors.queries.slice();
        queries[at]! += by;
        return expected({ symmetric: true, logitScale: 20 }, behind({ ...vectors, queries }));
      };
      expect(found.dQueries[at]).toBeCloseTo((moved(h) - moved(-h)) / (2 * h), 2);
    }
    // Nothing is lost against oneself behind the map, and something against oneself before it.
    const distilling = await open(width, 20, { mapped: true, distillation: { weight: 2, temperature: 0.1 } });
    const distilled = async (base: typeof vectors) =>
      (await distilling.run(contrast, { ...vectors, map, base })).distillation;
    expect(await distilled(behind(vectors))).toBeCloseTo(0, 4);
    expect(await distilled(vectors)).toBeGreaterThan(0.1);
  });

  test("refuse flags of another batch, and hard negatives alone where a pair has none", () => {
    expect(() => new Contrast({ ids: ["a", "b"], negatives: [0, 0], falseNegatives: new Uint8Array(3) })).toThrow(
      "falseNegatives of 2 pairs and 2 documents has 4 entries, got 3",
    );
    expect(() => new Contrast({ ids: ["a", "b"], negatives: [1, 0], inBatchNegatives: false })).toThrow(
      'every pair needs a hard negative, pair "b" has none',
    );
  });
});

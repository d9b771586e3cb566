/** InfoNCE against the reference's own loss and gradients on given vectors (`golden/train-loss`). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { float32, goldenJson, relativeDifference, runGraph } from "../model/golden.test.support.js";
import { Runtime, type TensorData } from "../runtime/runtime.js";
import { gradientsOf } from "./differentiate.js";
import { infoNce } from "./losses.js";
import { type Float, input } from "./value.js";

type Matrix = readonly (readonly number[])[];

interface LossCase {
  readonly name: string;
  readonly logit_scale: number;
  readonly e1: Matrix;
  readonly e2: Matrix;
  readonly one_hot: Matrix;
  readonly duplicate: Matrix;
  readonly loss: number;
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

function tensor(matrix: Matrix): TensorData {
  return float32([matrix.length, matrix[0]!.length], matrix.flat());
}

/** The positives of a query share 1. */
function sharesOf(oneHot: Matrix): Matrix {
  return oneHot.map((row) => row.map((value) => value / row.reduce((sum, entry) => sum + entry, 0)));
}

async function run({ e1, e2, one_hot: oneHot, duplicate, logit_scale: logitScale }: LossCase) {
  const queryVectors = input("e1", "float32", ["Q", e1[0]!.length]) as Float;
  const documentVectors = input("e2", "float32", ["D", e1[0]!.length]) as Float;
  const [labels, masked] = ["labels", "masked"].map((name) => input(name, "float32", ["Q", "D"]) as Float);
  const loss = infoNce({ queryVectors, documentVectors, labels: labels!, masked: masked!, logitScale });
  const [dQueries, dDocuments] = gradientsOf(loss, [queryVectors, documentVectors]);
  const feeds = { e1: tensor(e1), e2: tensor(e2), labels: tensor(sharesOf(oneHot)), masked: tensor(duplicate) };
  const outputs = await runGraph(runtime, { loss, dQueries: dQueries!, dDocuments: dDocuments! }, new Map(), feeds);
  return { loss: Number(outputs.loss!.data[0]), gradients: [outputs.dQueries!, outputs.dDocuments!] };
}

describe("InfoNCE is the reference's, with its gradients", () => {
  test.each(cases)("$name", async (example) => {
    const { loss, gradients } = await run(example);
    expect(Math.abs(loss - example.loss)).toBeLessThan(tolerance.loss);
    const bound = tolerance.gradient_relative_to_largest_entry;
    expect(relativeDifference(gradients[0]!, tensor(example.grad_e1))).toBeLessThan(bound);
    expect(relativeDifference(gradients[1]!, tensor(example.grad_e2))).toBeLessThan(bound);
  });

  test("and not with queries for documents, another scale, or the mask left out", async () => {
    const plain = cases[0]!;
    const swapped = await run({ ...plain, e1: plain.e2, e2: plain.e1 });
    expect(Math.abs(swapped.loss - plain.loss)).toBeGreaterThan(100 * tolerance.loss);
    const scaled = await run({ ...plain, logit_scale: 20 });
    expect(Math.abs(scaled.loss - plain.loss)).toBeGreaterThan(100 * tolerance.loss);
    const filtered = cases.find(({ duplicate }) => duplicate.flat().some(Boolean))!;
    const unmasked = await run({ ...filtered, duplicate: filtered.duplicate.map((row) => row.map(() => 0)) });
    expect(Math.abs(unmasked.loss - filtered.loss)).toBeGreaterThan(100 * tolerance.loss);
  });
});

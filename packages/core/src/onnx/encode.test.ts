import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { numbersOf, tensor } from "../graph/gradients.test.support.js";
import {
  add,
  constant,
  type DType,
  definedOps,
  defineOp,
  expand,
  type Float,
  gather,
  gemm,
  gradientsOf,
  type Int,
  input,
  linear,
  matMul,
  mul,
  multiplyDims,
  type Op,
  parameter,
  printGraph,
  reduceSum,
  reshape,
  scalar,
  scale,
  scope,
  slice,
  softmax,
  split,
  storedTensor,
  tanh,
  type Value,
} from "../graph/index.js";
import { Runtime } from "../runtime/runtime.js";
import { type EncodedModel, encodeModel, plainName } from "./encode.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

const decode = ({ bytes }: EncodedModel) => fromBinary(ModelProtoSchema, bytes);
const x = input("x", "float32", ["B", "S", 2]);
const feed = (batch: number, length: number) => ({
  x: tensor(
    "float32",
    [batch, length, 2],
    Array.from({ length: batch * length * 2 }, (_, i) => i),
  ),
});

test("a graph and its gradient print as text", () => {
  const ids = input("ids", "int32", ["B"]) as Int;
  const table = parameter("table", [9, 4]);
  const loss = scope("loss", () => {
    const [left] = split(
      scope("embed", () => gather(table, ids)),
      { axis: 1, parts: 2 },
    ) as [Float];
    return reduceSum(softmax(gemm(left, parameter("w", [3, 2]), undefined, { transB: 1 })), { axes: [0, 1] });
  });
  const factor = parameter("factor", [1]);
  const product = mul(loss, reshape(factor, []));
  expect(printGraph({ product, dFactor: gradientsOf(product, [factor])[0]! })).toMatchInlineSnapshot(`
    "%0 float32[B, 4] = Gather(p/table, in/ids)  # loss/embed
    %1 float32[B, 2], %2 float32[B, 2] = Split(%0, axis=1, num_outputs=2)  # loss
    %3 float32[B, 3] = Gemm(%1, p/w, –, transB=1)  # loss
    %4 float32[B, 3] = Softmax(%3)  # loss
    %5 float32[] = ReduceSum(%4, axes=[0,1], keepdims=0)  # loss
    %6 float32[] = Reshape(p/factor, shape=[])
    %7 float32[] = Mul(%5, %6)
    %8 float32[] = Mul(1, %5)  # gradient
    %9 float32[1] = Reshape(%8, shape=[1])  # gradient
    product: %7 float32[]
    dFactor: %9 float32[1]"
  `);
  expect(printGraph({ dTable: gradientsOf(loss, [table])[0]! })).toMatchInlineSnapshot(`
    "%0 float32[B, 4] = Gather(p/table, in/ids)  # loss/embed
    %1 float32[B, 2], %2 float32[B, 2] = Split(%0, axis=1, num_outputs=2)  # loss
    %3 float32[B, 3] = Gemm(%1, p/w, –, transB=1)  # loss
    %4 float32[B, 3] = Softmax(%3)  # loss
    %5 float32[1, 1] = Reshape(1, shape=[1,1])  # gradient/loss
    %6 float32[B, 3] = Expand(%5, shape=["B",3])  # gradient/loss
    %7 float32[B, 3] = Mul(%6, %4)  # gradient/loss
    %8 float32[B, 1] = ReduceSum(%7, axes=[1], keepdims=1)  # gradient/loss
    %9 float32[B, 3] = Sub(%6, %8)  # gradient/loss
    %10 float32[B, 3] = Mul(%4, %9)  # gradient/loss
    %11 float32[B, 2] = Gemm(%10, p/w, –, transB=0)  # gradient/loss
    %12 float32[B, 2] = Expand(0, shape=["B",2])  # gradient/loss
    %13 float32[B, 4] = Concat(%11, %12, axis=1)  # gradient/loss
    %14 float32[9, 4] = ScatterElements(p/table, in/ids, %13)  # gradient/loss/embed
    dTable: %14 float32[9, 4]"
  `);
});

describe("symbolic shapes are computed when the graph runs", () => {
  const shapesFor = async (value: Value, sizes: readonly (readonly [number, number])[]) => {
    const session = await runtime.open(encodeModel({ value, x }));
    const shapes = [];
    for (const [batch, length] of sizes) shapes.push((await session.run(feed(batch, length))).value!.shape);
    await session.close();
    return shapes;
  };
  const ones = (shape: readonly (number | string)[]) => expandTo(shape);

  test.each<[string, readonly (number | string)[], number[][]]>([
    ["a symbol", ["S"], [[3], [5]]],
    ["a product", ["B*S"], [[6], [5]]],
    ["a sum", ["(8+S)"], [[11], [13]]],
    ["a difference", ["(9+-1*S)"], [[6], [4]]],
    ["a product of sums", [multiplyDims(["(1+B)", "(8+S)"])], [[33], [26]]],
    ["a product of sums as written", ["(1+B)*(8+S)"], [[33], [26]]],
    [
      "several",
      ["B", 2, "(B+S)", "2*S"],
      [
        [2, 2, 5, 6],
        [1, 2, 6, 10],
      ],
    ],
  ])("%s", async (_, shape, expected) => {
    expect(
      await shapesFor(ones(shape), [
        [2, 3],
        [1, 5],
      ]),
    ).toEqual(expected);
  });

  test("reshape to several symbols, and slices by sums of them", async () => {
    const flat = reshape(x, ["B*S", 2]);
    expect(await shapesFor(reshape(flat, ["S", "B", 2]), [[2, 3]])).toEqual([[3, 2, 2]]);
    expect(await shapesFor(slice(flat, { axis: 0, start: "S", end: "B*S" }), [[2, 3]])).toEqual([[3, 2]]);
  });

  test("a dimension that an input has as a whole is read from it", async () => {
    const flat = input("flat", "float32", ["B*S", 2]);
    const session = await runtime.open(encodeModel({ row: add(expandTo(["B*S"]), reduceSum(flat, { axes: [1] })) }));
    expect((await session.run({ flat: tensor("float32", [3, 2], [1, 2, 3, 4, 5, 6]) })).row!.shape).toEqual([3]);
  });

  test("a symbol that no input has is an error that names it", () => {
    expect(() => encodeModel({ value: expandTo(["T"]), x })).toThrow('no input of the graph has the dimension "T"');
  });
});

describe("names", () => {
  test("an output that is an input, a weight, a constant, or another output gets its own name by Identity", async () => {
    const w = parameter("w", [2]);
    const sum = add(x, w);
    const model = encodeModel({ sum, again: sum, same: x, weight: w, seven: scalar(7, "float32") });
    expect(decode(model).graph!.node.map(({ opType, output }) => `${opType} ${output}`)).toEqual([
      "Add sum",
      "Identity again",
      "Identity same",
      "Identity weight",
      "Identity seven",
    ]);
    const weights = runtime.createStore();
    await weights.write({ w: tensor("float32", [2], [10, 20]) });
    const result = await (await runtime.open(model, { weights })).run(feed(1, 1));
    expect(Object.fromEntries(Object.entries(result).map(([name, value]) => [name, numbersOf(value)]))).toEqual({
      sum: [10, 21],
      again: [10, 21],
      same: [0, 1],
      weight: [10, 20],
      seven: [7],
    });
  });

  test("two tensors of one name, and an output named like an input or with a colon, are errors", () => {
    const twin = input("x", "float32", ["B", "S", 2]);
    expect(() => encodeModel({ sum: add(x, twin) })).toThrow("two different tensors are named in/x");
    const w = parameter("x", [2]);
    expect(encodeModel({ sum: add(x, w) }).inputs).toHaveLength(1); // in/x and p/x
    expect(() => encodeModel({ sum: add(x, w) }, { plainNames: true })).toThrow("two different tensors are named x");
    expect(() => encodeModel({ x: tanh(x) }, { plainNames: true })).toThrow('an output can\'t be named "x"');
    expect(() => encodeModel({ x }, { plainNames: true })).toThrow('an output can\'t be named "x"');
    expect(() => encodeModel({ "Tanh:0": tanh(x) })).toThrow("colon");
  });

  test("nodes carry their scope, which ONNX Runtime's errors repeat", async () => {
    const y = scope("layer.3", () => scope("mlp", () => tanh(x)));
    expect(decode(encodeModel({ y })).graph!.node[0]!.name).toBe("layer.3/mlp/Tanh_0");
  });

  test("plain names are what other programs and our runtime call the inputs", async () => {
    const w = parameter("w", [3, 2]);
    const v = input("v", "float32", ["N", 2]);
    const read = () => Float32Array.of(1, 0, 0, 1, 1, 1);
    const model = encodeModel({ y: linear(v, w) }, { plainNames: true, weights: { kind: "embedded", read } });
    expect(model.inputs.map(plainName)).toEqual(["v"]);
    const expected = [3, 4, 7];
    const other = await InferenceSession.create(model.bytes);
    expect(other.inputNames).toEqual(["v"]);
    const { y } = await other.run({ v: new Tensor("float32", Float32Array.of(3, 4), [1, 2]) });
    expect(Array.from(y!.data as Float32Array)).toEqual(expected);
    const session = await runtime.open(model);
    expect(numbersOf((await session.run({ v: tensor("float32", [1, 2], [3, 4]) })).y!)).toEqual(expected);
  });
});

describe("weights", () => {
  const values = [0.5, -1, 2, 3, 0.25, 1];
  const v = input("v", "float32", ["N", 2]);
  const graph = { y: linear(v, parameter("layer.0/w", [3, 2])) };

  test("fed, external and embedded give the same results, and another weight another", async () => {
    const given = { v: tensor("float32", [2, 2], [1, 2, 3, 4]) };
    const weights = runtime.createStore();
    await weights.write({ "layer.0/w": tensor("float32", [3, 2], values) });
    const read = () => Float32Array.from(values);
    const models = [
      encodeModel(graph),
      encodeModel(graph, { weights: { kind: "external" } }),
      encodeModel(graph, { weights: { kind: "embedded", read } }),
      encodeModel(graph, { weights: { kind: "external" }, plainNames: true }),
    ];
    expect(models.map((model) => model.weights)).toEqual(["feeds", "external", "embedded", "external"]);
    for (const model of models) {
      const session = await runtime.open(model, model.weights === "embedded" ? {} : { weights });
      // Rows of v times columns: [1·0.5 − 2, 1·2 + 2·3, 0.25 + 2], and so on.
      expect(numbersOf((await session.run(given)).y!)).toEqual([-1.5, 8, 2.25, -2.5, 18, 4.75]);
    }
    await weights.write({ "layer.0/w": tensor("float32", [3, 2], [0, 0, 0, 0, 0, 0]) });
    expect(numbersOf((await (await runtime.open(models[1]!, { weights })).run(given)).y!)).toEqual([0, 0, 0, 0, 0, 0]);
  });

  test("embedded with too few numbers are refused", () => {
    const read = () => Float32Array.of(1);
    expect(() => encodeModel(graph, { weights: { kind: "embedded", read } })).toThrow(
      "layer.0/w is float32[3, 2], got 1 numbers",
    );
  });

  test.each<[DType]>([["float32"], ["float64"], ["int32"], ["int64"], ["int8"], ["uint8"]])(
    "constants and stored tensors of %s arrive as they are",
    async (dtype) => {
      const numbers = dtype === "uint8" ? [0, 1, 200] : [-7, 0, 100];
      const weights = runtime.createStore();
      await weights.write({ w: tensor(dtype, [3], numbers) });
      const written = constant(dtype as "int8", [3, 1], numbers);
      const session = await runtime.open(encodeModel({ written, stored: storedTensor("w", dtype, [3]) }), { weights });
      expect(await session.run({})).toEqual({
        written: tensor(dtype, [3, 1], numbers),
        stored: tensor(dtype, [3], numbers),
      });
    },
  );
});

test("an op of com.microsoft imports its domain, and may have the name of one of ONNX", async () => {
  const fused: Op<[a: Float, b: Float], { transB: 0 | 1; alpha: { float: number } }> = defineOp("FusedMatMul", {
    infer: ([a, b]) => ({ dtype: a.dtype, shape: [a.shape[0]!, b.shape[0]!] }),
    gradient: "none",
    domain: "com.microsoft",
  });
  defineOp("Gelu", { infer: ([v]: readonly [Float]) => v, gradient: "none", domain: "com.microsoft" });
  expect(definedOps().has("com.microsoft.Gelu") && definedOps().has("Gelu")).toBe(true);
  expect(() => defineOp("Gelu", { infer: ([v]: readonly [Float]) => v, gradient: "none" })).toThrow("defined twice");

  const a = input("a", "float32", [1, 2]);
  const model = encodeModel({ y: fused(a, a, { transB: 1, alpha: { float: 0.5 } }) });
  expect(decode(model).opsetImport.map(({ domain, version }) => [domain, version])).toEqual([
    ["", 20n],
    ["com.microsoft", 1n],
  ]);
  expect(decode(encodeModel({ y: scale(a, 2) })).opsetImport).toHaveLength(1);
  const session = await runtime.open(model);
  expect(numbersOf((await session.run({ a: tensor("float32", [1, 2], [3, 4]) })).y!)).toEqual([12.5]); // (9 + 16) / 2
});

test("a product of a swapped operand is one node of ONNX Runtime's, but of the standard in files for other programs", () => {
  const a = input("a", "float32", [2, 3]);
  const ops = (y: Value, plainNames: boolean) =>
    decode(encodeModel({ y }, { plainNames })).graph!.node.map(({ opType, domain }) => `${domain}:${opType}`);
  expect(ops(matMul(a, a, { transB: 1 }), false)).toEqual(["com.microsoft:FusedMatMul"]);
  expect(ops(matMul(a, a, { transB: 1 }), true)).toEqual([":Transpose", ":MatMul"]);
  const double = input("a", "float64", [2, 3]); // which FusedMatMul doesn't take
  expect(ops(matMul(double, double, { transA: 1 }), false)).toEqual([":Transpose", ":MatMul"]);
});

/** Ones of a shape, without an input of its own. */
function expandTo(shape: readonly (number | string)[]): Float {
  return expand(scalar(1, "float32"), shape);
}

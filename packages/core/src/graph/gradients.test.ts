import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { encodeModel } from "../onnx/encode.js";
import { Runtime } from "../runtime/runtime.js";
import {
  FLOAT32,
  FLOAT32_STATISTICS,
  FLOAT64,
  largestDifference,
  numbersOf,
  type Precision,
  type Sample,
  type SampleInput,
  sized,
  tensor,
} from "./gradients.test.support.js";
import * as g from "./index.js";
import { definedOps, differentiate, type Float, gradientsOf, input, type Value } from "./index.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

const of = (...shape: number[]): SampleInput => ({ shape });
const B = ["B", 2] as const;
const S = ["S", 3] as const;
/** Two operands in every way they can broadcast. */
const binary = (op: (a: Float, b: Float) => Float): Sample[] =>
  [
    { a: of(2, 3), b: of(2, 3) },
    { a: of(4, 3), b: of(3) },
    { a: of(), b: of(2, 1, 3) },
    { a: of(3, 1), b: of(2, 1, 4) },
    { a: of(1, 1), b: of(1) },
    { a: sized([B, 1, 4]), b: sized([S, 1]) },
  ].map((inputs) => ({ inputs, build: ({ a, b }) => op(a!, b!) }));
const unary = (op: (x: Float) => Float, data?: readonly number[]): Sample[] => [
  { inputs: { x: data ? { shape: [data.length], data } : of(2, 3) }, build: ({ x }) => op(x!) },
  { inputs: { x: data ? { shape: [], data: data.slice(0, 1) } : of() }, build: ({ x }) => op(x!) },
];
const one = (inputs: Sample["inputs"], build: Sample["build"]): Sample => ({ inputs, build });
const x = (...shape: (number | readonly [string, number])[]) => ({ x: sized(shape) });
const POSITIVE = [0.4, 1, 2.5, 0.7];
const ids = (shape: number[], data: number[], dtype: "int32" | "int64" = "int64"): SampleInput => ({
  shape,
  data,
  dtype,
});

/** Products that read an operand with its last two axes swapped. */
const SWAPPED = [
  { transA: 0, transB: 1, a: of(2, 3), b: of(4, 3) },
  { transA: 1, transB: 0, a: of(2, 2, 3, 2), b: of(1, 2, 3, 4) },
  { transA: 1, transB: 1, a: of(3, 2), b: of(2, 4, 3) },
  { transA: 0, transB: 1, a: sized([2, B, S, 2]), b: sized([2, B, S, 2]) },
  { transA: 1, transB: 0, a: sized([2, B, S, 2]), b: sized([2, 1, S, 4]) },
] as const;

/** Every op by its name in the registry, with the shapes in which its rule could be wrong. */
const SAMPLES: Readonly<Record<string, readonly Sample[]>> = {
  Add: binary(g.add),
  Sub: binary(g.sub),
  Mul: binary(g.mul),
  Div: binary(g.div),
  Max: binary(g.max),
  Neg: unary(g.neg),
  Exp: unary(g.exp),
  Log: unary(g.log, POSITIVE),
  Sqrt: unary(g.sqrt, POSITIVE),
  Reciprocal: unary(g.reciprocal),
  Tanh: unary(g.tanh),
  Sigmoid: unary(g.sigmoid),
  Relu: unary(g.relu),
  Abs: unary(g.abs),
  Erf: unary(g.erf, [-2.2, -0.7, 0.01, 0.4, 1.3]),
  Gelu: unary((v) => g.gelu(v, "erf"), [-2.2, -0.7, 0.01, 0.4, 1.3]),
  Where: (
    [
      [of(2, 3), of(2, 3), of(2, 3)],
      [of(2, 1), of(3), of(2, 2, 1)],
      [of(3), of(), of(1, 3)],
    ] as const
  ).map(([c, a, b]) => ({
    inputs: { c: { ...c, dtype: "bool" as const, data: bits(c.shape as number[]) }, a, b },
    build: ({ c, a, b }) => g.where(c as unknown as Value<"bool">, a!, b!),
  })),
  Gemm: (
    [
      [0, 0, of(2, 3), of(3, 4), of(4)],
      [0, 1, of(2, 3), of(4, 3), of(2, 1)],
      [1, 0, of(3, 2), of(3, 4), of(1, 4)],
      [1, 1, of(3, 2), of(4, 3), of(2, 4)],
      [0, 1, of(1, 3), of(1, 3), of()],
      [0, 1, sized([B, 3]), of(4, 3), undefined],
      [1, 0, sized([S, 2]), sized([S, 4]), undefined],
    ] as const
  ).map(([transA, transB, a, b, c]) => ({
    inputs: { a, b, ...(c && { c }) },
    build: ({ a, b, c }) => g.gemm(a!, b!, c, { transA, transB }),
  })),
  MatMul: [
    [of(2, 3), of(3, 4)],
    [of(2, 2, 3), of(2, 3, 1)],
    [of(2, 1, 2, 3), of(3, 3, 2)],
    [of(2, 3), of(2, 3, 2)],
    [sized([B, 1, S, 2]), sized([2, 2, S])],
  ]
    .map(([a, b]) => ({ inputs: { a: a!, b: b! }, build: ({ a, b }) => g.matMul(a!, b!) }) as Sample)
    .concat(SWAPPED.map(({ a, b, ...swaps }) => one({ a, b }, ({ a, b }) => g.matMul(a!, b!, swaps)))),
  ReduceSum: reductions(g.reduceSum),
  ReduceMean: reductions(g.reduceMean),
  Softmax: [
    one(x(2, 3), ({ x }) => g.softmax(x!)),
    one(x(B, 2, S), ({ x }) => g.softmax(x!)),
    one(x(3, 1), ({ x }) => g.mul(g.softmax(x!), x!)),
  ],
  LogSoftmax: [one(x(2, 3), ({ x }) => g.logSoftmax(x!)), one(x(B, 2, S), ({ x }) => g.logSoftmax(x!))],
  LayerNormalization: [
    one({ x: of(3, 4), gain: of(4), bias: of(4) }, norm("fused")),
    one({ ...x(B, S, 4), gain: of(4) }, norm("fused")),
  ],
  Reshape: [
    one(x(2, 3, 2), ({ x }) => g.reshape(x!, [3, 4])),
    one(x(1, 1), ({ x }) => g.reshape(x!, [])),
    one(x(B, S, 4), ({ x }) => g.reshape(x!, ["B*S", 4])),
    one(x(B, S, 4), ({ x }) => g.reshape(x!, ["B", 2, "S", 2])),
  ],
  Expand: [
    one(x(1, 3), ({ x }) => g.expand(x!, [2, 4, 3])),
    one(x(), ({ x }) => g.expand(x!, [2])),
    one({ ...x(1, 3), like: { ...sized([B, S]), fixed: true } }, ({ x, like }) =>
      g.add(g.expand(g.reshape(x!, [1, 1, 3]), ["B", "S", 3]), g.reshape(like!, ["B", "S", 1])),
    ),
  ],
  Transpose: [
    [1, 0],
    [2, 0, 1],
    [3, 1, 0, 2],
  ].map((perm) => one(x(...[2, 3, 1, 4].slice(0, perm.length)), ({ x }) => g.transpose(x!, { perm }))),
  Concat: [
    one({ a: of(2, 1), b: of(2, 3), c: of(2, 2) }, ({ a, b, c }) => g.concat([a!, b!, c!], -1)),
    one({ a: of(2, 1), b: of(2, 3) }, ({ a, b }) => g.concat([a!, b!, a!], 1)),
    one({ a: sized([B, 2]), b: sized([S, 2]), c: of(4, 2) }, ({ a, b, c }) => g.concat([a!, b!, c!, a!], 0)),
  ],
  Slice: [
    one(x(2, 5), ({ x }) => g.slice(x!, { axis: 1, start: 1, end: 4 })),
    one(x(3, 2), ({ x }) => g.slice(x!, { axis: 0, start: 0, end: 3 })),
    one(x(B, S), ({ x }) => g.slice(x!, { axis: -1, start: 1, end: "S" })),
    // The position table of a BERT: as many rows as the text is long.
    one({ ...x(S, 2), table: of(7, 2) }, ({ x, table }) => g.mul(x!, g.slice(table!, { axis: 0, start: 0, end: "S" }))),
    one({ a: sized([B, 2]), b: sized([S, 2]) }, ({ a, b }) =>
      g.slice(g.concat([a!, b!], 0), { axis: 0, start: "B", end: "(B+S)" }),
    ),
  ],
  Pad: [
    one(x(2, 3), ({ x }) => g.pad(x!, { axis: 1, before: 1, after: 2, size: 6 })),
    one(x(B, S), ({ x }) => g.pad(x!, { axis: 0, before: "S", after: 0, size: "(B+S)" })),
  ],
  Split: [
    one(x(2, 6), ({ x }) => g.split(x!, { axis: 1, parts: 3 })),
    one(x(B, 4), ({ x }) => g.split(x!, { axis: -1, parts: 2 })[1]!),
    one(x(B, 4, S), ({ x }) => g.split(x!, { axis: 1, parts: 4 })[0]!),
  ],
  Gather: [
    one({ table: of(4, 3), ids: ids([5], [1, 3, 1, 1, 0]) }, gathered),
    one({ table: of(4), ids: ids([2, 2], [0, 3, 3, 0], "int32") }, gathered),
    one({ table: of(3, 2, 2), ids: ids([1, 2], [2, 2]) }, gathered),
    one({ table: of(3, 2), ids: ids([], [1]) }, gathered),
    one({ table: of(4, 2), ids: { ...sized([B, S]), dtype: "int32", data: [3, 0, 3, 3, 1, 0] } }, gathered),
  ],
  ScatterElements: [
    one({ table: of(4, 3), ids: ids([5], [1, 3, 1, 1, 0]), rows: of(5, 3) }, scattered),
    one({ table: of(4), ids: ids([2, 2], [0, 3, 3, 0], "int32"), rows: of(2, 2) }, scattered),
    one({ table: sized([S, 2]), ids: { ...sized([B]), dtype: "int64", data: [2, 2] }, rows: sized([B, 2]) }, scattered),
  ],
};

const COMPOSITES: Readonly<Record<string, readonly Sample[]>> = {
  "GELU by tanh": unary((v) => g.gelu(v, "tanh"), [-2.2, -0.7, 0.01, 0.4, 1.3]),
  silu: unary(g.silu),
  rmsNorm: [one({ ...x(B, 4), gain: of(4) }, ({ x, gain }) => g.rmsNorm(x!, gain!, 1e-5))],
  l2Normalize: [one(x(B, 2, 4), ({ x }) => g.l2Normalize(x!))],
  "layer norm from primitives": [
    one({ x: of(3, 4), gain: of(4), bias: of(4) }, norm("composed")),
    one({ ...x(B, S, 4), gain: of(4) }, norm("composed")),
  ],
  "transposed halves of a rotary turn": [
    one(x(B, 4), ({ x }) => {
      const [a, b] = g.split(x!, { axis: -1, parts: 2 }) as [Float, Float];
      return g.concat([g.neg(b), a], -1);
    }),
  ],
  "one value used three times": [one(x(2, 3), ({ x }) => g.add(g.mul(x!, g.tanh(x!)), x!))],
  "two values that share a trunk": [
    one({ ...x(2, 3), w: of(3, 3) }, ({ x, w }) => {
      const trunk = g.tanh(g.matMul(x!, w!));
      return [trunk, g.reduceSum(g.exp(trunk), { axes: [0] }), g.matMul(trunk, w!)];
    }),
  ],
  "a symbolic batch, flattened and put together again": [
    one({ ...x(B, S, 2), w: of(3, 2) }, ({ x, w }) =>
      g.reshape(g.linear(g.reshape(x!, ["B*S", 2]), w!), ["B", "S", 3]),
    ),
  ],
  "context rows before the text": [
    one({ context: of(2, 3), ...x(B, S, 3) }, ({ context, x }) => {
      const rows = g.add(g.reshape(context!, [1, 2, 3]), g.scale(g.slice(x!, { axis: 1, start: 0, end: 1 }), 0));
      const all = g.concat([rows, x!], 1);
      return g.softmax(g.reshape(g.tanh(all), [g.multiplyDims(["B", "(2+S)"]), 3]));
    }),
  ],
};

function precisionOf(op: string): Precision {
  if (op === "Erf" || op === "Gelu") return FLOAT32;
  return op === "LayerNormalization" ? FLOAT32_STATISTICS : FLOAT64;
}

describe("gradients against central differences", () => {
  test("every op has a sample, or says that it has no gradient", () => {
    const differentiable = [...definedOps()].filter(([, op]) => op.gradient !== "none").map(([name]) => name);
    expect(Object.keys(SAMPLES).sort()).toEqual(differentiable.sort());
  });

  test.each(Object.keys(SAMPLES))("%s", async (op) => {
    const precision = precisionOf(op);
    for (const [i, sample] of SAMPLES[op]!.entries()) {
      expect(usesOp(sample, op), `sample ${i} has a node of ${op}`).toBe(true);
      const worst = await largestDifference(runtime, sample, precision);
      expect(worst.error, `sample ${i}: ${JSON.stringify(worst)}`).toBeLessThanOrEqual(precision.tolerance);
      expect(worst.error, `sample ${i} was checked`).toBeGreaterThanOrEqual(0);
    }
  });

  test.each(Object.keys(COMPOSITES))("%s", async (name) => {
    for (const [i, sample] of COMPOSITES[name]!.entries()) {
      const worst = await largestDifference(runtime, sample, FLOAT64);
      expect(worst.error, `sample ${i}: ${JSON.stringify(worst)}`).toBeLessThanOrEqual(FLOAT64.tolerance);
    }
  });

  test("the check fails on a gradient that is 1 in 100,000 off, has the wrong sign, or isn't a number", async () => {
    const sample = SAMPLES.Mul![0]!;
    for (const distort of [(v: number) => v * (1 + 1e-5), (v: number) => -v, () => Number.NaN, () => 0]) {
      const { error } = await largestDifference(runtime, sample, FLOAT64, { distort });
      expect(error <= FLOAT64.tolerance).toBe(false);
    }
  });

  test("the check in float32 fails on the derivative of the other GELU", async () => {
    // At 2.2 the two derivatives differ by 4e-3; the sample's value is exact, its gradient that of the tanh form.
    const distort = (v: number) => v * (1 + 4e-3);
    const { error } = await largestDifference(runtime, SAMPLES.Gelu![0]!, FLOAT32, { distort });
    expect(error).toBeGreaterThan(FLOAT32.tolerance);
  });
});

describe("products of swapped operands", () => {
  test("their gradients in float32, where no Transpose is written", async () => {
    for (const { a, b, ...swaps } of SWAPPED) {
      const worst = await largestDifference(
        runtime,
        one({ a, b }, ({ a, b }) => g.matMul(a!, b!, swaps)),
        FLOAT32,
      );
      expect(worst.error, JSON.stringify(worst)).toBeLessThanOrEqual(FLOAT32.tolerance);
    }
  });

  test("are those of operands that were swapped before, and not those of operands as they are", async () => {
    const [a, b] = [input("a", "float32", [2, 3, 3]), input("b", "float32", [3, 3])];
    const [at, bt] = [g.transposeLast(a), g.transposeLast(b)];
    const feeds = { a: Array.from({ length: 18 }, (_, i) => i - 7), b: [3, 1, 4, 1, 5, 9, 2, 6, -5] }; // exact in float32
    const found = await evaluate(
      {
        a: g.matMul(a, b, { transA: 1 }),
        b: g.matMul(a, b, { transB: 1 }),
        both: g.matMul(a, b, { transA: 1, transB: 1 }),
      },
      feeds,
    );
    const written = { a: g.matMul(at, b), b: g.matMul(a, bt), both: g.matMul(at, bt) };
    expect(found).toEqual(await evaluate(written, feeds));
    const { asTheyAre } = await evaluate({ asTheyAre: g.matMul(a, b) }, feeds);
    for (const values of Object.values(found)) expect(values).not.toEqual(asTheyAre);
  });
});

describe("values of Erf and GELU", () => {
  // Abramowitz & Stegun, table 7.1.
  const ERF = [
    [0.5, 0.5204998778],
    [1, 0.8427007929],
    [2, 0.995322265],
  ] as const;

  test("Erf and its derivative 2/√π·exp(−x²) meet the published table", async () => {
    const points = ERF.flatMap(
      ([at, value]) =>
        [
          [at, value],
          [-at, -value],
        ] as const,
    );
    const v = input("x", "float32", [points.length]);
    const y = g.erf(v);
    const [dy] = gradientsOf(g.reduceSum(y, { axes: [0] }), [v]) as [Float];
    const { y: values, d: slopes } = await evaluate({ y, d: dy }, { x: points.map(([at]) => at) });
    points.forEach(([at, value], i) => {
      expect(values![i]).toBeCloseTo(value, 6);
      expect(slopes![i]).toBeCloseTo((2 / Math.sqrt(Math.PI)) * Math.exp(-at * at), 6);
    });
  });

  test("GELU is x·Φ(x) and its derivative Φ(x) + x·φ(x)", async () => {
    // Φ(x) = (1 + erf(x/√2))/2, so the table's points are √2 times those of erf.
    const points = ERF.map(([at, value]) => [at * Math.SQRT2, (1 + value) / 2] as const);
    const v = input("x", "float32", [points.length + 2]);
    const y = g.gelu(v, "erf");
    const [dy] = gradientsOf(g.reduceSum(y, { axes: [0] }), [v]) as [Float];
    const { y: values, d: slopes } = await evaluate({ y, d: dy }, { x: [...points.map(([at]) => at), 1, -0.5] });
    points.forEach(([at, cdf], i) => {
      const density = Math.exp((-at * at) / 2) / Math.sqrt(2 * Math.PI);
      expect(values![i]).toBeCloseTo(at * cdf, 5);
      expect(slopes![i]).toBeCloseTo(cdf + at * density, 5);
    });
    // Two more points, from the golden figures (float64).
    expect(values!.at(-2)).toBeCloseTo(0.8413447460685429, 6);
    expect(values!.at(-1)).toBeCloseTo(-0.15426876936299344, 6);
  });
});

describe("differentiate", () => {
  const v = input("x", "float64", [3]);

  test("several seeds add up", async () => {
    const a = g.exp(v);
    const b = g.mul(a, v);
    const seed = g.constant("float64", [3], [1, 10, 100]) as Float;
    const [d] = differentiate(
      [
        [b, seed],
        [a, seed],
      ],
      [v],
    ) as [Float];
    // d(x·eˣ + eˣ)/dx = (x + 2)·eˣ; at 0 it is 2.
    expect((await evaluate({ d }, { x: [0, 0, 1] })).d).toEqual([2, 20, expect.closeTo(100 * 3 * Math.E, 8)]);
  });

  test("a value in the middle can be a target, together with what lies before it", async () => {
    const middle = g.mul(v, v);
    const loss = g.reduceSum(g.mul(middle, middle), { axes: [0] });
    const [dm, dx] = gradientsOf(loss, [middle, v]) as [Float, Float];
    // loss = Σ m², m = x²: dm = 2x², dx = 4x³.
    const found = await evaluate({ dm, dx }, { x: [1, 2, 3] });
    expect(found).toEqual({ dm: [2, 8, 18], dx: [4, 32, 108] });
  });

  test("a target that is a seed itself has the seed as its gradient", async () => {
    const seed = g.constant("float64", [3], [1, 2, 3]) as Float;
    const [d] = differentiate([[v, seed]], [v]) as [Float];
    expect((await evaluate({ d }, {})).d).toEqual([1, 2, 3]);
  });

  test("a target without a path is an error that names it", () => {
    const other = g.parameter("other", [3], "float64");
    expect(() => gradientsOf(g.reduceSum(v, { axes: [0] }), [v, other])).toThrow(
      "differentiate: no path leads from the seeds to other float64[3].",
    );
  });

  test("an op without gradient is an error only where a target lies behind it", () => {
    const largest = g.reduceMax(v, { axes: [0], keep: true });
    const loss = g.reduceSum(g.sub(input("z", "float64", [3]), largest), { axes: [0] });
    expect(() => gradientsOf(loss, [v])).toThrow("ReduceMax (top) has no gradient");
    const w = g.parameter("w", [3], "float64");
    expect(gradientsOf(g.reduceSum(g.mul(w, largest), { axes: [0] }), [w])).toHaveLength(1);
  });

  test("a loss that isn't one number, and a seed of another shape or type, are refused", () => {
    expect(() => gradientsOf(v, [v])).toThrow("the loss must be a single number, got float64[3]");
    expect(() => differentiate([[v, g.scalar(1, "float64")]], [v])).toThrow(
      "the gradient float64[] does not fit its value x float64[3]",
    );
    expect(() => differentiate([[v, input("d", "float32", [3])]], [v])).toThrow("float32[3] does not fit");
  });

  test("twenty thousand layers don't overflow the stack", () => {
    let y: Float = v;
    for (let i = 0; i < 20_000; i++) y = g.neg(y);
    expect(differentiate([[y, input("d", "float64", [3])]], [v])).toHaveLength(1);
  });
});

test("reduceMax gives the largest, with and without the axis", async () => {
  const v = input("x", "float64", [2, 2]);
  const found = await evaluate(
    { rows: g.reduceMax(v, { axes: [-1] }), columns: g.reduceMax(v, { axes: [0], keep: true }) },
    { x: [1, -2, -3, -4] },
  );
  expect(found).toEqual({ rows: [1, -3], columns: [1, -2] });
});

/** Runs a graph of inputs with numeric shapes. */
async function evaluate(outputs: Record<string, Value>, feeds: Record<string, number[]>) {
  const model = encodeModel(outputs);
  const session = await runtime.open(model);
  const given = model.inputs.map((port) => {
    const name = port.name.slice("in/".length);
    return [name, tensor(port.dtype, port.shape as number[], feeds[name]!)];
  });
  const result = await session.run(Object.fromEntries(given));
  await session.close();
  return Object.fromEntries(Object.entries(result).map(([name, result]) => [name, numbersOf(result)]));
}

function usesOp({ inputs, build }: Sample, op: string): boolean {
  const values = Object.entries(inputs).map(([name, { shape, dtype }]) => [
    name,
    input(name, dtype ?? "float32", shape),
  ]);
  const built = build(Object.fromEntries(values));
  return g.nodesInOrder(Array.isArray(built) ? built : [built as Float]).some((node) => node.op.name === op);
}

function bits(shape: readonly number[]): number[] {
  return Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => (i % 3 === 0 ? 1 : 0));
}

function reductions(reduce: typeof g.reduceSum): Sample[] {
  return [
    one(x(2, 3), ({ x }) => reduce(x!, { axes: [-1], keep: true })),
    one(x(2, 3, 2), ({ x }) => reduce(x!, { axes: [0, 2] })),
    one(x(2, 1, 2), ({ x }) => reduce(x!, { axes: [1] })),
    one(x(4), ({ x }) => reduce(x!, { axes: [0] })),
    one(x(B, S, 2), ({ x }) => reduce(x!, { axes: [1] })),
    one(x(B, S, 2), ({ x }) => reduce(x!, { axes: [0, 1, 2], keep: true })),
  ];
}

function norm(form: g.LayerNormForm): Sample["build"] {
  return ({ x, gain, bias }) => g.layerNorm(x!, gain!, bias, { epsilon: 1e-5, form });
}

function gathered({ table, ids }: Parameters<Sample["build"]>[0]): Float {
  return g.gather(table!, ids as unknown as g.Int);
}

function scattered({ table, ids, rows }: Parameters<Sample["build"]>[0]): Float {
  // The table gives its shape only; used once more, so that its gradient isn't the constant 0 alone.
  return g.add(g.scatterAdd(table!, ids as unknown as g.Int, rows!), table!);
}

/** Elementwise ops. Rules read as the mathematics: the walk undoes broadcasting (differentiate.ts). */
import { InvalidInputError } from "../../errors.js";
import { broadcastShapes } from "../dim.js";
import { defineOp, type Op } from "../op.js";
import { constant, type DType, type Float, scalar, type TensorType, type Value } from "../value.js";

type Binary = Op<[a: Float, b: Float]>;
type Unary = Op<[x: Float]>;
type Bool = Value<"bool">;

function binary(name: string, a: Value, b: Value): TensorType {
  const shape = broadcastShapes(a.shape, b.shape);
  if (a.dtype !== b.dtype)
    throw new InvalidInputError(`${name}: types differ: a is ${a}, b is ${b}. Cast one of them.`);
  if (!shape) throw new InvalidInputError(`${name}: shapes don't broadcast: a is ${a}, b is ${b}.`);
  return { dtype: a.dtype, shape };
}

/** An op that keeps type and shape. */
function unary(name: string, gradient: Parameters<typeof defineOp<[x: Float]>>[1]["gradient"]): Unary {
  return defineOp<[x: Float]>(name, { infer: ([x]) => ({ dtype: x.dtype, shape: x.shape }), gradient });
}

export const add: Binary = defineOp("Add", {
  infer: ([a, b]) => binary("add", a, b),
  gradient: ({ dy }) => [dy, dy],
});

export const sub: Binary = defineOp("Sub", {
  infer: ([a, b]) => binary("sub", a, b),
  gradient: ({ dy }) => [dy, neg(dy)],
});

export const mul: Binary = defineOp("Mul", {
  infer: ([a, b]) => binary("mul", a, b),
  gradient: ({ inputs: [a, b], dy }) => [mul(dy, b), mul(dy, a)],
});

export const div: Binary = defineOp("Div", {
  infer: ([a, b]) => binary("div", a, b),
  gradient: ({ inputs: [, b], y, dy }) => [div(dy, b), neg(div(mul(dy, y), b))],
});

export const neg: Unary = unary("Neg", ({ dy }) => [neg(dy)]);

export const exp: Unary = unary("Exp", ({ y, dy }) => [mul(dy, y)]);

export const log: Unary = unary("Log", ({ inputs: [x], dy }) => [div(dy, x)]);

export const sqrt: Unary = unary("Sqrt", ({ y, dy }) => [div(scale(dy, 0.5), y)]);

export const reciprocal: Unary = unary("Reciprocal", ({ y, dy }) => [neg(mul(dy, mul(y, y)))]);

export const tanh: Unary = unary("Tanh", ({ y, dy }) => [sub(dy, mul(dy, mul(y, y)))]);

export const sigmoid: Unary = unary("Sigmoid", ({ y, dy }) => [mul(dy, sub(y, mul(y, y)))]);

export const relu: Unary = unary("Relu", ({ inputs: [x], dy }) => [
  where(greater(x, scalar(0, x.dtype)), dy, zerosLike(dy)),
]);

/** float32 only: ONNX Runtime has no float64 kernel. */
export const erf: Unary = unary(
  "Erf",
  // d erf(x)/dx = 2/√π · exp(−x²)
  ({ inputs: [x], dy }) => [mul(dy, scale(exp(neg(mul(x, x))), 2 / Math.sqrt(Math.PI)))],
);

/** The larger of two, elementwise; where they are equal the gradient goes to `a`. */
export const max: Binary = defineOp("Max", {
  infer: ([a, b]) => binary("max", a, b),
  gradient: ({ inputs: [a, b], dy }) => {
    const zero = zerosLike(dy);
    return [where(greater(b, a), zero, dy), where(greater(b, a), dy, zero)];
  },
});

export const abs: Unary = unary("Abs", ({ inputs: [x], dy }) => [where(greater(scalar(0, x.dtype), x), neg(dy), dy)]);

export const greater: Op<[a: Float, b: Float], Record<never, never>, Bool> = defineOp("Greater", {
  infer: ([a, b]) => ({ ...binary("greater", a, b), dtype: "bool" }),
  gradient: "none",
});

/** `a` where the condition holds, `b` elsewhere. */
export const where: Op<[condition: Bool, a: Float, b: Float]> = defineOp("Where", {
  infer: ([condition, a, b]) => {
    const { dtype, shape } = binary("where", a, b);
    const all = broadcastShapes(condition.shape, shape);
    if (!all)
      throw new InvalidInputError(
        `where: shapes don't broadcast: the condition is ${condition}, a is ${a}, b is ${b}.`,
      );
    return { dtype, shape: all };
  },
  gradient: ({ inputs: [condition, a], dy }) => {
    const zero = scalar(0, a.dtype);
    return [null, where(condition, dy, zero), where(condition, zero, dy)];
  },
});

const ONNX_TYPE: Partial<Record<DType, number>> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float64: 11,
};

const castOp: Op<[x: Value], { to: number; dtype: string }, Value> = defineOp("Cast", {
  infer: ([x], { dtype }) => ({ dtype: dtype as DType, shape: x.shape }),
  gradient: "none",
  lower: (emitter, node, outputs) => {
    emitter.node("Cast", [emitter.name(node.inputs[0] as Value)], { to: node.attributes.to }, { outputs });
  },
});

/** Another element type. Has no gradient: a trained graph has one float type throughout. */
export function cast<T extends DType>(x: Value, dtype: T): Value<T> {
  return castOp(x, { to: ONNX_TYPE[dtype]!, dtype }) as Value<T>;
}

/** x · factor. */
export function scale(x: Float, factor: number): Float {
  return mul(x, scalar(factor, x.dtype));
}

/** Zeros that broadcast against `x`. */
export function zerosLike(x: Float): Float {
  return constant(
    x.dtype,
    x.shape.map(() => 1),
    [0],
  ) as Float;
}

/** x · sigmoid(x), the gate of SwiGLU. */
export function silu(x: Float): Float {
  return mul(x, sigmoid(x));
}

/** The two forms of GELU; `"erf"` is exact, `"tanh"` its approximation. */
export type GeluForm = "erf" | "tanh";

/** x · Φ(x), exact. float32 only: ONNX Runtime has no float64 kernel. */
const geluErf: Unary = unary(
  "Gelu",
  // Φ(x) + x·φ(x), φ the standard normal density.
  ({ inputs: [x], dy }) => {
    const cdf = scale(add(erf(scale(x, Math.SQRT1_2)), scalar(1, x.dtype)), 0.5);
    const density = scale(exp(scale(mul(x, x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
    return [mul(dy, add(cdf, mul(x, density)))];
  },
);

export function gelu(x: Float, form: GeluForm): Float {
  if (form === "erf") return geluErf(x);
  // ½x(1 + tanh(√(2/π)(x + 0.044715x³)))
  const inner = scale(add(x, scale(mul(x, mul(x, x)), 0.044715)), Math.sqrt(2 / Math.PI));
  return mul(scale(x, 0.5), add(tanh(inner), scalar(1, x.dtype)));
}

/** Products and reductions. */
import { InvalidInputError } from "../../errors.js";
import { broadcastShapes, type Dim, multiplyDims, sameShape } from "../dim.js";
import { defineOp, type Op } from "../op.js";
import { type Float, type FloatType, lastDim, scalar, type Value } from "../value.js";
import { add, div, mul, scale, sqrt, sub } from "./elementwise.js";
import { expand, lastTwoSwapped, reshape } from "./shape.js";

/**
 * a [m, k] · b [k, n] (+ c, broadcast over rows), either operand transposed. `transB: 1` is the form of a linear layer
 * with the checkpoint's [out, in] weights.
 */
export const gemm: Op<[a: Float, b: Float, c: Float | undefined], { transA?: 0 | 1; transB?: 0 | 1 }> = defineOp(
  "Gemm",
  {
    infer: ([a, b, c], { transA = 0, transB = 0 }) => {
      if (a.rank !== 2 || b.rank !== 2) throw new InvalidInputError(`gemm: needs two matrices: a is ${a}, b is ${b}.`);
      const [m, k] = transA ? [a.shape[1]!, a.shape[0]!] : [a.shape[0]!, a.shape[1]!];
      const [k2, n] = transB ? [b.shape[1]!, b.shape[0]!] : [b.shape[0]!, b.shape[1]!];
      if (k !== k2 || a.dtype !== b.dtype)
        throw new InvalidInputError(`gemm: inner dimensions differ: a is ${a}, b is ${b}.`);
      if (c && (c.dtype !== a.dtype || !sameShape(broadcastShapes(c.shape, [m, n]) ?? [], [m, n]))) {
        throw new InvalidInputError(`gemm: the bias ${c} does not fit a result of [${m}, ${n}].`);
      }
      return { dtype: a.dtype, shape: [m, n] };
    },
    gradient: ({ inputs: [a, b, c], attributes: { transA = 0, transB = 0 }, dy }) => [
      transA
        ? gemm(b, dy, undefined, { transA: transB, transB: 1 })
        : gemm(dy, b, undefined, { transB: transB ? 0 : 1 }),
      transB
        ? gemm(dy, a, undefined, { transA: 1, transB: transA })
        : gemm(a, dy, undefined, { transA: transA ? 0 : 1 }),
      c && dy,
    ],
  },
);

/** x [n, in] · wᵀ + b, with w [out, in] as checkpoints store it. */
export function linear(x: Float, w: Float, b?: Float): Float {
  return gemm(x, w, b, { transB: 1 });
}

/**
 * Batched a […, m, k] · b […, k, n]; leading dimensions broadcast. `transA` and `transB` swap the last two axes of an
 * operand before the product, which costs nothing where ONNX Runtime can read it that way: a `Transpose` of its own is
 * done by one thread alone, and takes as long as the product of an attention head.
 */
export const matMul: Op<[a: Float, b: Float], { transA?: 0 | 1; transB?: 0 | 1 }> = defineOp("MatMul", {
  infer: ([a, b], { transA = 0, transB = 0 }) => {
    const batch = a.rank >= 2 && b.rank >= 2 && broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2));
    const [m, k] = transA ? [a.shape.at(-1), a.shape.at(-2)] : [a.shape.at(-2), a.shape.at(-1)];
    const [k2, n] = transB ? [b.shape.at(-1), b.shape.at(-2)] : [b.shape.at(-2), b.shape.at(-1)];
    if (!batch || k !== k2 || a.dtype !== b.dtype) {
      throw new InvalidInputError(
        `matMul: inner dimensions differ: a is ${a}${transA ? ", transposed" : ""}, b is ${b}${transB ? ", transposed" : ""}.`,
      );
    }
    return { dtype: a.dtype, shape: [...batch, m!, n!] };
  },
  gradient: ({ inputs: [a, b], attributes: { transA = 0, transB = 0 }, dy }) => [
    transA ? matMul(b, dy, { transA: transB, transB: 1 }) : matMul(dy, b, { transB: transB ? 0 : 1 }),
    transB ? matMul(dy, a, { transA: 1, transB: transA }) : matMul(a, dy, { transA: transA ? 0 : 1 }),
  ],
  lower: (emitter, node, outputs) => {
    const { transA = 0, transB = 0 } = node.attributes;
    const [a, b] = node.inputs as readonly [Float, Float];
    const names = [emitter.name(a), emitter.name(b)] as const;
    // FusedMatMul has no float64 kernel.
    if ((transA || transB) && a.dtype === "float32" && !emitter.standard) {
      emitter.node("FusedMatMul", names, { transA, transB }, { outputs, domain: "com.microsoft" });
      return;
    }
    const swapped = (name: string, { rank }: Float) =>
      emitter.node("Transpose", [name], { perm: lastTwoSwapped(rank) });
    const read = [transA ? swapped(names[0], a) : names[0], transB ? swapped(names[1], b) : names[1]];
    emitter.node("MatMul", read, {}, { outputs });
  },
});

interface ReduceAttributes {
  axes: readonly number[];
  keepdims: 0 | 1;
}

function reduced(x: Value, { axes, keepdims }: ReduceAttributes): Dim[] {
  return x.shape.flatMap((dim, axis) => (axes.includes(axis) ? (keepdims ? [1] : []) : [dim]));
}

/** The shape before the reduction with 1 at the reduced axes, so that a gradient broadcasts back. */
function keepAxes(dy: Float, x: Float, attributes: ReduceAttributes): Float {
  return attributes.keepdims ? dy : reshape(dy, reduced(x, { ...attributes, keepdims: 1 }));
}

function lowerReduce(name: string): NonNullable<Parameters<typeof defineOp<[Float], ReduceAttributes>>[1]["lower"]> {
  return (emitter, node, outputs) => {
    const inputs = [emitter.name(node.inputs[0]!), emitter.int64(node.attributes.axes)];
    emitter.node(name, inputs, { keepdims: node.attributes.keepdims }, { outputs });
  };
}

const reduceSumOp: Op<[x: Float], ReduceAttributes> = defineOp("ReduceSum", {
  infer: ([x], attributes) => ({ dtype: x.dtype, shape: reduced(x, attributes) }),
  gradient: ({ inputs: [x], attributes, dy }) => [expand(keepAxes(dy, x, attributes), x.shape)],
  lower: lowerReduce("ReduceSum"),
});

const reduceMeanOp: Op<[x: Float], ReduceAttributes> = defineOp("ReduceMean", {
  infer: ([x], attributes) => ({ dtype: x.dtype, shape: reduced(x, attributes) }),
  gradient: ({ inputs: [x], attributes, dy }) => {
    const count = multiplyDims(attributes.axes.map((axis) => x.shape[axis]!));
    const share = typeof count === "number" ? scale(dy, 1 / count) : div(dy, sizeAsNumber(count, x.dtype));
    return [expand(keepAxes(share, x, attributes), x.shape)];
  },
  lower: lowerReduce("ReduceMean"),
});

/** A size that is known at run time as a number of the graph: as many ones, added up. */
function sizeAsNumber(size: Dim, dtype: FloatType): Float {
  return reduceSum(expand(scalar(1, dtype), [size]), { axes: [0] });
}

/** The largest of an axis; used for stable scales, where no gradient is wanted. */
const reduceMaxOp: Op<[x: Float], ReduceAttributes> = defineOp("ReduceMax", {
  infer: ([x], attributes) => ({ dtype: x.dtype, shape: reduced(x, attributes) }),
  gradient: "none",
  lower: lowerReduce("ReduceMax"),
});

/** Place of the largest entry of an axis; of equal ones, the first. */
export const argMax: Op<[x: Float], { axis: number; keepdims: 0 | 1 }, Value<"int64">> = defineOp("ArgMax", {
  infer: ([x], { axis, keepdims }) => {
    if (!(Number.isInteger(axis) && axis >= 0 && axis < x.rank)) {
      throw new InvalidInputError(`argMax: axis ${axis} is outside of ${x}.`);
    }
    return { dtype: "int64", shape: reduced(x, { axes: [axis], keepdims }) };
  },
  gradient: "none",
});

interface ReduceOptions {
  axes: readonly number[];
  /** @default false */
  keep?: boolean;
}

function reduceWith(op: Op<[x: Float], ReduceAttributes>): (x: Float, options: ReduceOptions) => Float {
  return (x, { axes, keep = false }) => {
    const positive = axes.map((axis) => (axis < 0 ? axis + x.rank : axis));
    if (positive.some((axis) => !(axis >= 0 && axis < x.rank))) {
      throw new InvalidInputError(`reduce: axes [${axes}] are outside of ${x}.`);
    }
    if (positive.length === 0) return x; // ONNX would reduce them all
    return op(x, { axes: positive, keepdims: keep ? 1 : 0 });
  };
}

export const reduceSum: (x: Float, options: ReduceOptions) => Float = reduceWith(reduceSumOp);
export const reduceMean: (x: Float, options: ReduceOptions) => Float = reduceWith(reduceMeanOp);
export const reduceMax: (x: Float, options: ReduceOptions) => Float = reduceWith(reduceMaxOp);

/** Over the last axis. */
export const softmax: Op<[x: Float]> = defineOp("Softmax", {
  infer: ([x]) => ({ dtype: x.dtype, shape: x.shape }),
  // The Jacobian is diag(y) − y·yᵀ. Applied to dy it needs no matrix: dx = y ⊙ (dy − Σ dy⊙y).
  gradient: ({ y, dy }) => [mul(y, sub(dy, reduceSum(mul(dy, y), { axes: [-1], keep: true })))],
});

/** Over the last axis. */
export const logSoftmax: Op<[x: Float]> = defineOp("LogSoftmax", {
  infer: ([x]) => ({ dtype: x.dtype, shape: x.shape }),
  gradient: ({ inputs: [x], dy }) => [sub(dy, mul(softmax(x), reduceSum(dy, { axes: [-1], keep: true })))],
});

/** x / ‖x‖₂ over the last axis. No epsilon: a zero row gives NaN, as in the reference (SPEC §6). */
export function l2Normalize(x: Float): Float {
  return div(x, sqrt(reduceSum(mul(x, x), { axes: [-1], keep: true })));
}

/** The number of entries of the last axis, which a mean over it needs. */
export function width(x: Float): number {
  const dim = lastDim(x);
  if (typeof dim !== "number") throw new InvalidInputError(`Needs a known last dimension, got ${x}.`);
  return dim;
}

/** 1/√(mean(x²) + ε) ⊙ x ⊙ gain (Zhang & Sennrich 2019). */
export function rmsNorm(x: Float, gain: Float, epsilon: number): Float {
  const meanSquare = reduceMean(mul(x, x), { axes: [-1], keep: true });
  return mul(div(x, sqrt(add(meanSquare, scalar(epsilon, x.dtype)))), gain);
}

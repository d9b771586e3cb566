/** int8 products and look-ups, for inference: none has a gradient. */
import { InvalidInputError } from "../../errors.js";
import { defineOp, type Op } from "../op.js";
import { constant, type Float, type Int, scalar, type Value } from "../value.js";
import { abs, cast, div, max, mul } from "./elementwise.js";
import { reduceMax } from "./matrix.js";
import { gather, reshape } from "./shape.js";

type Bytes = Value<"uint8">;
type Weights = Value<"int8">;

/** round(x / scale) + 128, cut to 0 … 255. */
const quantizeOp: Op<[x: Float, scale: Float, zero: Bytes], Record<never, never>, Bytes> = defineOp("QuantizeLinear", {
  infer: ([x]) => ({ dtype: "uint8", shape: x.shape }),
  gradient: "none",
});

/** ONNX Runtime's product of bytes with a float result: (a − 128)·scaleA · (w·scaleW)ᵀ. */
const byteGemm: Op<[a: Bytes, scaleA: Float, zeroA: Bytes, w: Weights, scaleW: Float, zeroW: Weights], { transB: 1 }> =
  defineOp("QGemm", {
    domain: "com.microsoft",
    infer: ([a, , , w, scaleW]) => {
      if (a.shape[1] !== w.shape[1] || scaleW.shape[0] !== w.shape[0]) {
        throw new InvalidInputError(`QGemm: inner dimensions differ: a is ${a}, w is ${w}, its scales ${scaleW}.`);
      }
      return { dtype: "float32", shape: [a.shape[0]!, w.shape[0]!] };
    },
    gradient: "none",
  });

/** ONNX Runtime's product with one scale for the whole of a, found at run time; w is [in, out]. */
const dynamicByteGemm: Op<[a: Float, w: Weights, scaleW: Float, zeroW: undefined, bias: Float | undefined]> = defineOp(
  "DynamicQuantizeMatMul",
  {
    domain: "com.microsoft",
    infer: ([a, w]) => {
      if (a.shape[1] !== w.shape[0]) throw new InvalidInputError(`DynamicQuantizeMatMul: a is ${a}, w is ${w}.`);
      return { dtype: "float32", shape: [a.shape[0]!, w.shape[1]!] };
    },
    gradient: "none",
  },
);

/** Bytes run from −127 to 127 around 128. */
const LEVELS = 127;
const ZERO = 128;

/**
 * x [n, in] · wᵀ for int8 weights [out, in] with a scale a row. Each row of x is quantised by its own largest entry, so
 * that a text's result doesn't depend on its batch (GRAPH.md §10 measures what a shared scale does).
 */
export function rowQuantizedLinear(x: Float, w: Value<"int8">, scales: Float): Float {
  // A row of zeros keeps its zeros: the smallest scale is a number that no activation comes near.
  const largest = max(reduceMax(abs(x), { axes: [1], keep: true }), scalar(1e-30, "float32"));
  const step = scalar(1 / LEVELS, "float32");
  const zero = constant("uint8", [], [ZERO]);
  const rows = w.shape[0] as number;
  const zeroW = constant("int8", [rows], new Int8Array(rows));
  const product = byteGemm(quantizeOp(div(x, largest), step, zero), step, zero, w, scales, zeroW, { transB: 1 });
  return mul(product, largest);
}

/** The same for w [in, out], with one scale for all of x: faster, and a text's result depends on its batch mates. */
export function dynamicQuantizedLinear(x: Float, w: Value<"int8">, scales: Float, bias: Float | undefined): Float {
  return dynamicByteGemm(x, w, scales, undefined, bias);
}

/** Rows of an int8 table [rows, width] with a scale a row [rows], as float32. */
export function quantizedRows(table: Value<"int8">, scales: Float, indices: Int): Float {
  const rows = gather(table as unknown as Float, indices); // the look-up itself doesn't care for the type
  const rowScales = reshape(gather(scales, indices), [...indices.shape, 1]);
  return mul(cast(rows, "float32") as Float, rowScales);
}

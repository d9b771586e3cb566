/** Layer norm: one ONNX node with its own gradient, and the same composed from primitives for float64 checks. */
import { InvalidInputError } from "../../errors.js";
import { defineMultiOp } from "../op.js";
import { type Float, type FloatType, lastDim, scalar } from "../value.js";
import { add, cast, div, mul, sqrt, sub } from "./elementwise.js";
import { reduceMean } from "./matrix.js";

/** y, and the saved mean and inverse deviation; those two are float32 whatever the type of x. */
const layerNormOp = defineMultiOp<
  [x: Float, gain: Float, bias: Float | undefined],
  { axis: -1; epsilon: { float: number } },
  [y: Float, mean: Float, inverseDeviation: Float]
>("LayerNormalization", {
  infer: ([x]) => {
    const statistics = { dtype: "float32" as const, shape: [...x.shape.slice(0, -1), 1] };
    return [{ dtype: x.dtype, shape: x.shape }, statistics, statistics];
  },
  // x̂ = (x − mean) / deviation; dx = (dh − mean(dh) − x̂ ⊙ mean(dh ⊙ x̂)) / deviation, with dh = dy ⊙ gain.
  gradient: ({ inputs: [x, gain, bias], outputs, dy }) => {
    const [, mean, inverse] = outputs as readonly [Float, Float, Float];
    const saved = (value: Float) => (x.dtype === "float32" ? value : (cast(value, x.dtype) as Float));
    const normalized = mul(sub(x, saved(mean)), saved(inverse));
    const dh = mul(dy, gain);
    const rowMean = (value: Float) => reduceMean(value, { axes: [-1], keep: true });
    const centred = sub(sub(dh, rowMean(dh)), mul(normalized, rowMean(mul(dh, normalized))));
    return [mul(centred, saved(inverse)), mul(dy, normalized), bias && dy];
  },
});

/** How layer norm is written: the fused op, or from primitives (exact in float64). */
export type LayerNormForm = "fused" | "composed";

/** (x − mean) / √(variance + ε) ⊙ gain + bias over the last axis, with the biased variance. */
export function layerNorm(
  x: Float,
  gain: Float,
  bias: Float | undefined,
  { epsilon, form = "fused" }: { epsilon: number; form?: LayerNormForm },
): Float {
  if (gain.rank !== 1 || gain.shape[0] !== lastDim(x) || (bias && bias.shape[0] !== lastDim(x))) {
    throw new InvalidInputError(`layerNorm: gain ${gain}${bias ? ` and bias ${bias}` : ""} don't fit x ${x}.`);
  }
  if (form === "fused") return layerNormOp(x, gain, bias, { axis: -1, epsilon: { float: epsilon } })[0];
  const mean = (value: Float) => reduceMean(value, { axes: [-1], keep: true });
  const centred = sub(x, mean(x));
  const deviation = sqrt(add(mean(mul(centred, centred)), scalar(epsilon, x.dtype as FloatType)));
  const scaled = mul(div(centred, deviation), gain);
  return bias ? add(scaled, bias) : scaled;
}

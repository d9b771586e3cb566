/** Holds the gradients of a graph against central differences of the same graph. Used by tests only. */
import { encodeModel } from "../onnx/encode.js";
import type { Runtime, TensorData } from "../runtime/runtime.js";
import { type Dim, type DType, differentiate, type Float, input, type Shape, type Value } from "./index.js";

/** One input of a sample. Floats without `data` are drawn from ±[0.3, 1.5]: away from the kinks at 0. */
export interface SampleInput {
  readonly shape: Shape;
  /** Sizes of a shape with symbols. */
  readonly sizes?: readonly number[];
  /** @default the float type of the check */
  readonly dtype?: DType;
  readonly data?: readonly number[];
  /** A float that isn't differentiated. */
  readonly fixed?: boolean;
}

export interface Sample {
  readonly inputs: Readonly<Record<string, SampleInput>>;
  /** The values whose weighted sum is differentiated. */
  build(x: Readonly<Record<string, Value & Float>>): Float | readonly Float[];
}

export interface Precision {
  readonly dtype: "float32" | "float64";
  /** Step of the central differences. */
  readonly step: number;
  /** Largest allowed difference relative to the entry, or to `floor` times the tensor's largest entry. */
  readonly tolerance: number;
  readonly floor: number;
}

/** Truncation and rounding of the differences are both about 1e-11 at this step. */
export const FLOAT64: Precision = { dtype: "float64", step: 1e-5, tolerance: 1e-6, floor: 1e-3 };
/** The fused layer norm saves float32 statistics. */
export const FLOAT32_STATISTICS: Precision = { ...FLOAT64, tolerance: 1e-5, floor: 1e-1 };
/** For ops without a float64 kernel: the differences themselves are good to about 1e-5. */
export const FLOAT32: Precision = { dtype: "float32", step: 1e-2, tolerance: 1e-3, floor: 1 };

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A tensor of the given type, from plain numbers. */
export function tensor(dtype: DType, shape: readonly number[], values: ArrayLike<number>): TensorData {
  const numbers = Array.from(values);
  switch (dtype) {
    case "float32":
      return { dtype, shape, data: Float32Array.from(numbers) };
    case "float64":
      return { dtype, shape, data: Float64Array.from(numbers) };
    case "int32":
      return { dtype, shape, data: Int32Array.from(numbers) };
    case "int64":
      return { dtype, shape, data: BigInt64Array.from(numbers, BigInt) };
    case "int8":
      return { dtype, shape, data: Int8Array.from(numbers) };
    default:
      return { dtype, shape, data: Uint8Array.from(numbers) };
  }
}

export function numbersOf({ data }: TensorData): number[] {
  return Array.from(data as ArrayLike<number | bigint>, Number);
}

export interface Difference {
  /** `x[3]`: the input and the entry that is furthest off. */
  readonly at: string;
  readonly gradient: number;
  readonly measured: number;
  /** Relative, as `Precision.tolerance`. */
  readonly error: number;
}

/**
 * The largest difference between what `gradients` says of a sample and its central differences, over at most `entries`
 * of every input. `distort` changes the gradients first: the control.
 */
export async function largestDifference(
  runtime: Runtime,
  sample: Sample,
  precision: Precision,
  { entries = 12, distort = (x: number) => x }: { entries?: number; distort?: (x: number) => number } = {},
): Promise<Difference> {
  const random = randomNumbers(11);
  const draw = () => (random() < 0.5 ? -1 : 1) * (0.3 + 1.2 * random());
  const values: Record<string, Value> = {};
  const feeds: Record<string, TensorData> = {};
  for (const [name, { shape, sizes, dtype = precision.dtype, data }] of Object.entries(sample.inputs)) {
    const size = sizes ?? (shape as readonly number[]);
    values[name] = input(name, dtype, shape);
    feeds[name] = tensor(dtype, size, data ?? Array.from({ length: size.reduce((a, b) => a * b, 1) }, draw));
  }
  const targets = Object.keys(sample.inputs).filter(
    (name) => !sample.inputs[name]!.fixed && values[name]!.dtype === precision.dtype,
  );
  const built = sample.build(values as Record<string, Value & Float>);
  const ys = Array.isArray(built) ? (built as readonly Float[]) : [built as Float];
  const forward = await runtime.open(encodeModel(Object.fromEntries(ys.map((y, i) => [`y${i}`, y]))));
  const outputs = await forward.run(feeds);
  const weights = ys.map((_, i) => {
    const { shape, data } = outputs[`y${i}`]!;
    return tensor(precision.dtype, shape, Array.from({ length: data.length }, draw));
  });
  const loss = async (changed: Record<string, TensorData>) => {
    const result = await forward.run({ ...feeds, ...changed });
    return weights.reduce((total, { data: w }, i) => {
      const y = result[`y${i}`]!.data;
      for (let j = 0; j < y.length; j++) total += Number(w[j]) * Number(y[j]);
      return total;
    }, 0);
  };

  const seeds = ys.map((y, i) => [y, input(`dy${i}`, precision.dtype, y.shape)] as const);
  const gradients = differentiate(
    seeds,
    targets.map((name) => values[name] as Float),
  );
  // With the forward values: symbols are read from inputs, which a gradient alone may not need.
  const backward = await runtime.open(
    encodeModel(
      Object.fromEntries([...targets.map((x, i) => [`g/${x}`, gradients[i]!]), ...ys.map((y, i) => [`y${i}`, y])]),
    ),
  );
  const found = await backward.run({ ...feeds, ...Object.fromEntries(weights.map((w, i) => [`dy${i}`, w])) });

  let worst: Difference = { at: "nothing", gradient: 0, measured: 0, error: -1 };
  for (const name of targets) {
    const { data, shape } = feeds[name]!;
    const gradient = found[`g/${name}`]!;
    if (gradient.shape.join() !== shape.join()) {
      throw new Error(`the gradient of ${name} has the shape [${gradient.shape}], not [${shape}]`);
    }
    const largest = Math.max(...numbersOf(gradient).map(Math.abs));
    const stride = Math.max(1, Math.floor(data.length / entries));
    for (let i = 0; i < data.length; i += stride) {
      const x = Number(data[i]);
      const moved = async (by: number) => {
        const copy = numbersOf(feeds[name]!);
        copy[i] = x + by;
        return await loss({ [name]: tensor(precision.dtype, shape, copy) });
      };
      const measured = ((await moved(precision.step)) - (await moved(-precision.step))) / (2 * precision.step);
      const given = distort(Number(gradient.data[i]));
      const size = Math.max(Math.abs(given), Math.abs(measured), precision.floor * largest);
      const error = given === measured ? 0 : Math.abs(given - measured) / size;
      if (!(error <= worst.error)) worst = { at: `${name}[${i}]`, gradient: given, measured, error };
    }
  }
  await forward.close();
  await backward.close();
  return worst;
}

/** A symbolic dimension with its size, for samples: `sized([["B", 2], 3])`. */
export function sized(dims: readonly (number | readonly [symbol: string, size: number])[]): {
  shape: readonly Dim[];
  sizes: readonly number[];
} {
  return {
    shape: dims.map((dim) => (typeof dim === "number" ? dim : dim[0])),
    sizes: dims.map((dim) => (typeof dim === "number" ? dim : dim[1])),
  };
}

/** The graph itself: values, the nodes that make them, and the leaves that come from outside. Nothing is computed here. */
import { InvalidInputError } from "../errors.js";
import { type Dim, formatShape, type Shape } from "./dim.js";
import type { OpDefinition } from "./op.js";

export type FloatType = "float32" | "float64";
export type IntType = "int32" | "int64";
export type DType = FloatType | IntType | "int8" | "uint8" | "bool";

/** Element type and shape. */
export interface TensorType<T extends DType = DType> {
  readonly dtype: T;
  readonly shape: Shape;
}

/** An integer attribute is a number; a float attribute says so, because ONNX tells the two apart. */
export type Attribute = number | readonly number[] | string | { readonly float: number };
export type Attributes = Readonly<Record<string, Attribute>>;

/** Where a value comes from. */
export type Source =
  | { readonly kind: "input" | "parameter"; readonly name: string }
  | { readonly kind: "constant"; readonly data: ConstantData }
  | { readonly kind: "node"; readonly node: GraphNode; readonly output: number };

export type ConstantData = Float32Array | Float64Array | Int32Array | BigInt64Array | Int8Array | Uint8Array;

/** One application of an op. */
export interface GraphNode {
  readonly op: OpDefinition;
  readonly inputs: readonly (Value | undefined)[];
  readonly attributes: Attributes;
  readonly outputs: readonly Value[];
  /** Where in the model the node was made, `layer.0/attention`: ONNX Runtime names nodes only. */
  readonly scope: string;
}

/** A tensor that some run will hold. Immutable; made by ops and by `input`, `parameter`, and `constant`. */
export class Value<T extends DType = DType> implements TensorType<T> {
  readonly dtype: T;
  readonly shape: Shape;
  readonly source: Source;

  constructor(type: TensorType<T>, source: Source) {
    this.dtype = type.dtype;
    this.shape = type.shape;
    this.source = source;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** `float32[B, 384]`. */
  toString(): string {
    return `${this.dtype}${formatShape(this.shape)}`;
  }
}

export type Float = Value<FloatType>;
export type Int = Value<IntType>;

/** A tensor that each run is given. */
export function input<T extends DType>(name: string, dtype: T, shape: Shape): Value<T> {
  return new Value({ dtype, shape }, { kind: "input", name });
}

/** A weight: fed while training, a constant of the session at inference. */
export function parameter(name: string, shape: Shape, dtype: FloatType = "float32"): Float {
  return new Value<FloatType>({ dtype, shape }, { kind: "parameter", name });
}

/** A weight that isn't trained: quantised matrices and their scales. */
export function storedTensor<T extends DType>(name: string, dtype: T, shape: Shape): Value<T> {
  return new Value({ dtype, shape }, { kind: "parameter", name });
}

type ArrayType = {
  readonly float32: Float32ArrayConstructor;
  readonly float64: Float64ArrayConstructor;
  readonly int32: Int32ArrayConstructor;
  readonly int64: BigInt64ArrayConstructor;
  readonly int8: Int8ArrayConstructor;
  readonly uint8: Uint8ArrayConstructor;
};

const CONSTANT_ARRAYS: ArrayType = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  int64: BigInt64Array,
  int8: Int8Array,
  uint8: Uint8Array,
};

/** A tensor written into the graph; for small ones. */
export function constant<T extends keyof ArrayType>(
  dtype: T,
  shape: readonly number[],
  values: ArrayLike<number>,
): Value<T> {
  const size = shape.reduce((a, b) => a * b, 1);
  if (size !== values.length) {
    throw new InvalidInputError(`constant: shape ${formatShape(shape)} holds ${size} numbers, got ${values.length}.`);
  }
  const data =
    dtype === "int64"
      ? BigInt64Array.from(Array.from(values), BigInt)
      : (CONSTANT_ARRAYS[dtype] as Float32ArrayConstructor).from(values);
  return new Value({ dtype, shape }, { kind: "constant", data: data as ConstantData });
}

/** A number of the given type, of rank 0. */
export function scalar(value: number, dtype: FloatType): Float {
  return constant(dtype, [], [value]) as Float;
}

/** The last dimension. */
export function lastDim(value: Value): Dim {
  const dim = value.shape.at(-1);
  if (dim === undefined) throw new InvalidInputError(`Needs a value of rank 1 or more, got ${value}.`);
  return dim;
}

let currentScope = "";

/** Names every node made inside `make`: `scope("layer.0", () => …)`. Nests with "/". */
export function scope<T>(name: string, make: () => T): T {
  const outer = currentScope;
  currentScope = outer ? `${outer}/${name}` : name;
  try {
    return make();
  } finally {
    currentScope = outer;
  }
}

/** Names every node made inside `make` exactly so, whatever the scope outside. */
export function absoluteScope<T>(name: string, make: () => T): T {
  const outer = currentScope;
  currentScope = name;
  try {
    return make();
  } finally {
    currentScope = outer;
  }
}

export function scopeNow(): string {
  return currentScope;
}

/** Ops that move elements without computing: reshape, transpose, slices, concatenation, the embedding lookup. */
import { InvalidInputError } from "../../errors.js";
import { addDims, type Dim, formatShape, multiplyDims, type Shape, sameShape, subtractDims } from "../dim.js";
import { defineMultiOp, defineOp, type Emitter, type Op } from "../op.js";
import { constant, type Float, type Int, type Value } from "../value.js";

const reshapeOp: Op<[x: Value], { shape: string }, Value> = defineOp("Reshape", {
  infer: ([x], { shape }) => ({ dtype: x.dtype, shape: JSON.parse(shape) as Shape }),
  gradient: ({ inputs: [x], dy }) => [reshape(dy, x.shape) as never],
  lower: (emitter, node, outputs) => {
    const [x] = node.inputs as [Value];
    const shape = JSON.parse(node.attributes.shape) as Shape;
    const symbolic = shape.filter((dim) => typeof dim === "string").length;
    const target =
      symbolic > 1 ? emitter.shape(shape) : emitter.int64(shape.map((dim) => (typeof dim === "string" ? -1 : dim)));
    emitter.node("Reshape", [emitter.name(x), target], {}, { outputs });
  },
});

/** The same elements in another shape; symbols are resolved from the graph's inputs. */
export function reshape<V extends Value>(x: V, shape: Shape): V {
  const from = multiplyDims(x.shape);
  const to = multiplyDims(shape);
  if (from !== to) {
    throw new InvalidInputError(`reshape: ${x} has ${from} elements, ${formatShape(shape)} has ${to}.`);
  }
  return reshapeOp(x, { shape: JSON.stringify(shape) }) as V;
}

const expandOp: Op<[x: Float], { shape: string }> = defineOp("Expand", {
  infer: ([x], { shape }) => ({ dtype: x.dtype, shape: JSON.parse(shape) as Shape }),
  gradient: ({ dy }) => [dy], // the walk sums over what was broadcast
  lower: (emitter, node, outputs) => {
    const [x] = node.inputs as [Value];
    emitter.node(
      "Expand",
      [emitter.name(x), emitter.shape(JSON.parse(node.attributes.shape) as Shape)],
      {},
      { outputs },
    );
  },
});

/** Repeats size-1 (or missing leading) dimensions. */
export function expand(x: Float, shape: Shape): Float {
  const padded = [...Array<Dim>(Math.max(0, shape.length - x.rank)).fill(1), ...x.shape];
  if (padded.length !== shape.length || padded.some((dim, i) => dim !== 1 && dim !== shape[i])) {
    throw new InvalidInputError(`expand: ${x} does not broadcast to ${formatShape(shape)}.`);
  }
  return expandOp(x, { shape: JSON.stringify(shape) });
}

export const transpose: Op<[x: Float], { perm: readonly number[] }> = defineOp("Transpose", {
  infer: ([x], { perm }) => {
    if (perm.length !== x.rank || [...perm].sort((a, b) => a - b).some((axis, i) => axis !== i)) {
      throw new InvalidInputError(`transpose: [${perm}] is no permutation of the axes of ${x}.`);
    }
    return { dtype: x.dtype, shape: perm.map((axis) => x.shape[axis]!) };
  },
  gradient: ({ attributes: { perm }, dy }) => [transpose(dy, { perm: perm.map((_, axis) => perm.indexOf(axis)) })],
});

/** The permutation that swaps the last two of `rank` axes. */
export function lastTwoSwapped(rank: number): number[] {
  const perm = Array.from({ length: rank }, (_, axis) => axis);
  perm.push(...perm.splice(-2).reverse());
  return perm;
}

/** Swaps the last two axes. */
export function transposeLast(x: Float): Float {
  return transpose(x, { perm: lastTwoSwapped(x.rank) });
}

function axisOf(operation: string, x: Value, axis: number): number {
  const positive = axis < 0 ? axis + x.rank : axis;
  if (!(positive >= 0 && positive < x.rank))
    throw new InvalidInputError(`${operation}: axis ${axis} is outside of ${x}.`);
  return positive;
}

/** Any number of values, joined along one axis; the definition is variadic, so it is called through `concat`. */
const concatOp: Op<Float[], { axis: number }> = defineOp<Float[], { axis: number }>("Concat", {
  infer: (values, { axis }) => ({
    dtype: values[0]!.dtype,
    shape: values[0]!.shape.map((dim, i) => (i === axis ? addDims(values.map((value) => value.shape[i]!)) : dim)),
  }),
  gradient: ({ inputs, attributes: { axis }, dy }) => {
    let start: Dim = 0;
    return inputs.map((value) => {
      const end = addDims([start, value.shape[axis]!]);
      const part = slice(dy, { axis, start, end });
      start = end;
      return part;
    });
  },
});

/** Joins values along an axis; all other dimensions are equal. */
export function concat(values: readonly Float[], axis: number): Float {
  const first = values[0];
  if (!first) throw new InvalidInputError("concat: got no values.");
  const at = axisOf("concat", first, axis);
  for (const value of values) {
    if (
      value.dtype !== first.dtype ||
      value.rank !== first.rank ||
      value.shape.some((dim, i) => i !== at && dim !== first.shape[i])
    ) {
      throw new InvalidInputError(`concat: types or shapes differ outside of axis ${at}: ${values.join(", ")}.`);
    }
  }
  return (concatOp as unknown as (...args: unknown[]) => Float)(...values, { axis: at });
}

const sliceOp: Op<[x: Float], { axis: number; start: string; end: string; size: string }> = defineOp("Slice", {
  infer: ([x], { axis, size }) => ({
    dtype: x.dtype,
    shape: x.shape.map((dim, i) => (i === axis ? JSON.parse(size) : dim)),
  }),
  // Zeros before and after: what was cut off has no gradient.
  gradient: ({ inputs: [x], attributes: { axis, start, end }, dy }) => [
    pad(dy, {
      axis,
      before: JSON.parse(start) as Dim,
      after: subtractDims(x.shape[axis]!, JSON.parse(end) as Dim),
      size: x.shape[axis]!,
    }),
  ],
  lower: (emitter, node, outputs) => {
    const { axis, start, end } = node.attributes;
    const bound = (text: string) => emitter.shape([JSON.parse(text) as Dim]);
    const [x] = node.inputs as [Value];
    emitter.node("Slice", [emitter.name(x), bound(start), bound(end), emitter.int64([axis])], {}, { outputs });
  },
});

/** Elements `start` to before `end` of one axis. Bounds may be symbols. */
export function slice(x: Float, { axis, start, end }: { axis: number; start: Dim; end: Dim }): Float {
  const at = axisOf("slice", x, axis);
  // ONNX would cut bounds that lie outside to size, and count negative ones from the end.
  const bounds = [0, start, end, x.shape[at]!].filter((dim) => typeof dim === "number");
  if (bounds.some((bound, i) => bound < (bounds[i - 1] ?? 0))) {
    throw new InvalidInputError(`slice: ${start} to ${end} is not within axis ${at} of ${x}.`);
  }
  const size = subtractDims(end, start);
  const text = JSON.stringify;
  return sliceOp(x, { axis: at, start: text(start), end: text(end), size: text(size) });
}

const padOp: Op<[x: Float], { axis: number; before: string; after: string; size: string }> = defineOp("Pad", {
  infer: ([x], { axis, size }) => ({
    dtype: x.dtype,
    shape: x.shape.map((dim, i) => (i === axis ? JSON.parse(size) : dim)),
  }),
  gradient: ({ inputs: [x], attributes: { axis, before }, dy }) => {
    const start = JSON.parse(before) as Dim;
    return [slice(dy, { axis, start, end: addDims([start, x.shape[axis]!]) })];
  },
  lower: (emitter, node, outputs) => {
    const { axis, before, after } = node.attributes;
    const [x] = node.inputs as [Value];
    // One pair for every axis: with an input `axes`, ONNX Runtime 1.30 permutes the pads wrongly where it moves a
    // Transpose past the Pad ("indices element out of data bounds").
    const side = (text: string) => x.shape.map((_, i) => (i === axis ? (JSON.parse(text) as Dim) : 0));
    emitter.node("Pad", [emitter.name(x), emitter.shape([...side(before), ...side(after)])], {}, { outputs });
  },
});

/** Zeros before and after along one axis; `size` is the resulting dimension. */
export function pad(
  x: Float,
  { axis, before, after, size }: { axis: number; before: Dim; after: Dim; size: Dim },
): Float {
  const text = JSON.stringify;
  const at = axisOf("pad", x, axis);
  const total = addDims([before, x.shape[at]!, after]);
  if (total !== size) {
    throw new InvalidInputError(
      `pad: ${before} + ${x.shape[at]} + ${after} is ${total} at axis ${at} of ${x}, not ${size}.`,
    );
  }
  return padOp(x, { axis: at, before: text(before), after: text(after), size: text(size) });
}

/** Equal parts along an axis; each part is an output. */
const splitOp = defineMultiOp<[x: Float], { axis: number; num_outputs: number }, Float[]>("Split", {
  infer: ([x], { axis, num_outputs: count }) =>
    Array.from({ length: count }, () => ({
      dtype: x.dtype,
      shape: x.shape.map((dim, i) => (i === axis ? (dim as number) / count : dim)),
    })),
  gradient: ({ attributes: { axis }, outputs, dys }) => [
    concat(
      outputs.map((part, i) => dys[i] ?? zerosOf(part as Float)),
      axis,
    ),
  ],
});

export function split(x: Float, { axis, parts }: { axis: number; parts: number }): Float[] {
  const at = axisOf("split", x, axis);
  const dim = x.shape[at];
  if (typeof dim !== "number" || dim % parts !== 0) {
    throw new InvalidInputError(`split: axis ${at} of ${x} can't be cut into ${parts} equal parts.`);
  }
  return splitOp(x, { axis: at, num_outputs: parts });
}

/** Rows of `table` at `indices`: the embedding lookup. */
export const gather: Op<[table: Float, indices: Int]> = defineOp("Gather", {
  infer: ([table, indices]) => ({ dtype: table.dtype, shape: [...indices.shape, ...table.shape.slice(1)] }),
  // A row read twice receives two gradients, so the scatter adds.
  gradient: ({ inputs: [table, indices], dy }) => [scatterAdd(table, indices, dy), null],
});

/**
 * Zeros of the shape of `table`, with `rows` added at `indices`. Lowered to ScatterElements: `ScatterND` with
 * reduction "add" loses updates of repeated indices when it has more than one thread (microsoft/onnxruntime#18048).
 */
export const scatterAdd: Op<[table: Float, indices: Int, rows: Float]> = defineOp("ScatterElements", {
  infer: ([table, indices, rows]) => {
    if (rows.dtype !== table.dtype || !sameShape(rows.shape, [...indices.shape, ...table.shape.slice(1)])) {
      throw new InvalidInputError(`scatterAdd: rows are ${rows}, the table ${table}, the indices ${indices}.`);
    }
    return { dtype: table.dtype, shape: table.shape };
  },
  gradient: ({ inputs: [table, indices], dy }) => [zerosOf(table), null, gather(dy, indices)],
  lower: (emitter, node, outputs) =>
    lowerScatterAdd(emitter, node.inputs as [Float, Int, Float], outputs, "ScatterElements"),
});

/** The lowering, by either ONNX op: the test of the race needs the wrong one as well. */
export function lowerScatterAdd(
  emitter: Emitter,
  [table, indices, rows]: readonly [Float, Int, Float],
  outputs: readonly string[],
  by: "ScatterElements" | "ScatterND",
): void {
  const width = table.shape.slice(1);
  const zero = emitter.node("Expand", [emitter.name(constant(table.dtype, [], [0])), emitter.shape(table.shape)]);
  const flatIndices = emitter.node("Reshape", [
    emitter.node("Cast", [emitter.name(indices)], { to: 7 }),
    emitter.int64([-1, ...width.map(() => 1)]),
  ]);
  const flatRows = emitter.node("Reshape", [
    emitter.name(rows),
    emitter.shape([multiplyDims(indices.shape), ...width]),
  ]);
  const expanded =
    by === "ScatterND"
      ? flatIndices
      : emitter.node("Expand", [flatIndices, emitter.shape([multiplyDims(indices.shape), ...width])]);
  const attributes = by === "ScatterND" ? { reduction: "add" } : { axis: 0, reduction: "add" };
  emitter.node(by, [zero, expanded, flatRows], attributes, { outputs });
}

function zerosOf({ dtype, shape }: Float): Float {
  return expand(constant(dtype, [], [0]) as Float, shape);
}

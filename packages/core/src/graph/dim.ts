/** Dimensions of a tensor: numbers, or symbols ("B", "S") and sums and products of them that are known at run time. */
import { internal } from "../errors.js";

/** A size known now, or the name of one known at run time: `"B"`, `"B*S"`, `"(8+S)"`. */
export type Dim = number | string;
export type Shape = readonly Dim[];

/** The product, in canonical form: the number first, symbols sorted. */
export function multiplyDims(dims: Shape): Dim {
  let factor = 1;
  const symbols: string[] = [];
  for (const dim of dims) {
    for (const part of typeof dim === "number" ? [dim] : splitDim(dim, "*")) {
      const value = Number(part);
      if (Number.isNaN(value)) symbols.push(String(part));
      else factor *= value;
    }
  }
  if (factor === 0 || symbols.length === 0) return factor;
  symbols.sort();
  return (factor === 1 ? symbols : [factor, ...symbols]).join("*");
}

/** The sum, in canonical form: `"(8+S)"`, the number first, symbols sorted. */
export function addDims(dims: Shape): Dim {
  let total = 0;
  const symbols: string[] = [];
  for (const dim of dims) {
    for (const part of typeof dim === "number" ? [dim] : splitDim(unwrap(dim), "+")) {
      const value = Number(part);
      if (Number.isNaN(value)) symbols.push(String(part));
      else total += value;
    }
  }
  if (symbols.length === 0) return total;
  symbols.sort();
  return total === 0 && symbols.length === 1
    ? symbols[0]!
    : `(${(total === 0 ? symbols : [total, ...symbols]).join("+")})`;
}

/** What a dimension is made of, for whoever computes it: a leaf, or a sum or product of dimensions. */
export function parseDim(dim: Dim): number | string | { operation: "+" | "*"; parts: Dim[] } {
  if (typeof dim === "number") return dim;
  for (const operation of ["*", "+"] as const) {
    const parts = splitDim(operation === "+" ? unwrap(dim) : dim, operation);
    if (parts.length > 1) return { operation, parts: parts.map(toDim) };
  }
  return dim;
}

/** `[B, 384]`, for messages and prints. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** The shape of an elementwise result, numpy's rule; undefined where the two don't fit. */
export function broadcastShapes(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length);
  const shape: Dim[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) return undefined;
    shape.push(x === 1 ? y : x);
  }
  return shape;
}

function toDim(part: string): Dim {
  const value = Number(part);
  return Number.isNaN(value) ? part : value;
}

function unwrap(dim: string): string {
  return dim.startsWith("(") && dim.endsWith(")") && splitDim(dim, "*").length === 1 ? dim.slice(1, -1) : dim;
}

/** Splits at `separator` outside parentheses. */
function splitDim(dim: string, separator: "+" | "*"): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < dim.length; i++) {
    if (dim[i] === "(") depth++;
    else if (dim[i] === ")") depth--;
    else if (dim[i] === separator && depth === 0) {
      parts.push(dim.slice(start, i));
      start = i + 1;
    }
  }
  if (depth !== 0) throw internal(`unbalanced dimension ${dim}`);
  return [...parts, dim.slice(start)];
}

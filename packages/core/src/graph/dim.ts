/** Dimensions of a tensor: numbers, or symbols ("B", "S") and sums and products of them that are known at run time. */
import { InvalidInputError, internal } from "../errors.js";

/** A size known now, or the name of one known at run time: `"B"`, `"B*S"`, `"(8+S)"`. */
export type Dim = number | string;
export type Shape = readonly Dim[];

/** The product, in canonical form: multiplied out, so that equal dimensions are equal strings. */
export function multiplyDims(dims: Shape): Dim {
  return formatSum(dims.map(expand).reduce(product, new Map([["", 1]])));
}

/** The sum, in canonical form: `"(8+S)"`, the number first, symbols sorted, like terms joined. */
export function addDims(dims: Shape): Dim {
  return formatSum(dims.map(expand).reduce(sum, new Map()));
}

/** a − b in canonical form: `"(512+-1*S)"` where it isn't shorter. */
export function subtractDims(a: Dim, b: Dim): Dim {
  return addDims([a, multiplyDims([-1, b])]);
}

/** What a dimension is made of, for whoever computes it: a leaf, or a sum or product of dimensions. */
export function parseDim(dim: Dim): number | string | { operation: "+" | "*"; parts: Dim[] } {
  if (typeof dim === "number") return dim;
  const inner = unwrap(dim);
  for (const operation of ["+", "*"] as const) {
    const parts = splitDim(inner, operation);
    if (parts.length > 1) return { operation, parts: parts.map(toDim) };
  }
  if (inner !== dim) return parseDim(inner);
  if (!/^[A-Za-z_]\w*$/.test(dim)) {
    throw new InvalidInputError(`"${dim}" is no dimension: use a name such as "B", or sums and products of names.`);
  }
  return dim;
}

/** The number that a dimension stands for, given its symbols; undefined where one of them isn't given. */
export function evaluateDim(dim: Dim, sizes: ReadonlyMap<string, number>): number | undefined {
  const parsed = parseDim(dim);
  if (typeof parsed === "number") return parsed;
  if (typeof parsed === "string") return sizes.get(parsed);
  let result = parsed.operation === "+" ? 0 : 1;
  for (const part of parsed.parts) {
    const value = evaluateDim(part, sizes);
    if (value === undefined) return undefined;
    result = parsed.operation === "+" ? result + value : result * value;
  }
  return result;
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

/** A sum of products: the factor of each product of symbols, whose names are sorted and joined by "*"; "" is 1. */
type Sum = ReadonlyMap<string, number>;

function expand(dim: Dim): Sum {
  const parsed = parseDim(dim);
  if (typeof parsed === "number") return new Map([["", parsed]]);
  if (typeof parsed === "string") return new Map([[parsed, 1]]);
  return parsed.parts.map(expand).reduce(parsed.operation === "+" ? sum : product);
}

function sum(a: Sum, b: Sum): Sum {
  const result = new Map(a);
  for (const [symbols, factor] of b) result.set(symbols, (result.get(symbols) ?? 0) + factor);
  return result;
}

function product(a: Sum, b: Sum): Sum {
  const result = new Map<string, number>();
  for (const [x, p] of a) {
    for (const [y, q] of b) {
      const symbols = [...x.split("*"), ...y.split("*")].filter(Boolean).sort().join("*");
      result.set(symbols, (result.get(symbols) ?? 0) + p * q);
    }
  }
  return result;
}

function formatSum(terms: Sum): Dim {
  const sorted = [...terms].filter(([, factor]) => factor !== 0).sort(([a], [b]) => (a < b ? -1 : 1));
  const texts = sorted.map(([symbols, factor]) =>
    symbols === "" ? String(factor) : factor === 1 ? symbols : `${factor}*${symbols}`,
  );
  return texts.length > 1 ? `(${texts.join("+")})` : toDim(texts[0] ?? "0");
}

function toDim(part: string): Dim {
  return /^-?\d+$/.test(part) ? Number(part) : part;
}

/** Without the parentheses around the whole. */
function unwrap(dim: string): string {
  const whole = splitDim(dim, "*").length === 1 && splitDim(dim, "+").length === 1;
  return whole && dim.startsWith("(") && dim.endsWith(")") ? dim.slice(1, -1) : dim;
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

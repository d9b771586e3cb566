/** Mean and covariance of a stream of unit vectors, in float64 and bounded memory. */
import { InvalidInputError } from "../errors.js";
import { OuterSum } from "../simd/product.js";

/** Vectors one after the other, or rows packed into one array. */
export type VectorSource =
  | Iterable<Float32Array>
  | AsyncIterable<Float32Array>
  | { readonly rows: Float32Array; readonly dimensions: number };

/** First and second moments of J vectors. Where J is at most the dimension, the rows themselves are the shorter form. */
export interface Moments {
  readonly count: number;
  readonly dimensions: number;
  readonly mean: Float64Array;
  /** Symmetric [D, D], divided by J; where J > D. */
  readonly covariance?: Float64Array;
  /** All vectors [J, D]; where J <= D. */
  readonly rows?: Float32Array;
}

/** How far a length may be from 1: float16 and rounded text keep within, a forgotten normalisation doesn't. */
const LENGTH_TOLERANCE = 1e-3;

/** Refuses a vector that isn't finite, of unit length and of the dimension expected. */
export function checkUnitVector(operation: string, vector: Float32Array, dimensions: number, position: number): void {
  if (vector.length !== dimensions) {
    const message = `${operation}: vector ${position} has ${vector.length} dimensions, expected ${dimensions}. All vectors must come from one model.`;
    throw new InvalidInputError(message, { position });
  }
  let squares = 0;
  for (let i = 0; i < dimensions; i++) squares += vector[i]! * vector[i]!;
  if (Math.abs(squares - 1) <= 2 * LENGTH_TOLERANCE) return;
  const bad = vector.findIndex((value) => !Number.isFinite(value));
  const found =
    bad >= 0
      ? `has ${vector[bad]} in dimension ${bad}. Check what its text gave`
      : squares === 0
        ? "is zero. An empty text or a failed request gives such a vector; leave it out"
        : `has length ${Math.sqrt(squares).toPrecision(6)}, expected 1. Normalise it`;
  throw new InvalidInputError(`${operation}: vector ${position} ${found}.`, { position });
}

/** The sums behind the covariance. Σ(x − t)(x − t)ᵀ with t near the mean leaves nothing large to cancel. */
export class CovarianceSum {
  readonly #shift: Float64Array;
  readonly #sum: Float64Array;
  readonly #products: OuterSum;
  #count = 0;

  /** @param shift any vector near the data: the mean of the first ones */
  constructor(shift: Float64Array) {
    this.#shift = shift;
    this.#sum = new Float64Array(shift.length);
    this.#products = new OuterSum(shift.length);
  }

  add(vectors: Float32Array, offset = 0): void {
    this.#products.push(vectors, this.#shift, offset);
    for (let i = 0; i < this.#sum.length; i++) this.#sum[i] = this.#sum[i]! + (vectors[offset + i]! - this.#shift[i]!);
    this.#count++;
  }

  finish(): { count: number; mean: Float64Array; covariance: Float64Array } {
    const dimensions = this.#shift.length;
    const away = this.#sum.map((value) => value / this.#count); // mean − shift
    const covariance = this.#products.matrix();
    for (let i = 0; i < dimensions; i++) {
      for (let j = 0; j < dimensions; j++) {
        covariance[i * dimensions + j] = covariance[i * dimensions + j]! / this.#count - away[i]! * away[j]!;
      }
    }
    return { count: this.#count, mean: away.map((value, i) => value + this.#shift[i]!), covariance };
  }
}

/**
 * Reads all vectors once. Memory: at most 4 D² bytes of rows and 20 D² of sums, whatever J.
 *
 * @throws InvalidInputError for no vectors, or one that isn't finite, of unit length and of the first one's dimension
 */
export async function readMoments(operation: string, source: VectorSource): Promise<Moments> {
  let dimensions = 0;
  let count = 0;
  let head = new Float32Array(0);
  let sum: CovarianceSum | undefined;
  for await (const vector of each(operation, source)) {
    if (count === 0) dimensions = vector.length;
    checkUnitVector(operation, vector, dimensions, count);
    if (sum === undefined && count === dimensions) {
      // One more than rows are kept for: from here on only sums.
      sum = new CovarianceSum(meanOf(head, count, dimensions));
      for (let j = 0; j < count; j++) sum.add(head, j * dimensions);
      head = new Float32Array(0);
    }
    if (sum !== undefined) sum.add(vector);
    else {
      if (head.length < (count + 1) * dimensions) {
        const grown = new Float32Array(Math.min(dimensions, Math.max(64, 2 * count)) * dimensions);
        grown.set(head);
        head = grown;
      }
      head.set(vector, count * dimensions);
    }
    count++;
  }
  if (count === 0) throw new InvalidInputError(`${operation}: got 0 context vectors, expected at least 1.`);
  if (sum !== undefined) return { dimensions, ...sum.finish() };
  const rows = head.subarray(0, count * dimensions);
  return { count, dimensions, mean: meanOf(rows, count, dimensions), rows };
}

/** The matrix of inner products of the centred rows, divided by their number: its nonzero eigenvalues are S's. */
export function gramMatrix(rows: Float32Array, mean: Float64Array): Float64Array {
  const dimensions = mean.length;
  const count = rows.length / dimensions;
  const sum = new OuterSum(count);
  for (let i = 0; i < dimensions; i++) sum.push(rows, mean[i]!, i, dimensions);
  return sum.matrix().map((value) => value / count);
}

function meanOf(rows: Float32Array, count: number, dimensions: number): Float64Array {
  const mean = new Float64Array(dimensions);
  for (let j = 0; j < count; j++) {
    for (let i = 0; i < dimensions; i++) mean[i] = mean[i]! + rows[j * dimensions + i]!;
  }
  return mean.map((value) => value / count);
}

function* slices(operation: string, rows: Float32Array, dimensions: number): Generator<Float32Array> {
  checkPacked(operation, rows, dimensions);
  for (let at = 0; at < rows.length; at += dimensions) yield rows.subarray(at, at + dimensions);
}

/** Refuses packed rows whose length is no multiple of their width. */
export function checkPacked(operation: string, rows: Float32Array, dimensions: number): void {
  if (!Number.isInteger(dimensions) || dimensions < 1 || rows.length % dimensions !== 0) {
    const message = `${operation}: ${rows.length} numbers don't divide into rows of ${dimensions} dimensions.`;
    throw new InvalidInputError(message);
  }
}

function each(operation: string, source: VectorSource): Iterable<Float32Array> | AsyncIterable<Float32Array> {
  return "dimensions" in source ? slices(operation, source.rows, source.dimensions) : source;
}

/** The spectrum of a corpus's context vectors: all that a spectral map of any strength is made from. */
import { InvalidInputError } from "../errors.js";
import { transposedProduct } from "../simd/product.js";
import { gramMatrix, type Moments, readMoments, type VectorSource } from "./covariance.js";
import { symmetricEigen } from "./symmetric-eigen.js";

/** One named array, as safetensors keeps it. */
export interface FloatTensor {
  readonly dtype: "float64";
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/**
 * Vectors whose mean square distance from their mean is below this are one vector: (10⁻⁶)² is what float32 rounding of
 * unit vectors alone can give, and its "directions" would be noise scaled up.
 */
const SAME_VECTOR_VARIANCE = 1e-12;
const OPERATION = "fitSpectralMap";

interface Parts {
  readonly count: number;
  readonly mean: Float64Array;
  readonly eigenvalues: Float64Array;
  readonly basis: Float64Array;
}

/** Immutable: don't write into its arrays. */
export class Spectrum {
  /** J, the number of context vectors. */
  readonly count: number;
  readonly dimensions: number;
  readonly mean: Float64Array;
  /** |m|², between 0 and 1: how alike the context vectors are. */
  readonly meanNormSquared: number;
  /** Of the covariance, descending and scaled to mean 1, one a dimension; all 0 where the covariance is. */
  readonly eigenvalues: Float64Array;
  /** [rank, D]: unit eigenvectors of the eigenvalues above rounding noise, in their order; signs are arbitrary. */
  readonly basis: Float64Array;
  readonly rank: number;
  /** Several context vectors, all the same: there is a mean and nothing else. */
  readonly degenerate: boolean;

  private constructor({ count, mean, eigenvalues, basis }: Parts) {
    this.count = count;
    this.dimensions = mean.length;
    this.mean = mean;
    this.meanNormSquared = mean.reduce((sum, value) => sum + value * value, 0);
    this.eigenvalues = eigenvalues;
    this.basis = basis;
    this.rank = basis.length / mean.length;
    this.degenerate = count > 1 && this.rank === 0;
    Object.freeze(this);
  }

  /**
   * Reads the context vectors once. Blocks the thread for the eigen-decomposition: 0.1 s for 384 dimensions, 3 s for
   * 1,536; of min(J, D) dimensions, since fewer vectors than dimensions are decomposed by their inner products.
   *
   * @throws InvalidInputError for no vectors, or one that isn't finite, of unit length and of the first one's dimension
   */
  static async fit(contextVectors: VectorSource): Promise<Spectrum> {
    const moments = await readMoments(OPERATION, contextVectors);
    const { count, dimensions, mean } = moments;
    const nothing = { count, mean, eigenvalues: new Float64Array(dimensions), basis: new Float64Array(0) };
    if (count === 1) return new Spectrum(nothing);

    const { values, vectors } = decompose(moments);
    const positive = values.map((value) => Math.max(value, 0));
    const total = positive.reduce((sum, value) => sum + value, 0);
    if (total <= SAME_VECTOR_VARIANCE) return new Spectrum(nothing);
    const noise = values.length * Number.EPSILON * positive[0]!;
    const rank = positive.findLastIndex((value) => value > noise) + 1;
    const eigenvalues = new Float64Array(dimensions);
    for (let k = 0; k < rank; k++) eigenvalues[k] = (positive[k]! * dimensions) / total;
    const basis =
      moments.rows === undefined ? vectors.subarray(0, rank * dimensions) : toDimensions(moments, vectors, rank);
    return new Spectrum({ count, mean, eigenvalues, basis });
  }

  /** (Σ l)² / Σ l² of the eigenvalues l: directions that the corpus really uses; 0 where the covariance is. */
  get effectiveDimensions(): number {
    const sum = this.eigenvalues.reduce((total, l) => total + l, 0);
    const squares = this.eigenvalues.reduce((total, l) => total + l * l, 0);
    return squares === 0 ? 0 : sum ** 2 / squares;
  }

  /** Copies, to be saved; `Spectrum.fromTensors` reads them. */
  toTensors(): Record<string, FloatTensor> {
    const tensor = (shape: number[], data: Iterable<number>): FloatTensor => ({
      dtype: "float64",
      shape,
      data: Float64Array.from(data),
    });
    return {
      count: tensor([1], [this.count]),
      mean: tensor([this.dimensions], this.mean),
      eigenvalues: tensor([this.dimensions], this.eigenvalues),
      basis: tensor([this.rank, this.dimensions], this.basis),
    };
  }

  /** @throws InvalidInputError naming the tensor that is missing, misshapen, not finite, or can't be of a spectrum */
  static fromTensors(tensors: Readonly<Record<string, FloatTensor>>): Spectrum {
    const mean = readTensor(tensors, "mean", [undefined]);
    const dimensions = mean.length;
    const eigenvalues = readTensor(tensors, "eigenvalues", [dimensions]);
    const basis = readTensor(tensors, "basis", [undefined, dimensions]);
    const count = readTensor(tensors, "count", [1])[0]!;
    const rank = basis.length / dimensions;
    const refuse = (name: string, why: string): never => {
      throw new InvalidInputError(`SpectralMap.fromTensors: tensor "${name}" ${why}. The file is altered; fit anew.`);
    };
    if (!Number.isInteger(count) || count < 1) refuse("count", `is ${count}, expected a whole number from 1`);
    const trace = eigenvalues.reduce((sum, value) => sum + value, 0);
    if (eigenvalues.some((value, i) => value < 0 || value > (eigenvalues[i - 1] ?? Number.POSITIVE_INFINITY))) {
      refuse("eigenvalues", "isn't descending and at least 0");
    }
    const nonzero = eigenvalues.findLastIndex((value) => value > 0) + 1;
    if (rank !== nonzero)
      refuse("basis", `has ${rank} vectors, expected one for each of ${nonzero} eigenvalues above 0`);
    if (rank > 0 && Math.abs(trace / dimensions - 1) > 1e-9) {
      refuse("eigenvalues", `has mean ${trace / dimensions}, expected 1`);
    }
    for (let k = 0; k < rank; k++) {
      let squares = 0;
      for (let i = 0; i < dimensions; i++) squares += basis[k * dimensions + i]! ** 2;
      if (Math.abs(squares - 1) > 1e-9)
        refuse("basis", `has a vector ${k} of length ${Math.sqrt(squares)}, expected 1`);
    }
    return new Spectrum({ count, mean, eigenvalues, basis });
  }
}

/** A checked copy; `undefined` in `shape` stands for any size. */
export function readTensor(
  tensors: Readonly<Record<string, FloatTensor>>,
  name: string,
  shape: readonly (number | undefined)[],
): Float64Array {
  const tensor = Object.hasOwn(tensors, name) ? tensors[name] : undefined;
  const wanted = `float64[${shape.map((size) => size ?? "any").join(", ")}]`;
  const fail = (found: string): never => {
    throw new InvalidInputError(`SpectralMap.fromTensors: tensor "${name}" ${found}, expected ${wanted}.`);
  };
  if (tensor === undefined) return fail("is missing");
  const found = `is ${tensor.dtype}[${tensor.shape.join(", ")}] with ${tensor.data.length} numbers`;
  const size = tensor.shape.reduce((product, n) => product * n, 1);
  const fits = shape.every((n, i) => (n === undefined ? Number.isInteger(tensor.shape[i]) : tensor.shape[i] === n));
  if (tensor.dtype !== "float64" || tensor.shape.length !== shape.length || !fits || size !== tensor.data.length) {
    fail(found);
  }
  const bad = tensor.data.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) fail(`has ${tensor.data[bad]} at ${bad}`);
  return Float64Array.from(tensor.data);
}

function decompose({ covariance, rows, mean, count, dimensions }: Moments): ReturnType<typeof symmetricEigen> {
  return covariance === undefined
    ? symmetricEigen(gramMatrix(rows!, mean), count)
    : symmetricEigen(covariance, dimensions);
}

/**
 * Eigenvectors v of the Gram matrix as eigenvectors of the covariance: u = Cᵀv / |Cᵀv|, C the centred rows. For small
 * eigenvalues u is inexact by eps · l₁ / l, but a map deviates from its common factor there by l only: eps remains.
 */
function toDimensions({ rows, mean, count, dimensions }: Moments, vectors: Float64Array, rank: number): Float64Array {
  const centred = new Float64Array(count * dimensions);
  const weights = new Float64Array(count * rank); // vectors, transposed
  for (let j = 0; j < count; j++) {
    for (let i = 0; i < dimensions; i++) centred[j * dimensions + i] = rows![j * dimensions + i]! - mean[i]!;
    for (let k = 0; k < rank; k++) weights[j * rank + k] = vectors[k * count + j]!;
  }
  const basis = transposedProduct(weights, centred, count);
  for (let k = 0; k < rank; k++) {
    let squares = 0;
    for (let i = k * dimensions; i < (k + 1) * dimensions; i++) squares += basis[i]! * basis[i]!;
    const length = Math.sqrt(squares);
    for (let i = k * dimensions; i < (k + 1) * dimensions; i++) basis[i] = basis[i]! / length;
  }
  return basis;
}

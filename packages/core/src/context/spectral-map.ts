/** The spectral context: a closed-form, linear map made from a corpus's context vectors, followed by normalisation. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InvalidInputError } from "../errors.js";
import { OuterSum, ROW_BLOCK, type RowProduct, type RowProductFactory, simdRowProduct } from "../simd/product.js";
import { checkPacked, checkUnitVector, type VectorSource } from "./covariance.js";
import { type FloatTensor, readTensor, Spectrum } from "./spectrum.js";

/** How much of the context acts. */
export interface SpectralStrength {
  /** Exponent of the spectrum, 0 to 1: 0 leaves directions alone, 1 whitens. */
  readonly a: number;
  /** Shrinkage towards equal eigenvalues, above 0 (the corpus alone) to 1 (nothing of it). */
  readonly s: number;
  /** Part of the mean that is taken off, 0 to 1. */
  readonly b: number;
}

/** The strength of the published figures; "off" is the null context. */
export const DEFAULT_STRENGTH: SpectralStrength = Object.freeze({ a: 0.35, s: 0.3, b: 0.5 });

/** Vectors mapped between two turns of the event loop: about 5 ms of 384 dimensions. */
const TURN = 256;

/** What remains of a unit vector in float32 once it has lost all but rounding: no direction to speak of. */
const VANISHED = 1e-6;

export interface SpectralMapOptions {
  /** @default DEFAULT_STRENGTH */
  readonly strength?: SpectralStrength | "off";
  /** Another implementation of the matrix product, say on many threads. @default one thread of WebAssembly SIMD */
  readonly rowProduct?: RowProductFactory;
}

/** Fits the map to the unit context vectors of a corpus (512 serve as well as 2,048), read once. See `Spectrum.fit`. */
export async function fitSpectralMap(
  contextVectors: VectorSource,
  options: SpectralMapOptions = {},
): Promise<SpectralMap> {
  checkStrength(options.strength ?? DEFAULT_STRENGTH); // before the work
  return new SpectralMap(await Spectrum.fit(contextVectors), options);
}

/**
 * e becomes normalise(W (e − b m)), for queries and documents alike, where m is the context's mean, S = U diag(l) Uᵀ
 * its covariance with l scaled to mean 1, and W = U diag(((1 − s) l + s)^(−a/2)) Uᵀ. With a zero covariance (one
 * context vector, or the same one many times) W is the identity. A text's result is the same, to the bit, alone and
 * among others. Immutable: don't write into its arrays.
 */
export class SpectralMap {
  readonly spectrum: Spectrum;
  readonly strength: SpectralStrength | "off";
  readonly #makeRowProduct: RowProductFactory;
  /** b m */
  readonly #shift: Float64Array;
  /** Made at the first use. */
  #product: RowProduct | undefined;

  /** Another strength for the same context costs no new fit. */
  constructor(spectrum: Spectrum, options: SpectralMapOptions = {}) {
    const strength = options.strength ?? DEFAULT_STRENGTH;
    checkStrength(strength);
    this.spectrum = spectrum;
    this.strength = strength === "off" ? "off" : Object.freeze({ a: strength.a, s: strength.s, b: strength.b });
    this.#shift = spectrum.mean.map((value) => (strength === "off" ? 0 : strength.b) * value);
    this.#makeRowProduct = options.rowProduct ?? simdRowProduct;
    Object.freeze(this);
  }

  get dimensions(): number {
    return this.spectrum.dimensions;
  }
  get mean(): Float64Array {
    return this.spectrum.mean;
  }
  get meanNormSquared(): number {
    return this.spectrum.meanNormSquared;
  }
  /** Descending, scaled to mean 1; all 0 where the context has no spread. */
  get eigenvalues(): Float64Array {
    return this.spectrum.eigenvalues;
  }
  /** The eigenvalues behind the map, scaled to mean 1 again: flatter ones. In the order of `eigenvalues`. */
  get mappedEigenvalues(): Float64Array {
    const scaled = this.eigenvalues.map((l) => l * directionFactor(this.strength, l, 2));
    const mean = scaled.reduce((sum, l) => sum + l, 0) / scaled.length;
    return scaled.map((l) => (mean === 0 ? 0 : l / mean));
  }
  /** Several context vectors, all the same: only the mean acts. */
  get degenerate(): boolean {
    return this.spectrum.degenerate;
  }

  /**
   * Maps unit vectors to new unit vectors; with strength "off", to copies.
   *
   * @throws InvalidInputError (with the position) for a vector that isn't finite, of unit length and of this map's
   *   dimension, or that the map sends to zero (e = b m)
   */
  apply(vectors: readonly Float32Array[]): Float32Array[] {
    return this.#apply(vectors, 0, vectors.length);
  }

  /** The same, leaving the event loop a turn after every 256 vectors; rejects with the signal's reason. */
  async applyInTurns(vectors: readonly Float32Array[], signal?: AbortSignal): Promise<Float32Array[]> {
    const out: Float32Array[] = [];
    for (let start = 0; start < vectors.length; start += TURN) {
      if (start > 0) await nextTurn();
      signal?.throwIfAborted();
      out.push(...this.#apply(vectors, start, Math.min(start + TURN, vectors.length)));
    }
    return out;
  }

  /** The same for rows packed into one array [n, D]. */
  applyRows(rows: Float32Array): Float32Array {
    const width = this.dimensions;
    checkPacked("SpectralMap.applyRows", rows, width);
    const count = rows.length / width;
    const row = (of: Float32Array, position: number) => of.subarray(position * width, (position + 1) * width);
    for (let position = 0; position < count; position++) {
      checkUnitVector("SpectralMap.applyRows", row(rows, position), width, position);
    }
    const out = new Float32Array(rows.length);
    this.#map(
      count,
      (position) => row(rows, position),
      (position) => row(out, position),
    );
    return out;
  }

  /** W in float64, [D, D]: symmetric. For inspection and tests; `apply` doesn't need it. */
  weights(): Float64Array {
    const { dimensions, basis, rank } = this.spectrum;
    const { common, losses } = this.#factors();
    // W = c·1 − Σ (c − f) u uᵀ: every direction without a basis vector has the same factor c, the largest.
    const sum = new OuterSum(dimensions);
    for (let k = 0; k < rank; k++) sum.push(basis, 0, k * dimensions, 1, Math.sqrt(losses[k]!));
    const weights = sum.matrix().map((value) => -value);
    for (let i = 0; i < dimensions; i++) weights[i * dimensions + i] = weights[i * dimensions + i]! + common;
    return weights;
  }

  /** Copies, to be saved: the spectrum and the strength ([a, s, b], or nothing for "off"). */
  toTensors(): Record<string, FloatTensor> {
    const values = this.strength === "off" ? [] : [this.strength.a, this.strength.s, this.strength.b];
    const strength = { dtype: "float64", shape: [values.length], data: Float64Array.from(values) } as const;
    return { ...this.spectrum.toTensors(), strength };
  }

  /** @throws InvalidInputError naming the tensor that is missing, misshapen, not finite, or can't be of a map */
  static fromTensors(
    tensors: Readonly<Record<string, FloatTensor>>,
    options: Omit<SpectralMapOptions, "strength"> = {},
  ): SpectralMap {
    const off = tensors.strength?.shape[0] === 0;
    const [a, s, b] = readTensor(tensors, "strength", [off ? 0 : 3]);
    const strength = off ? "off" : { a: a!, s: s!, b: b! };
    return new SpectralMap(Spectrum.fromTensors(tensors), { ...options, strength });
  }

  /** f(0), and f(0) − f(l) for each basis vector, with f(l) = ((1 − s) l + s)^(−a/2). */
  #factors(): { common: number; losses: Float64Array } {
    const { rank, eigenvalues } = this.spectrum;
    const { strength } = this;
    if (strength === "off" || rank === 0) return { common: 1, losses: new Float64Array(rank) };
    const factor = (l: number) => directionFactor(strength, l);
    const common = factor(0);
    return { common, losses: eigenvalues.slice(0, rank).map((l) => common - factor(l)) };
  }

  /** W as one matrix, or as c·1 − Uᵀ diag(losses) U where that takes fewer multiplications. */
  #makeProduct(): RowProduct {
    const { dimensions, basis, rank } = this.spectrum;
    const make = this.#makeRowProduct;
    if (rank === 0) return (rows, count, out) => out.set(rows.subarray(0, count * dimensions));
    if (2 * rank >= dimensions) return make(this.weights(), dimensions, dimensions);
    const { common, losses } = this.#factors();
    const transposed = new Float64Array(basis.length);
    for (let k = 0; k < rank; k++) {
      for (let i = 0; i < dimensions; i++) transposed[i * rank + k] = basis[k * dimensions + i]!;
    }
    const down = make(transposed, dimensions, rank);
    const lossy = basis.map((value, at) => -losses[Math.floor(at / dimensions)]! * value);
    const up = make(lossy, rank, dimensions);
    const between = new Float32Array(ROW_BLOCK * rank);
    return (rows, count, out) => {
      down(rows, count, between);
      up(between, count, out);
      for (let i = 0; i < count * dimensions; i++) out[i] = out[i]! + common * rows[i]!;
    };
  }

  #apply(vectors: readonly Float32Array[], start: number, end: number): Float32Array[] {
    const part = vectors.slice(start, end);
    part.forEach((vector, i) => {
      checkUnitVector("SpectralMap.apply", vector, this.dimensions, start + i);
    });
    const out = part.map(() => new Float32Array(this.dimensions));
    this.#map(
      part.length,
      (i) => part[i]!,
      (i) => out[i]!,
      start,
    );
    return out;
  }

  #map(
    count: number,
    read: (position: number) => Float32Array,
    write: (position: number) => Float32Array,
    firstPosition = 0,
  ): void {
    const { dimensions, strength } = this;
    if (strength === "off") {
      for (let position = 0; position < count; position++) write(position).set(read(position));
      return;
    }
    this.#product ??= this.#makeProduct();
    const shift = this.#shift;
    const centred = new Float32Array(Math.min(count, ROW_BLOCK) * dimensions);
    const mapped = new Float32Array(centred.length);
    for (let start = 0; start < count; start += ROW_BLOCK) {
      const size = Math.min(ROW_BLOCK, count - start);
      for (let r = 0; r < size; r++) {
        const vector = read(start + r);
        let squares = 0;
        for (let i = 0; i < dimensions; i++) {
          const value = vector[i]! - shift[i]!;
          squares += value * value;
          centred[r * dimensions + i] = value;
        }
        if (squares <= VANISHED ** 2) {
          const message = `SpectralMap.apply: vector ${firstPosition + start + r} is ${strength.b} times the context's mean, and the map sends it to zero. Use a smaller b, or more varied context documents.`;
          throw new InvalidInputError(message, { position: firstPosition + start + r });
        }
      }
      this.#product(centred, size, mapped);
      for (let r = 0; r < size; r++) {
        let squares = 0;
        for (let i = r * dimensions; i < (r + 1) * dimensions; i++) squares += mapped[i]! * mapped[i]!;
        const scale = 1 / Math.sqrt(squares);
        const out = write(start + r);
        for (let i = 0; i < dimensions; i++) out[i] = scale * mapped[r * dimensions + i]!;
      }
    }
  }
}

/** f(l)^power with f(l) = ((1 − s) l + s)^(−a/2): what a direction of eigenvalue l is multiplied by, and its variance by f². */
export function directionFactor(strength: SpectralStrength | "off", l: number, power = 1): number {
  if (strength === "off") return 1;
  const { a, s } = strength;
  return ((1 - s) * l + s) ** ((-a * power) / 2);
}

/** @throws InvalidInputError that names the number and its range */
export function checkStrength(strength: SpectralStrength | "off"): void {
  if (strength === "off") return;
  for (const name of ["a", "s", "b"] as const) {
    const value = strength[name];
    if (!(value >= 0 && value <= 1) || (name === "s" && value === 0)) {
      const range = name === "s" ? "above 0 and at most 1" : "from 0 to 1";
      throw new InvalidInputError(`SpectralMap: strength ${name} is ${value}, expected a number ${range}, or "off".`);
    }
  }
}

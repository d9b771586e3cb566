/** What each candidate strength gains on pseudo-queries: how much nearer to the top their own documents come. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { ROW_BLOCK, type RowProduct, simdRowProduct } from "../../simd/product.js";
import { directionFactor, type SpectralStrength } from "../spectral-map.js";
import type { Spectrum } from "../spectrum.js";
import { CANDIDATES } from "./candidates.js";

/** Unit base vectors, packed row by row. */
export interface PseudoVectors {
  /** [documents, D]: the context vectors. */
  readonly documents: Float32Array;
  /** [pseudo-queries, D] for each kind. */
  readonly queries: readonly Float32Array[];
  /** [pseudo-queries, D]: each one's document without what the query was made from. */
  readonly rest: Float32Array;
  /** Of each pseudo-query, the position of its document. */
  readonly owners: readonly number[];
}

/** By candidate, in the order of `CANDIDATES`; points are hundredths of the figure, as for nDCG × 100. */
export interface PseudoGains {
  readonly mean: Float64Array;
  /** Standard error of the mean over documents. */
  readonly error: Float64Array;
}

/** Coordinates in the spectrum's basis, and what lies outside of it as inner products. */
interface Projected {
  readonly width: number;
  /** [rows, width] */
  readonly coordinates: Float64Array;
  readonly count: number;
}

/**
 * The figure of a pseudo-query is 1 / log2(rank + 1), where its own document, without the sentence that the query was made
 * from, is ranked among all others: uncut, so that a move from place 40 to 20 counts too. Its mean over kinds is one
 * document's figure. Gives every document's, by candidate.
 *
 * With u the spectrum's basis and f(l) the factor of a direction, all scores of all strengths come from coordinates
 * z = ⟨u, x − b m⟩ and plain inner products: ⟨Wx, Wy⟩ = Σ (f² − f₀²) z_x z_y + f₀² ⟨x − b m, y − b m⟩, f₀ = f(0).
 */
export async function pseudoFigures(
  spectrum: Spectrum,
  vectors: PseudoVectors,
  signal?: AbortSignal,
): Promise<Float64Array[]> {
  const { documents, queries, rest, owners } = vectors;
  const figures: Float64Array[] = [];
  let shifted: ShiftedScores | undefined;
  for (const strength of CANDIDATES) {
    await nextTurn();
    signal?.throwIfAborted();
    const { b } = strength === "off" ? { b: 0 } : strength;
    if (shifted?.shift !== b) shifted = new ShiftedScores(spectrum, b, { documents, queries, rest });
    figures.push(figureOf(shifted, strength, owners));
  }
  return figures;
}

/** What figures gain over those of "off", of vectors that may be others: the same pseudo-queries without any context. */
export function gainsOver(off: Float64Array, figures: readonly Float64Array[]): PseudoGains {
  const gains = figures.map((figure) => figure.map((value, i) => 100 * (value - off[i]!)));
  const mean = Float64Array.from(gains, average);
  const error = Float64Array.from(gains, (gain, c) => {
    const variance = average(gain.map((value) => (value - mean[c]!) ** 2));
    return Math.sqrt(variance / Math.max(1, gain.length - 1));
  });
  return { mean, error };
}

function figureOf(scores: ShiftedScores, strength: SpectralStrength | "off", owners: readonly number[]): Float64Array {
  const weights = scores.weights(strength);
  const figure = new Float64Array(owners.length);
  for (const kind of scores.kinds(weights)) {
    for (let i = 0; i < owners.length; i++) {
      const own = kind.own(i);
      const others = kind.row(i);
      let above = 0;
      for (let d = 0; d < others.length; d++) if (d !== owners[i] && others[d]! > own) above++;
      figure[i] = figure[i]! + 1 / Math.log2(above + 2);
    }
  }
  return figure.map((sum) => sum / scores.kindCount);
}

interface KindScores {
  /** Cosine of pseudo-query `i` (up to a factor of its own) with the rest of its document. */
  own(i: number): number;
  /** The same with every document. */
  row(i: number): Float32Array;
}

/** All vectors with b m taken off, once for all strengths that share b. */
class ShiftedScores {
  readonly shift: number;
  readonly kindCount: number;
  readonly #spectrum: Spectrum;
  readonly #documents: Projected;
  readonly #rest: Projected;
  readonly #queries: readonly Projected[];
  /** Queries' coordinates times documents', and times 1: `[…z, plain]` has one entry for each document. */
  readonly #product: RowProduct;
  /** [kind][query, document] and [kind][query]: ⟨q, d⟩ of whole vectors. */
  readonly #plain: readonly Float32Array[];
  readonly #plainOwn: readonly Float64Array[];
  readonly #squares: Float64Array;
  readonly #restSquares: Float64Array;

  constructor(
    spectrum: Spectrum,
    shift: number,
    { documents, queries, rest }: Pick<PseudoVectors, "documents" | "queries" | "rest">,
  ) {
    this.shift = shift;
    this.kindCount = queries.length;
    this.#spectrum = spectrum;
    const width = spectrum.dimensions;
    const moved = (rows: Float32Array) => rows.map((value, at) => value - shift * spectrum.mean[at % width]!);
    const [documentRows, restRows, queryRows] = [moved(documents), moved(rest), queries.map(moved)];
    const project = simdRowProduct(transposed(spectrum.basis, spectrum.rank, width), width, spectrum.rank);
    const projected = (rows: Float32Array): Projected => {
      const coordinates = multiply(project, rows, width, spectrum.rank);
      return { width: spectrum.rank, coordinates: Float64Array.from(coordinates), count: rows.length / width };
    };
    this.#documents = projected(documentRows);
    this.#rest = projected(restRows);
    this.#queries = queryRows.map(projected);
    const count = documentRows.length / width;
    const whole = simdRowProduct(transposed(documentRows, count, width), width, count);
    this.#plain = queryRows.map((rows) => multiply(whole, rows, width, count));
    this.#plainOwn = queryRows.map((rows) => rowDots(rows, restRows, width));
    this.#squares = rowDots(documentRows, documentRows, width);
    this.#restSquares = rowDots(restRows, restRows, width);
    const { coordinates } = this.#documents;
    this.#product = simdRowProduct(transposed(coordinates, count, spectrum.rank), spectrum.rank, count);
  }

  /** f² − f₀² by direction, and f₀² last. */
  weights(strength: SpectralStrength | "off"): Float64Array {
    const { eigenvalues, rank } = this.#spectrum;
    const squared = (l: number) => directionFactor(strength, l, 2);
    const common = squared(0);
    return Float64Array.from([...eigenvalues.subarray(0, rank)].map((l) => squared(l) - common).concat(common));
  }

  *kinds(weights: Float64Array): Generator<KindScores> {
    const common = weights.at(-1)!;
    const lengths = (of: Projected, squares: Float64Array) =>
      squares.map((square, i) => {
        const sum = weightedDot(weights, of, i, of, i);
        return 1 / Math.sqrt(Math.max(sum + common * square, Number.MIN_VALUE));
      });
    const scale = lengths(this.#documents, this.#squares);
    const restScale = lengths(this.#rest, this.#restSquares);
    const count = this.#documents.count;
    for (const [kind, queries] of this.#queries.entries()) {
      const weighted = Float32Array.from(queries.coordinates, (z, at) => z * weights[at % queries.width]!);
      const products = multiply(this.#product, weighted, queries.width, count);
      const plain = this.#plain[kind]!;
      yield {
        own: (i) =>
          (weightedDot(weights, queries, i, this.#rest, i) + common * this.#plainOwn[kind]![i]!) * restScale[i]!,
        row: (i) => {
          const row = products.subarray(i * count, (i + 1) * count);
          for (let d = 0; d < count; d++) row[d] = (row[d]! + common * plain[i * count + d]!) * scale[d]!;
          return row;
        },
      };
    }
  }
}

function weightedDot(weights: Float64Array, a: Projected, i: number, b: Projected, j: number): number {
  let sum = 0;
  for (let k = 0; k < a.width; k++) {
    sum += weights[k]! * a.coordinates[i * a.width + k]! * b.coordinates[j * b.width + k]!;
  }
  return sum;
}

/** rows [count, inner] · matrix, in blocks. */
function multiply(product: RowProduct, rows: Float32Array, inner: number, outer: number): Float32Array {
  const count = rows.length / inner;
  const out = new Float32Array(count * outer);
  for (let start = 0; start < count; start += ROW_BLOCK) {
    const size = Math.min(ROW_BLOCK, count - start);
    product(rows.subarray(start * inner), size, out.subarray(start * outer, (start + size) * outer));
  }
  return out;
}

function transposed(rows: Float32Array | Float64Array, count: number, width: number): Float64Array {
  const out = new Float64Array(rows.length);
  for (let i = 0; i < count; i++) for (let k = 0; k < width; k++) out[k * count + i] = rows[i * width + k]!;
  return out;
}

function rowDots(a: Float32Array, b: Float32Array, width: number): Float64Array {
  const dots = new Float64Array(a.length / width);
  for (let i = 0; i < dots.length; i++) {
    for (let k = i * width; k < (i + 1) * width; k++) dots[i] = dots[i]! + a[k]! * b[k]!;
  }
  return dots;
}

function average(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Matrix products on the SIMD kernels: a sum of outer products in float64, and rows times a matrix in float32. */
import { Kernels, TILE_COLUMNS, TILE_ROWS } from "./kernels.js";

/** Vectors that are gathered before they are multiplied: a panel of 4 columns takes 8 KiB, two fit the first cache. */
const DEPTH = 256;
/** Panels of one group: 256 KiB, so that they stay in the second cache while all others pass by. */
const GROUP = 32;
const TILE = TILE_ROWS * TILE_COLUMNS.float64;

/** The symmetric matrix Σ x xᵀ over all vectors x pushed, in float64 and about 4 n² + 2,048 n bytes. */
export class OuterSum {
  readonly #n: number;
  readonly #panels: number;
  readonly #kernels: Kernels;
  /** [panel][depth][4] */
  readonly #block: Float64Array;
  /** Tiles (p, q) with q <= p, row by row. */
  readonly #tiles: Float64Array;
  #depth = 0;

  constructor(n: number) {
    this.#n = n;
    this.#panels = Math.ceil(n / TILE_ROWS);
    const tiles = (this.#panels * (this.#panels + 1)) / 2;
    this.#kernels = new Kernels(8 * (this.#panels * TILE_ROWS * DEPTH + tiles * TILE));
    this.#block = this.#kernels.float64(this.#panels * TILE_ROWS * DEPTH);
    this.#tiles = this.#kernels.float64(tiles * TILE);
  }

  /** Adds scale² x xᵀ, where entry i of x is `x[offset + i * stride] - shift[i]`. */
  push(x: Float32Array | Float64Array, shift: Float64Array | number, offset = 0, stride = 1, scale = 1): void {
    const block = this.#block;
    const width = DEPTH * TILE_ROWS;
    for (let i = 0, at = offset; i < this.#n; i++, at += stride) {
      const minus = typeof shift === "number" ? shift : shift[i]!;
      block[(i >> 2) * width + this.#depth * TILE_ROWS + (i & 3)] = scale * (x[at]! - minus);
    }
    if (++this.#depth === DEPTH) this.#multiply();
  }

  /** The sum so far, [n, n]. */
  matrix(): Float64Array {
    if (this.#depth > 0) this.#multiply();
    const n = this.#n;
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        const p = i >> 2;
        const value = this.#tiles[((p * (p + 1)) / 2 + (j >> 2)) * TILE + (i & 3) * 4 + (j & 3)]!;
        matrix[i * n + j] = value;
        matrix[j * n + i] = value;
      }
    }
    return matrix;
  }

  #multiply(): void {
    const { product64 } = this.#kernels.run;
    const panel = DEPTH * TILE_ROWS * 8;
    const block = this.#block.byteOffset;
    const tiles = this.#tiles.byteOffset;
    for (let group = 0; group < this.#panels; group += GROUP) {
      for (let p = group; p < this.#panels; p++) {
        for (let q = group; q <= Math.min(p, group + GROUP - 1); q++) {
          const tile = tiles + ((p * (p + 1)) / 2 + q) * TILE * 8;
          product64(block + p * panel, block + q * panel, tile, this.#depth);
        }
      }
    }
    this.#depth = 0;
  }
}

/** aᵀ b in float64 for a [depth, m] and b [depth, n]: the [m, n] matrix. Packs copies of all three. */
export function transposedProduct(a: Float64Array, b: Float64Array, depth: number): Float64Array {
  const [m, n] = [a.length / depth, b.length / depth];
  const [rows, columns] = [Math.ceil(m / TILE_ROWS), Math.ceil(n / TILE_ROWS)];
  const kernels = new Kernels(8 * TILE_ROWS * depth * (rows + columns) + 8 * TILE);
  const pack = (matrix: Float64Array, width: number): number => {
    const packed = kernels.float64(Math.ceil(width / TILE_ROWS) * TILE_ROWS * depth); // [panel][depth][4]
    for (let k = 0; k < depth; k++) {
      for (let i = 0; i < width; i++) packed[((i >> 2) * depth + k) * 4 + (i & 3)] = matrix[k * width + i]!;
    }
    return packed.byteOffset;
  };
  const [left, right] = [pack(a, m), pack(b, n)];
  const tile = kernels.float64(TILE);
  const panel = depth * TILE_ROWS * 8;
  const out = new Float64Array(m * n);
  for (let q = 0; q < columns; q++) {
    for (let p = 0; p < rows; p++) {
      tile.fill(0);
      kernels.run.product64(left + p * panel, right + q * panel, tile.byteOffset, depth);
      for (let i = 4 * p; i < Math.min(m, 4 * p + 4); i++) {
        for (let j = 4 * q; j < Math.min(n, 4 * q + 4); j++) out[i * n + j] = tile[(i & 3) * 4 + (j & 3)]!;
      }
    }
  }
  return out;
}

/** Rows that one call of a `RowProduct` takes at most. */
export const ROW_BLOCK = 64;

/** out[count, outer] = rows[count, inner] · matrix, in float32; `count` is at most ROW_BLOCK. */
export type RowProduct = (rows: Float32Array, count: number, out: Float32Array) => void;

/** Makes the product with one `matrix` [inner, outer]. A row's result must not depend on the other rows. */
export type RowProductFactory = (matrix: Float64Array, inner: number, outer: number) => RowProduct;

/** On one thread, with a copy of the matrix in WebAssembly memory. */
export const simdRowProduct: RowProductFactory = (matrix, inner, outer) => {
  const columns = TILE_COLUMNS.float32;
  const panels = Math.ceil(outer / columns);
  const quads = ROW_BLOCK / TILE_ROWS;
  const tile = TILE_ROWS * columns;
  const kernels = new Kernels(4 * (panels * inner * columns + ROW_BLOCK * inner + panels * tile * quads) + 64);
  const packed = kernels.float32(panels * inner * columns); // [panel][inner][8]
  for (let k = 0; k < inner; k++) {
    for (let j = 0; j < outer; j++) {
      packed[((j >> 3) * inner + k) * columns + (j & 7)] = matrix[k * outer + j]!;
    }
  }
  const input = kernels.float32(ROW_BLOCK * inner); // [quad][inner][4]
  const output = kernels.float32(panels * tile * quads); // [quad][panel][4][8]
  const { product32 } = kernels.run;

  return (rows, count, out) => {
    const used = Math.ceil(count / TILE_ROWS);
    // Rows of the last quad beyond `count` hold what an earlier call left; nobody reads their results.
    for (let r = 0; r < count; r++) {
      const to = (r >> 2) * inner * TILE_ROWS + (r & 3);
      for (let k = 0; k < inner; k++) input[to + k * TILE_ROWS] = rows[r * inner + k]!;
    }
    output.fill(0, 0, used * panels * tile);
    for (let p = 0; p < panels; p++) {
      for (let quad = 0; quad < used; quad++) {
        product32(
          input.byteOffset + quad * inner * TILE_ROWS * 4,
          packed.byteOffset + p * inner * columns * 4,
          output.byteOffset + (quad * panels + p) * tile * 4,
          inner,
        );
      }
    }
    for (let r = 0; r < count; r++) {
      for (let j = 0; j < outer; j++) {
        out[r * outer + j] = output[((r >> 2) * panels + (j >> 3)) * tile + (r & 3) * columns + (j & 7)]!;
      }
    }
  };
};

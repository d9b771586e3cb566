/** Rows that are compared with changing sets of others: here in slices, or in the runtime's worker. */
import { ROW_BLOCK, type RowProduct, simdRowProduct } from "../simd/product.js";
import { breather } from "./breather.js";
import type { Assignment, LloydOptions } from "./lloyd.js";
import type { LoadedRows } from "./matrix-runtime.js";

/** Rows [n, dimensions] and what they are compared with, always [k, dimensions]. */
export interface RowSearch extends AsyncDisposable {
  /** The nearest centroid of each row. */
  nearest(centroids: Float32Array): Promise<Assignment>;
  /** Inner products of all rows with all others: [n, k]. */
  products(others: Float32Array): Promise<Float32Array>;
}

export async function rowSearch(
  rows: Float32Array,
  dimensions: number,
  options: Pick<LloydOptions, "runtime" | "rowProduct" | "signal">,
): Promise<RowSearch> {
  const { runtime, signal } = options;
  if (!runtime) return new LocalSearch(rows, dimensions, options);
  return new RuntimeSearch(await runtime.load(rows, dimensions), signal);
}

class RuntimeSearch implements RowSearch {
  readonly #rows: LoadedRows;
  readonly #signal: AbortSignal | undefined;

  constructor(rows: LoadedRows, signal: AbortSignal | undefined) {
    this.#rows = rows;
    this.#signal = signal;
  }

  async nearest(centroids: Float32Array): Promise<Assignment> {
    const clusters = new Uint32Array(this.#rows.count);
    const similarities = new Float32Array(this.#rows.count);
    for await (const { first, nearest, products } of this.#rows.nearest(centroids, this.#signal)) {
      clusters.set(nearest, first);
      similarities.set(products, first);
    }
    return { clusters, similarities };
  }

  products(others: Float32Array): Promise<Float32Array> {
    return this.#rows.products(others, this.#signal);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#rows.drop();
  }
}

class LocalSearch implements RowSearch {
  readonly #rows: Float32Array;
  readonly #dimensions: number;
  readonly #options: Pick<LloydOptions, "rowProduct" | "signal">;

  constructor(rows: Float32Array, dimensions: number, options: Pick<LloydOptions, "rowProduct" | "signal">) {
    this.#rows = rows;
    this.#dimensions = dimensions;
    this.#options = options;
  }

  async nearest(centroids: Float32Array): Promise<Assignment> {
    const k = centroids.length / this.#dimensions;
    const count = this.#rows.length / this.#dimensions;
    const clusters = new Uint32Array(count);
    const similarities = new Float32Array(count);
    await this.#blocks(centroids, (block, first, size) => {
      for (let r = 0; r < size; r++) {
        let best = 0;
        let most = block[r * k]!;
        for (let c = 1; c < k; c++) {
          const value = block[r * k + c]!;
          if (value > most) {
            most = value;
            best = c;
          }
        }
        clusters[first + r] = best;
        similarities[first + r] = most;
      }
    });
    return { clusters, similarities };
  }

  async products(others: Float32Array): Promise<Float32Array> {
    const k = others.length / this.#dimensions;
    const all = new Float32Array((this.#rows.length / this.#dimensions) * k);
    await this.#blocks(others, (block, first, size) => all.set(block.subarray(0, size * k), first * k));
    return all;
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #blocks(others: Float32Array, take: (block: Float32Array, first: number, size: number) => void): Promise<void> {
    const [rows, dimensions] = [this.#rows, this.#dimensions];
    const breathe = breather(this.#options.signal);
    const count = rows.length / dimensions;
    const product = this.#productWith(others);
    const block = new Float32Array((ROW_BLOCK * others.length) / dimensions);
    for (let first = 0; first < count; first += ROW_BLOCK) {
      const size = Math.min(ROW_BLOCK, count - first);
      product(rows.subarray(first * dimensions, (first + size) * dimensions), size, block);
      take(block, first, size);
      await breathe();
    }
  }

  #productWith(others: Float32Array): RowProduct {
    const dimensions = this.#dimensions;
    const k = others.length / dimensions;
    const columns = new Float64Array(others.length); // [dimensions, k]
    for (let c = 0; c < k; c++) {
      for (let i = 0; i < dimensions; i++) columns[i * k + c] = others[c * dimensions + i]!;
    }
    return (this.#options.rowProduct ?? simdRowProduct)(columns, dimensions, k);
  }
}

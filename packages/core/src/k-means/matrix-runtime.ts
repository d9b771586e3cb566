/** Products of many rows with one matrix on ONNX Runtime, in a worker: what clusters and searches large sets. */
import { InvalidInputError } from "../errors.js";
import { argMax, cast, type Float, gemm, input, reduceMax } from "../graph/index.js";
import { type EncodedModel, encodeModel } from "../onnx/encode.js";
import { Runtime, type RuntimeOptions, type Session, type TensorData, type TensorStore } from "../runtime/runtime.js";

/** Rows of one run: the products with 400 others take 3 MB, so that the second pass over them finds them in a cache. */
const BLOCK = 2048;

type SessionName = "product" | "nearest";

/** What a run of one block gives. */
export interface NearestBlock {
  /** The first of the rows. */
  readonly first: number;
  /** For each row, the position of the row of the other matrix with the largest inner product; the first of equals. */
  readonly nearest: Int32Array;
  /** That product. */
  readonly products: Float32Array;
}

/**
 * A worker with ONNX Runtime for matrix products. Start one, pass it to `kMeans` and others, and end it with `dispose`
 * or `await using`. A row's result depends on no other row.
 */
export class MatrixRuntime implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #sessions: ReadonlyMap<SessionName, Session>;

  private constructor(runtime: Runtime, sessions: ReadonlyMap<SessionName, Session>) {
    this.#runtime = runtime;
    this.#sessions = sessions;
  }

  static async start(options: RuntimeOptions = {}): Promise<MatrixRuntime> {
    const runtime = await Runtime.start(options);
    try {
      const { product, nearest } = models();
      const sessions = new Map<SessionName, Session>([
        ["product", await runtime.open(product)],
        ["nearest", await runtime.open(nearest)],
      ]);
      return new MatrixRuntime(runtime, sessions);
    } catch (error) {
      await runtime.dispose();
      throw error;
    }
  }

  /** @internal Copies rows [n, dimensions] into the worker, where they stay until they are dropped. */
  async load(rows: Float32Array, dimensions: number): Promise<LoadedRows> {
    const store = this.#runtime.createStore();
    const count = rows.length / dimensions;
    for (let first = 0; first < count; first += BLOCK) {
      const size = Math.min(BLOCK, count - first);
      const data = rows.slice(first * dimensions, (first + size) * dimensions);
      await store.write({ [`${first}`]: matrix(data, dimensions) }, { transfer: true });
    }
    return new LoadedRows(this.#sessions, store, count, dimensions);
  }

  /**
   * @internal a · bᵀ for a [m, dimensions] and b [n, dimensions]: [m, n]. With `transfer` the two arrays are given away.
   */
  async product(
    a: Float32Array,
    b: Float32Array,
    dimensions: number,
    options: { readonly signal?: AbortSignal | undefined; readonly transfer?: boolean } = {},
  ): Promise<Float32Array> {
    if (a.length % dimensions !== 0 || b.length % dimensions !== 0) {
      throw new InvalidInputError(`product: ${a.length} and ${b.length} numbers aren't rows of ${dimensions}.`);
    }
    const feeds = { x: matrix(a, dimensions), c: matrix(b, dimensions) };
    const { products } = await this.#sessions.get("product")!.run(feeds, options);
    return products!.data as Float32Array;
  }

  dispose(): Promise<void> {
    return this.#runtime.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** Rows that lie in the worker. */
export class LoadedRows {
  readonly count: number;
  readonly dimensions: number;
  readonly #sessions: ReadonlyMap<SessionName, Session>;
  readonly #store: TensorStore;

  /** @internal */
  constructor(sessions: ReadonlyMap<SessionName, Session>, store: TensorStore, count: number, dimensions: number) {
    this.count = count;
    this.dimensions = dimensions;
    this.#sessions = sessions;
    this.#store = store;
  }

  /** The nearest of the rows of `others` [k, dimensions], block by block; the next block is computed meanwhile. */
  async *nearest(others: Float32Array, signal: AbortSignal | undefined): AsyncGenerator<NearestBlock, void, undefined> {
    for await (const { first, outputs } of this.#blocks("nearest", others, signal)) {
      yield { first, nearest: outputs.nearest!.data as Int32Array, products: outputs.best!.data as Float32Array };
    }
  }

  /** Inner products with the rows of `others` [k, dimensions], block by block: [rows of the block, k]. */
  async *productBlocks(
    others: Float32Array,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<{ readonly first: number; readonly products: Float32Array }, void, undefined> {
    for await (const { first, outputs } of this.#blocks("product", others, signal)) {
      yield { first, products: outputs.products!.data as Float32Array };
    }
  }

  /** Inner products with the rows of `others` [k, dimensions]: [rows, k]. */
  async products(others: Float32Array, signal: AbortSignal | undefined): Promise<Float32Array> {
    const k = others.length / this.dimensions;
    const all = new Float32Array(this.count * k);
    for await (const { first, products } of this.productBlocks(others, signal)) all.set(products, first * k);
    return all;
  }

  async *#blocks(
    name: SessionName,
    others: Float32Array,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<{ first: number; outputs: Readonly<Record<string, TensorData>> }, void, undefined> {
    await this.#store.write({ others: matrix(others, this.dimensions) });
    const session = this.#sessions.get(name)!;
    const run = (first: number) =>
      session.run({}, { signal, stored: { x: this.#store.at(`${first}`), c: this.#store.at("others") } });
    let next = this.count > 0 ? run(0) : undefined;
    for (let first = 0; first < this.count; first += BLOCK) {
      const outputs = await next!;
      next = first + BLOCK < this.count ? run(first + BLOCK) : undefined;
      next?.catch(() => {}); // awaited in the next round, unless the caller stops here
      yield { first, outputs };
    }
  }

  drop(): Promise<void> {
    return this.#store.drop();
  }
}

function matrix(data: Float32Array, dimensions: number): TensorData {
  return { dtype: "float32", shape: [data.length / dimensions, dimensions], data };
}

function models(): Record<SessionName, EncodedModel> {
  const x = input("x", "float32", ["N", "D"]) as Float;
  const c = input("c", "float32", ["K", "D"]) as Float;
  const products = gemm(x, c, undefined, { transB: 1 });
  const nearest = cast(argMax(products, { axis: 1, keepdims: 0 }), "int32");
  return {
    product: encodeModel({ products }),
    nearest: encodeModel({ nearest, best: reduceMax(products, { axes: [1] }) }),
  };
}

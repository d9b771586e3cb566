/**
 * A second worker that runs every other micro-batch of a step, with copies of the weights and sums of gradients of its
 * own (docs/decisions/0067-two-workers-in-training.md).
 */
import { add, type Float, input, type Shape } from "../graph/index.js";
import { encodeModel } from "../onnx/encode.js";
import { Runtime, type RuntimeOptions, type Session, type TensorStore } from "../runtime/runtime.js";
import { float32Tensor, type NamedShape, type Parameters, sizeOf } from "./parameters.js";

export class Replica implements AsyncDisposable {
  readonly runtime: Runtime;
  readonly weights: TensorStore;
  readonly gradients: TensorStore;
  /** Of a step's context, and of one for evaluation. */
  readonly state: TensorStore;
  readonly evaluation: TensorStore;
  readonly #parameters: Parameters;
  readonly #summed: readonly NamedShape[];
  readonly #sums: ReadonlyMap<number, Session>;
  /** Names of the weights that it has. */
  readonly #read = new Set<string>();
  #version: number;
  #used = false;

  private constructor(
    runtime: Runtime,
    weights: TensorStore,
    parameters: Parameters,
    { summed, sums }: { summed: readonly NamedShape[]; sums: ReadonlyMap<number, Session> },
  ) {
    this.runtime = runtime;
    this.weights = weights;
    this.gradients = runtime.createStore();
    this.state = runtime.createStore();
    this.evaluation = runtime.createStore();
    this.#parameters = parameters;
    this.#version = parameters.version;
    this.#summed = summed;
    this.#sums = sums;
  }

  /**
   * Starts the worker, with copies of the weights `read`. Gradients of `tables` come by row and aren't added up in a
   * worker. `first` is the runtime of `parameters`.
   */
  static async open(
    first: Runtime,
    parameters: Parameters,
    { read, tables, options }: { read: readonly NamedShape[]; tables: ReadonlySet<string>; options: RuntimeOptions },
  ): Promise<Replica> {
    const names = new Set(read.map(({ name }) => name));
    const summed = parameters.trained.filter(({ name }) => names.has(name) && !tables.has(name));
    const sums = new Map<number, Session>();
    for (const rank of new Set(summed.map(({ shape }) => shape.length))) {
      sums.set(rank, await first.open(encodeModel(sumGraph(rank)), { keepMemory: false }));
    }
    const runtime = await Runtime.start(options);
    try {
      const weights = runtime.createStore();
      const replica = new Replica(runtime, weights, parameters, { summed, sums });
      await replica.#copy(read);
      await replica.#zero();
      return replica;
    } catch (error) {
      await runtime.dispose();
      throw error;
    }
  }

  /** Copies the trained weights, where they have changed since it was last done. */
  async refresh(): Promise<void> {
    const { version, trained } = this.#parameters;
    if (version === this.#version) return;
    await this.#copy(trained.filter(({ name }) => this.#read.has(name)));
    this.#version = version;
  }

  /** Says that gradients are added to its sums. */
  touch(): void {
    this.#used = true;
  }

  /** Adds its sums to those of the first worker, and begins new ones. */
  async collect(): Promise<void> {
    if (!this.#used) return;
    const { gradients } = this.#parameters;
    await inGroups(this.#summed, async ({ name, shape }) => {
      const at = gradients.at(name);
      const beside = await this.gradients.read(name);
      const run = { stored: { sum: at }, into: { total: at }, transfer: true };
      await this.#sums.get(shape.length)!.run({ beside }, run);
    });
    await this.clear();
  }

  /** Forgets its sums. */
  async clear(): Promise<void> {
    if (!this.#used) return;
    await this.#zero();
    this.#used = false;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.runtime.dispose();
  }

  /** What is read is a copy, which is given away. */
  async #copy(tensors: readonly NamedShape[]): Promise<void> {
    await inGroups(tensors, async ({ name }) => {
      this.#read.add(name);
      await this.weights.write({ [name]: await this.#parameters.weights.read(name) }, { transfer: true });
    });
  }

  async #zero(): Promise<void> {
    await inGroups(this.#summed, async ({ name, shape }) => {
      const zeros = float32Tensor(shape, new Float32Array(sizeOf(shape)));
      await this.gradients.write({ [name]: zeros }, { transfer: true });
    });
  }
}

/** Some tensors at a time: one by one most of the time would be spent on waiting, all at once would be a copy of them. */
async function inGroups(tensors: readonly NamedShape[], each: (tensor: NamedShape) => Promise<void>): Promise<void> {
  const size = 16;
  for (let start = 0; start < tensors.length; start += size) {
    await Promise.all(tensors.slice(start, start + size).map(each));
  }
}

function sumGraph(rank: number): Record<string, Float> {
  const shape: Shape = Array.from({ length: rank }, (_, axis) => `N${axis}`);
  return { total: add(input("sum", "float32", shape) as Float, input("beside", "float32", shape) as Float) };
}

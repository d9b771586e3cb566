/** The numbers that a run changes: trained weights, their gradients and the optimiser's moments, all in the worker. */
import type { Runtime, TensorData, TensorStore } from "../runtime/runtime.js";

/** Name and shape of a tensor. */
export interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** The name under which log(1/temperature) lies among the weights. */
export const LOG_SCALE = "loss.log_scale";

/** All weights, by checkpoint name, and for the trained ones a gradient and two moments under the same name. */
export class Parameters {
  readonly weights: TensorStore;
  readonly gradients: TensorStore;
  /** Adam's means of gradients and of their squares. */
  readonly moments: readonly [first: TensorStore, second: TensorStore];
  /** In the order of their names. */
  readonly trained: readonly NamedShape[];
  #version = 0;

  private constructor(runtime: Runtime, trained: readonly NamedShape[]) {
    this.weights = runtime.createStore();
    this.gradients = runtime.createStore();
    this.moments = [runtime.createStore(), runtime.createStore()];
    this.trained = trained;
  }

  /** With moments of 0; the weights are the caller's to write. */
  static async create(runtime: Runtime, trained: Iterable<NamedShape>): Promise<Parameters> {
    const sorted = [...trained].sort((a, b) => (a.name < b.name ? -1 : 1));
    const parameters = new Parameters(runtime, sorted);
    for (const store of parameters.moments) await writeZeros(store, sorted);
    return parameters;
  }

  /** Another number whenever weights have changed: for copies of them. */
  get version(): number {
    return this.#version;
  }

  /** Says that weights have changed. */
  changed(): void {
    this.#version += 1;
  }

  /** Sets all gradients to 0. */
  zeroGradients(): Promise<void> {
    return writeZeros(this.gradients, this.trained);
  }

  /** Numbers that are trained. */
  get count(): number {
    return this.trained.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  }
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function float32Tensor(shape: readonly number[], data: Float32Array): TensorData {
  return { dtype: "float32", shape, data };
}

/** One tensor at a time: what is sent is given away, so no second copy lives. */
async function writeZeros(store: TensorStore, tensors: readonly NamedShape[]): Promise<void> {
  for (const { name, shape } of tensors) {
    await store.write({ [name]: float32Tensor(shape, new Float32Array(sizeOf(shape))) }, { transfer: true });
  }
}

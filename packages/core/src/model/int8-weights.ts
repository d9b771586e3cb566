/** int8 weights: matrices with a scale for every row, activations quantised at run time. */
import {
  add,
  dynamicQuantizedLinear,
  type Float,
  type Int,
  quantizedRows,
  rowQuantizedLinear,
  storedTensor,
  type Value,
} from "../graph/index.js";
import { EXACT, GraphWeights, type LinearOptions } from "./graph-weights.js";

/**
 * How activations are quantised: each token by its own largest entry, or with one scale for a whole run, which is
 * faster and makes a text's vector depend on its batch mates.
 */
export type ActivationScales = "row" | "dynamic";

/** The name of the tensor that holds a matrix's row scales, [rows]. */
export function scaleName(weight: string): string {
  return `${weight}_scale`;
}

/** Writes the same model over int8 matrices and tables; biases, norms and positions stay float32. */
export class Int8Weights extends GraphWeights {
  readonly #activations: ActivationScales;

  constructor(activations: ActivationScales, prefix = "", parameters: Map<string, Value> = new Map()) {
    super(EXACT, prefix, parameters);
    this.#activations = activations;
  }

  override within(folder: string): Int8Weights {
    return new Int8Weights(this.#activations, `${this.prefix}${folder}.`, this.shared);
  }

  override linear(x: Float, name: string, { inputs, outputs, bias = true }: LinearOptions): Float {
    const b = bias ? this.get(`${name}.bias`, [outputs]) : undefined;
    const scales = this.get(scaleName(`${name}.weight`), [outputs]);
    if (this.#activations === "dynamic") {
      return dynamicQuantizedLinear(x, this.#int8(`${name}.weight`, [inputs, outputs]), scales, b);
    }
    const product = rowQuantizedLinear(x, this.#int8(`${name}.weight`, [outputs, inputs]), scales);
    return b ? add(product, b) : product;
  }

  override rows(ids: Int, name: string, shape: readonly [rows: number, width: number]): Float {
    const scales = this.get(scaleName(`${name}.weight`), [shape[0]]);
    return quantizedRows(this.#int8(`${name}.weight`, shape), scales, ids);
  }

  #int8(name: string, shape: readonly number[]): Value<"int8"> {
    return this.remember(name, (full) => storedTensor(full, "int8", shape));
  }
}

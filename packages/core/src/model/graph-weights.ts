/** The weights of a model as graph parameters, by checkpoint name. */
import { type Dim, type Float, type FloatType, linear, parameter } from "../graph/index.js";

/** In which form formulas are written: `exact` is what models run, `float64` what gradients are checked with. */
export interface NumericForm {
  readonly dtype: FloatType;
  /** Erf has no float64 kernel, so gradient checks in float64 use the tanh form of GELU. */
  readonly gelu: "erf" | "tanh";
  /** The fused op saves its statistics in float32; composed, layer norm is exact in float64. */
  readonly layerNorm: "fused" | "composed";
}

/** float32, exact GELU, fused layer norm. */
export const EXACT: NumericForm = { dtype: "float32", gelu: "erf", layerNorm: "fused" };

export interface LinearOptions {
  readonly inputs: number;
  readonly outputs: number;
  /** @default true */
  readonly bias?: boolean;
}

/** Hands out one parameter per name, however often it is asked for; models read all their weights through it. */
export class GraphWeights {
  readonly form: NumericForm;
  readonly #prefix: string;
  readonly #parameters: Map<string, Float>;

  constructor(form: NumericForm = EXACT, prefix = "", parameters: Map<string, Float> = new Map()) {
    this.form = form;
    this.#prefix = prefix;
    this.#parameters = parameters;
  }

  /** The same weights seen from a folder of names: `within("encoder.layer.0")`. */
  within(folder: string): GraphWeights {
    return new GraphWeights(this.form, `${this.#prefix}${folder}.`, this.#parameters);
  }

  get(name: string, shape: readonly Dim[]): Float {
    const full = this.#prefix + name;
    const known = this.#parameters.get(full) ?? parameter(full, shape, this.form.dtype);
    this.#parameters.set(full, known);
    return known;
  }

  /** x [n, inputs] → [n, outputs] by `<name>.weight` [outputs, inputs] and `<name>.bias`. */
  linear(x: Float, name: string, { inputs, outputs, bias = true }: LinearOptions): Float {
    const weight = this.get(`${name}.weight`, [outputs, inputs]);
    return linear(x, weight, bias ? this.get(`${name}.bias`, [outputs]) : undefined);
  }

  /** All parameters handed out so far, by full name. */
  get parameters(): ReadonlyMap<string, Float> {
    return this.#parameters;
  }
}

/** The weights of a model as graph parameters, by checkpoint name. */
import {
  type Dim,
  type Float,
  type FloatType,
  gather,
  type Int,
  linear,
  parameter,
  type Value,
} from "../graph/index.js";

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
  /** What stands before the names asked for. */
  protected readonly prefix: string;
  /** Everything handed out so far, by full name; the same map for all folders of one model. */
  protected readonly shared: Map<string, Value>;

  constructor(form: NumericForm = EXACT, prefix = "", shared: Map<string, Value> = new Map()) {
    this.form = form;
    this.prefix = prefix;
    this.shared = shared;
  }

  /** The same weights seen from a folder of names: `within("encoder.layer.0")`. */
  within(folder: string): GraphWeights {
    return new GraphWeights(this.form, `${this.prefix}${folder}.`, this.shared);
  }

  get(name: string, shape: readonly Dim[]): Float {
    return this.remember(name, (full) => parameter(full, shape, this.form.dtype));
  }

  /** x [n, inputs] → [n, outputs] by `<name>.weight` [outputs, inputs] and `<name>.bias`. */
  linear(x: Float, name: string, { inputs, outputs, bias = true }: LinearOptions): Float {
    const weight = this.get(`${name}.weight`, [outputs, inputs]);
    return linear(x, weight, bias ? this.get(`${name}.bias`, [outputs]) : undefined);
  }

  /** Rows of the table `<name>.weight` [rows, width] at `ids`: the embedding lookup. */
  rows(ids: Int, name: string, shape: readonly [rows: number, width: number]): Float {
    return gather(this.get(`${name}.weight`, shape), ids);
  }

  /** The float parameters handed out so far, by full name: what can be trained. */
  get parameters(): ReadonlyMap<string, Float> {
    const floats = [...this.shared].filter(([, { dtype }]) => dtype === "float32" || dtype === "float64");
    return new Map(floats as [string, Float][]);
  }

  protected remember<V extends Value>(name: string, make: (full: string) => V): V {
    const full = this.prefix + name;
    const known = this.shared.get(full) ?? make(full);
    this.shared.set(full, known);
    return known as V;
  }
}

/** The weights of a graph that is trained: look-ups are noted, so that their gradients come by row, and LoRA is added. */
import { add, type Float, type Int, linear, scale, type Value } from "../graph/index.js";
import { EXACT, GraphWeights, type LinearOptions, type NumericForm } from "../model/graph-weights.js";

/** Low-rank updates (Hu et al. 2021): W + (alpha / rank) · B·A beside every product that `adapts`. */
export interface LowRank {
  readonly rank: number;
  readonly alpha: number;
  /** By the product's full name, without ".weight". */
  adapts(name: string): boolean;
}

/** One embedding look-up: the gradient of its rows is added up outside of the graph. */
export interface LookUp {
  /** Full name of the table. */
  readonly table: string;
  readonly rows: Float;
}

interface Notes {
  readonly lookUps: LookUp[];
  readonly lowRank: LowRank | undefined;
}

export class TrainedWeights extends GraphWeights {
  readonly #notes: Notes;

  constructor(
    options: { lowRank?: LowRank | undefined; form?: NumericForm } = {},
    inner?: { prefix: string; shared: Map<string, Value>; notes: Notes },
  ) {
    super(options.form ?? EXACT, inner?.prefix, inner?.shared);
    this.#notes = inner?.notes ?? { lookUps: [], lowRank: options.lowRank };
  }

  get lookUps(): readonly LookUp[] {
    return this.#notes.lookUps;
  }

  override within(folder: string): TrainedWeights {
    const inner = { prefix: `${this.prefix}${folder}.`, shared: this.shared, notes: this.#notes };
    return new TrainedWeights({ form: this.form }, inner);
  }

  override rows(ids: Int, name: string, shape: readonly [rows: number, width: number]): Float {
    const rows = super.rows(ids, name, shape);
    this.#notes.lookUps.push({ table: `${this.prefix}${name}.weight`, rows });
    return rows;
  }

  override linear(x: Float, name: string, options: LinearOptions): Float {
    const y = super.linear(x, name, options);
    const { lowRank } = this.#notes;
    const full = this.prefix + name;
    if (!lowRank?.adapts(full)) return y;
    const { rank, alpha } = lowRank;
    const down = this.#lowRank(loraName(full, "a"), [rank, options.inputs]);
    const up = this.#lowRank(loraName(full, "b"), [options.outputs, rank]);
    return add(y, scale(linear(linear(x, down), up), alpha / rank));
  }

  /** By a name of its own, wherever the product stands. */
  #lowRank(full: string, shape: readonly number[]): Float {
    return new GraphWeights(this.form, "", this.shared).get(full, shape);
  }
}

const LORA = "lora.";

/** The tensor of a low-rank update: A [rank, in] or B [out, rank]. */
export function loraName(product: string, part: "a" | "b"): string {
  return `${LORA}${product}.${part}`;
}

export function isLora(name: string): boolean {
  return name.startsWith(LORA);
}

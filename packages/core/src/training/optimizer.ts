/** Adam and AdamW on weights that stay in the worker: one small graph, run over every parameter in place. */
import {
  abs,
  add,
  div,
  type Float,
  input,
  mul,
  reduceMax,
  reduceSum,
  type Shape,
  scale,
  sqrt,
  sub,
} from "../graph/index.js";
import { PREFIX_FOLDER } from "../model/prefix-stage.js";
import { encodeModel } from "../onnx/encode.js";
import type { Runtime, Session, TensorData } from "../runtime/runtime.js";
import { float32Tensor, type NamedShape, type Parameters } from "./parameters.js";

export interface OptimizerSettings {
  /** AdamW decays weights beside the gradient's step (Loshchilov & Hutter 2019); Adam here decays nothing. */
  readonly kind: "adamw" | "adam";
  readonly betas: readonly [number, number];
  readonly epsilon: number;
  /** Of AdamW; not on biases, norms, gates and the temperature. */
  readonly weightDecay: number;
  /** Times the learning rate, for the gates of a prefix stage. @default 1 */
  readonly gateRate?: number | undefined;
  /** Gradients are scaled down to this norm where they are longer. */
  readonly maxGradientNorm: number | undefined;
}

/** The parameter with the largest entry in its gradient. */
export interface LargestGradient {
  readonly parameter: string;
  /** Its absolute value; NaN or Infinity where the gradient isn't finite. */
  readonly value: number;
}

export interface GradientNorm {
  /** Over all trained parameters, before clipping. */
  readonly norm: number;
  readonly largest: LargestGradient;
}

const RANKS: Readonly<Record<number, Shape>> = { 1: ["N"], 2: ["N", "M"] };

export class Optimizer {
  readonly #parameters: Parameters;
  readonly #settings: OptimizerSettings;
  readonly #updates: ReadonlyMap<number, Session>;
  readonly #norms: ReadonlyMap<number, Session>;

  private constructor(
    parameters: Parameters,
    settings: OptimizerSettings,
    updates: ReadonlyMap<number, Session>,
    norms: ReadonlyMap<number, Session>,
  ) {
    this.#parameters = parameters;
    this.#settings = settings;
    this.#updates = updates;
    this.#norms = norms;
  }

  static async open(runtime: Runtime, parameters: Parameters, settings: OptimizerSettings): Promise<Optimizer> {
    const ranks = [...new Set(parameters.trained.map(({ shape }) => shape.length))];
    const updates = new Map<number, Session>();
    const norms = new Map<number, Session>();
    for (const rank of ranks) {
      const shape = RANKS[rank]!;
      // An embedding table is changed as a whole, once a step: what that takes is several times its size.
      const how = { keepMemory: false };
      updates.set(rank, await runtime.open(encodeModel(updateGraph(shape, settings)), how));
      norms.set(rank, await runtime.open(encodeModel(normGraph(shape)), how));
    }
    return new Optimizer(parameters, settings, updates, norms);
  }

  /** The norm of all gradients together over `count` batches that they are the mean of, summed in float64 over rows. */
  async gradientNorm(count = 1): Promise<GradientNorm> {
    const { trained, gradients } = this.#parameters;
    let squares = 0;
    let largest: LargestGradient = { parameter: trained[0]?.name ?? "", value: 0 };
    for (const { name, shape } of trained) {
      const session = this.#norms.get(shape.length)!;
      const out = await session.run({}, { stored: { gradient: gradients.at(name) } });
      for (const row of out.squares!.data as Float32Array) squares += row;
      const value = (out.largest!.data as Float32Array).reduce(
        (most, x) => (x > most || Number.isNaN(x) ? x : most),
        0,
      );
      // ONNX Runtime's maximum passes over NaN, the sum of squares doesn't.
      const finite = (out.squares!.data as Float32Array).every(Number.isFinite);
      const found = { parameter: name, value: finite || value === Number.POSITIVE_INFINITY ? value : Number.NaN };
      if (Number.isFinite(largest.value) && !(found.value <= largest.value)) largest = found;
    }
    return { norm: Math.sqrt(squares) / count, largest: { ...largest, value: largest.value / count } };
  }

  /**
   * Changes every trained weight and moment. `step` counts updates from 1, for the correction of the moments; gradients
   * are sums over `count` batches, `norm` is that of their mean.
   */
  async update(step: number, learningRate: number, norm: number, count = 1): Promise<void> {
    const { betas, weightDecay, gateRate = 1, maxGradientNorm, kind, epsilon } = this.#settings;
    const [first, second] = betas;
    const clip = maxGradientNorm === undefined ? 1 : Math.min(1, maxGradientNorm / (norm + 1e-6));
    const { weights, gradients, moments, trained } = this.#parameters;
    this.#parameters.changed();
    const number = (value: number): TensorData => float32Tensor([], Float32Array.of(value));
    for (const parameter of trained) {
      const { name, shape } = parameter;
      const decay = kind === "adamw" && decays(parameter) ? learningRate * weightDecay : 0;
      await this.#updates.get(shape.length)!.run(
        {
          clip: number(clip / count),
          kept: number(1 - decay),
          // m / (1 − β₁ᵗ), and √(v / (1 − β₂ᵗ)) + ε, as one factor each.
          rate: number(((isGate(parameter) ? gateRate : 1) * learningRate) / (1 - first ** step)),
          deviation: number(1 / Math.sqrt(1 - second ** step)),
          epsilon: number(epsilon),
        },
        {
          stored: {
            weight: weights.at(name),
            gradient: gradients.at(name),
            first: moments[0].at(name),
            second: moments[1].at(name),
          },
          into: { newWeight: weights.at(name), newFirst: moments[0].at(name), newSecond: moments[1].at(name) },
        },
      );
    }
  }
}

/** Whether weight decay is for a parameter: matrices and null contexts, not biases, norms, gates or the temperature. */
export function decays({ name, shape }: NamedShape): boolean {
  return shape.length > 1 || name.endsWith("sequence_dropout_null_embedding");
}

/** Whether a parameter is the gates of a prefix stage's layer. */
function isGate({ name }: NamedShape): boolean {
  return name.startsWith(`${PREFIX_FOLDER}.`) && name.endsWith(".gate");
}

/** The order of operations is one in which every stored input was read for the last time before it is written. */
function updateGraph(shape: Shape, { betas: [beta1, beta2] }: OptimizerSettings): Record<string, Float> {
  const tensor = (name: string) => input(name, "float32", shape) as Float;
  const number = (name: string) => input(name, "float32", []) as Float;
  const gradient = mul(tensor("gradient"), number("clip"));
  const newFirst = add(scale(tensor("first"), beta1), scale(gradient, 1 - beta1));
  const newSecond = add(scale(tensor("second"), beta2), scale(mul(gradient, gradient), 1 - beta2));
  const deviation = add(mul(sqrt(newSecond), number("deviation")), number("epsilon"));
  const step = mul(div(newFirst, deviation), number("rate"));
  return { newFirst, newSecond, newWeight: sub(mul(tensor("weight"), number("kept")), step) };
}

function normGraph(shape: Shape): Record<string, Float> {
  const gradient = input("gradient", "float32", shape) as Float;
  return {
    squares: reduceSum(mul(gradient, gradient), { axes: [-1], keep: true }),
    largest: reduceMax(abs(gradient), { axes: [-1], keep: true }),
  };
}

/**
 * One differentiable map from micro-batches to vectors: run forward, and later backward from the gradient of those
 * vectors, which is the second half of gradient caching (Gao et al. 2021). Gradients are added up in the worker.
 */
import { internal } from "../errors.js";
import { add, differentiate, type Float, input, leavesOf } from "../graph/index.js";
import { encodeModel } from "../onnx/encode.js";
import type { StoredName } from "../runtime/protocol.js";
import type { Runtime, Session, TensorData, TensorStore } from "../runtime/runtime.js";
import { float32Tensor, type NamedShape, type Parameters, sizeOf } from "./parameters.js";
import type { Replica } from "./replica.js";
import type { TrainedWeights } from "./trained-weights.js";

/** A stage as a graph. */
export interface StageGraph {
  /** [B, width] */
  readonly vectors: Float;
  /** An input whose gradient is added up too: the context vectors. */
  readonly context?: Float | undefined;
}

/** Everything that the graph of a stage reads, before it is known which of it is trained. */
export interface StagePlan extends StageGraph {
  readonly weights: TrainedWeights;
}

/** Where the gradient of the context is added up, in the store of the stage's state. */
export const CONTEXT_GRADIENT = "context.gradient";

/** A stage in the worker of a replica. */
interface BesideStage {
  readonly replica: Replica;
  readonly stage: Stage;
}

/** Names and shapes of the weights that graphs read; those of several stages may share some. */
export function weightsOf(values: readonly Float[]): NamedShape[] {
  const found = new Map<string, NamedShape>();
  for (const { source, shape } of values.flatMap((value) => leavesOf([value]))) {
    if (source.kind !== "parameter" || found.has(source.name)) continue;
    found.set(source.name, { name: source.name, shape: shape as readonly number[] });
  }
  return [...found.values()];
}

/** Where a stage reads weights and adds gradients up: `Parameters`, or a replica of them. */
type Stores = Pick<Parameters, "weights" | "gradients">;

export class Stage {
  /** The same stage in a second worker. */
  readonly beside: BesideStage | undefined;
  readonly #forward: Session;
  readonly #backward: Session | undefined;
  readonly #into: Readonly<Record<string, StoredName>>;
  readonly #sums: Readonly<Record<string, StoredName>>;
  /** Tables whose gradients come by row, in the order of the outputs. */
  readonly #tables: readonly string[];
  readonly #tableSums: ReadonlyMap<string, Float32Array>;

  private constructor(
    sessions: { forward: Session; backward: Session | undefined },
    places: { into: Record<string, StoredName>; sums: Record<string, StoredName> },
    tables: readonly string[],
    tableSums: ReadonlyMap<string, Float32Array>,
    beside: BesideStage | undefined,
  ) {
    this.beside = beside;
    this.#forward = sessions.forward;
    this.#backward = sessions.backward;
    this.#into = places.into;
    this.#sums = places.sums;
    this.#tables = tables;
    this.#tableSums = tableSums;
  }

  /**
   * Opens the sessions of both directions; there is no way back where nothing that the stage reads is trained.
   * `tables` holds the sums of row gradients, by name of the table; those of several stages may share one. With a
   * replica it is opened there as well; `threads` are those of each.
   */
  static async open(
    runtime: Runtime,
    plan: StagePlan,
    parameters: Parameters,
    state: TensorStore,
    tableSums: ReadonlyMap<string, Float32Array>,
    { replica, threads }: { replica?: Replica | undefined; threads?: number | undefined } = {},
  ): Promise<Stage> {
    const { trained } = parameters;
    const other = replica && {
      replica,
      stage: await Stage.#open(replica.runtime, plan, { trained, stores: replica, state: replica.state, tableSums }),
    };
    return Stage.#open(runtime, plan, { trained, stores: parameters, state, tableSums, threads }, other);
  }

  static async #open(
    runtime: Runtime,
    { weights, vectors, context }: StagePlan,
    at: {
      trained: readonly NamedShape[];
      stores: Stores;
      state: TensorStore;
      tableSums: ReadonlyMap<string, Float32Array>;
      threads?: number | undefined;
    },
    beside?: BesideStage,
  ): Promise<Stage> {
    const { stores, state, tableSums } = at;
    const how = { weights: stores.weights, threads: at.threads };
    const forward = await runtime.open(encodeModel({ vectors }), how);
    const trained = new Set(at.trained.map(({ name }) => name));
    const read = new Set(weightsOf([vectors]).map(({ name }) => name));
    const lookUps = weights.lookUps.filter(({ table }) => trained.has(table));
    const tables = new Set(lookUps.map(({ table }) => table));
    const names = [...weights.parameters.keys()].filter(
      (name) => trained.has(name) && read.has(name) && !tables.has(name),
    );
    const targets = [
      ...names.map((name) => weights.parameters.get(name)!),
      ...lookUps.map(({ rows }) => rows),
      ...(context ? [context] : []),
    ];
    if (targets.length === 0) return Stage.frozen(forward, beside);
    const seed = input("dVectors", "float32", vectors.shape) as Float;
    const gradients = differentiate([[vectors, seed]], targets);
    const outputs: Record<string, Float> = {};
    const into: Record<string, StoredName> = {};
    const sums: Record<string, StoredName> = {};
    const addUp = (name: string, gradient: Float, at: StoredName) => {
      outputs[`total/${name}`] = add(input(`sum/${name}`, "float32", gradient.shape) as Float, gradient);
      into[`total/${name}`] = at;
      sums[`sum/${name}`] = at;
    };
    names.forEach((name, i) => {
      addUp(name, gradients[i]!, stores.gradients.at(name));
    });
    lookUps.forEach((_, i) => {
      outputs[`rows/${i}`] = gradients[names.length + i]!;
    });
    if (context) addUp(CONTEXT_GRADIENT, gradients.at(-1)!, state.at(CONTEXT_GRADIENT));
    const backward = await runtime.open(encodeModel(outputs), how);
    return new Stage(
      { forward, backward },
      { into, sums },
      lookUps.map(({ table }) => table),
      tableSums,
      beside,
    );
  }

  /** A stage that nothing is trained of, from its session. */
  static frozen(forward: Session, beside?: BesideStage): Stage {
    return new Stage({ forward, backward: undefined }, { into: {}, sums: {} }, [], new Map(), beside);
  }

  /** Vectors of one micro-batch, row by row. */
  async forward(
    feeds: Readonly<Record<string, TensorData>>,
    stored: Readonly<Record<string, StoredName>> = {},
  ): Promise<Float32Array> {
    const { vectors } = await this.#forward.run(feeds, { stored });
    return vectors!.data as Float32Array;
  }

  /** Whether anything that this stage reads is trained. */
  get isTrained(): boolean {
    return this.#backward !== undefined;
  }

  /**
   * Adds the gradients of one micro-batch to the sums, given those of its vectors. Micro-batches must be added in one
   * order for equal sums; `ids` are those fed, for the rows of tables.
   */
  async backward(
    feeds: Readonly<Record<string, TensorData>>,
    dVectors: TensorData,
    stored: Readonly<Record<string, StoredName>> = {},
  ): Promise<() => void> {
    if (!this.#backward) throw internal("a stage without trained weights was run backward");
    const found = await this.#backward.run(
      { ...feeds, dVectors },
      { stored: { ...stored, ...this.#sums }, into: this.#into },
    );
    return () => {
      const ids = feeds.ids?.data as Int32Array;
      this.#tables.forEach((table, i) => {
        addRows(this.#tableSums.get(table)!, ids, found[`rows/${i}`]!.data as Float32Array);
      });
    };
  }
}

/** `ScatterND` would lose updates of repeated ids with more than one thread (GRAPH.md §5). */
function addRows(table: Float32Array, ids: Int32Array, rows: Float32Array): void {
  const width = rows.length / ids.length;
  for (let i = 0; i < ids.length; i++) {
    const [from, to] = [i * width, ids[i]! * width];
    for (let k = 0; k < width; k++) table[to + k]! += rows[from + k]!;
  }
}

/** Zeros for the row gradients of every trained table that the stages look up. */
export function emptyTables(plans: readonly StagePlan[], parameters: Parameters): Map<string, Float32Array> {
  const shapes = new Map(parameters.trained.map(({ name, shape }) => [name, shape]));
  const tables = plans.flatMap(({ weights }) => weights.lookUps.map(({ table }) => table));
  return new Map(
    tables.flatMap((table) => {
      const shape = shapes.get(table);
      return shape ? [[table, new Float32Array(sizeOf(shape))] as const] : [];
    }),
  );
}

/** Hands the sums of row gradients to the other gradients, and begins new ones. */
export async function flushTables(tables: ReadonlyMap<string, Float32Array>, parameters: Parameters): Promise<void> {
  for (const { name, shape } of parameters.trained) {
    const sums = tables.get(name);
    if (!sums) continue;
    await parameters.gradients.write({ [name]: float32Tensor(shape, sums) });
    sums.fill(0);
  }
}

/** The one place where numbers are computed: ONNX Runtime in a worker thread, seen from the caller's thread. */
import { Worker } from "node:worker_threads";
import { InvalidInputError, RuntimeFailureError } from "../errors.js";
import { type Dim, evaluateDim, formatShape, parseDim } from "../graph/dim.js";
import { type EncodedModel, type Port, plainName } from "../onnx/encode.js";
import { usableCores } from "./cores.js";
import {
  type Answers,
  BUSY,
  ENDING,
  type FromWorker,
  type Request,
  type StoredName,
  type TensorData,
  type ToWorker,
} from "./protocol.js";

export type { TensorArray, TensorData } from "./protocol.js";

export interface RuntimeOptions {
  /** ONNX Runtime's execution provider. Only `"cpu"` is tested by us. @default "cpu" */
  readonly provider?: string;
  /** Number of the device, for providers that have several. */
  readonly device?: number;
  /**
   * Threads of one run, bound to no core. 0 lets ONNX Runtime choose, which binds them.
   * @default one for each core that this process may use, where the system tells them apart; else 0
   */
  readonly threads?: number;
}

type StoredType = Pick<TensorData, "dtype" | "shape">;

interface Pending {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** Of the workers that live. */
const shared = new Set<Int32Array>();

/** `process.exit()` stops workers where they are, which ONNX Runtime does not survive: wait until none is in it. */
function waitForWorkers(): void {
  for (const state of shared) {
    Atomics.store(state, ENDING, 1);
    Atomics.wait(state, BUSY, 1);
  }
}

/**
 * The execution providers that the installed onnxruntime-node has here, such as "cpu".
 *
 * @throws RuntimeFailureError where its native library can't be loaded
 */
export async function executionProviders(): Promise<readonly string[]> {
  await using runtime = await Runtime.start();
  return await runtime.request({ kind: "check", provider: "cpu" });
}

/**
 * A worker thread with ONNX Runtime. The event loop of the caller stays free; the process may end while a runtime is
 * idle. `dispose()` ends the worker and frees its memory.
 */
export class Runtime implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #shared: Int32Array;
  readonly #exited: Promise<void>;
  readonly #options: { provider: string; device: number | undefined; threads: number };
  readonly #pending = new Map<number, Pending>();
  /** @internal Type and shape of every stored tensor, by store and name. */
  readonly stored: Map<number, Map<string, StoredType>> = new Map();
  #next = 0;
  #ended: RuntimeFailureError | undefined;

  private constructor(options: RuntimeOptions) {
    const state = new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT));
    // Without the flags of the process: `node --input-type=module --eval …` would make the worker fail.
    const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: state, execArgv: [] });
    this.#worker = worker;
    this.#shared = state;
    if (!process.listeners("exit").includes(waitForWorkers)) process.on("exit", waitForWorkers);
    shared.add(state);
    this.#options = {
      provider: options.provider ?? "cpu",
      device: options.device,
      threads: options.threads ?? usableCores(),
    };
    worker.unref();
    worker.on("message", (message: FromWorker) => this.#settle(message));
    worker.on("error", (cause) => this.#end(new RuntimeFailureError("Runtime: the worker thread failed.", { cause })));
    this.#exited = new Promise((resolve) => {
      worker.on("exit", () => {
        shared.delete(state);
        this.#end(new RuntimeFailureError("Runtime: the worker thread has ended."));
        resolve();
      });
    });
  }

  /** Starts the worker and checks that the provider exists. */
  static async start(options: RuntimeOptions = {}): Promise<Runtime> {
    const { threads = 0, provider = "cpu" } = options;
    if (!Number.isInteger(threads) || threads < 0) {
      throw new InvalidInputError(`Runtime.start: threads must be a whole number from 0, got ${threads}.`);
    }
    const runtime = new Runtime(options);
    try {
      const providers = await runtime.request({ kind: "check", provider });
      if (!providers.includes(provider)) {
        throw new RuntimeFailureError(
          `Runtime.start: the execution provider "${provider}" is not in this build of onnxruntime-node, which has ${providers.join(", ")}. Choose one of them.`,
        );
      }
    } catch (error) {
      await runtime.dispose();
      throw error;
    }
    return runtime;
  }

  /** Room for tensors that stay in the worker between runs. */
  createStore(): TensorStore {
    return new TensorStore(this, this.#next++);
  }

  /**
   * Opens a session. Its parameters are read from `weights` under their own names: at every run where the model was
   * encoded with fed weights, once, as constants that are copied into the session, where with external ones. Mapped ones
   * are read from the files of `folder`, which must keep their bytes as long as the session is open. `threads` are those
   * of the runtime unless given. Memory stays with the session between runs, unless `keepMemory` is false: for graphs
   * that are run seldom on large tensors.
   */
  async open(
    model: EncodedModel,
    options: { weights?: TensorStore; folder?: string; threads?: number | undefined; keepMemory?: boolean } = {},
  ): Promise<Session> {
    const parameters = model.weights === "embedded" || model.weights === "mapped" ? [] : model.parameters;
    const store = options.weights?.id;
    if (parameters.length > 0 && store === undefined) {
      throw new InvalidInputError(
        `Runtime.open: the model reads ${parameters.length} weights, and no store was given. Pass one as { weights }.`,
      );
    }
    const at = Object.fromEntries(parameters.map((port) => [port.name, { store: store!, name: plainName(port) }]));
    const constants = model.weights === "external";
    const session = this.#next++;
    await this.request({
      kind: "open",
      session,
      model: model.bytes,
      constants: constants ? at : {},
      folder: options.folder,
      options: {
        ...this.#options,
        threads: options.threads ?? this.#options.threads,
        arena: options.keepMemory ?? true,
      },
    });
    return new Session(this, session, model, constants ? {} : at);
  }

  /** Rejects whatever still waits, and ends the worker once the run that it is in has finished. */
  async dispose(): Promise<void> {
    this.#end(new RuntimeFailureError("Runtime: it was disposed of."));
    Atomics.store(this.#shared, ENDING, 1);
    this.#worker.ref();
    this.#send({ end: true });
    await this.#exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** @internal Sends one request; buffers in `transfer` are given away. */
  request<R extends Request>(
    request: R,
    options: { transfer?: readonly ArrayBuffer[]; signal?: AbortSignal | undefined } = {},
  ): Promise<Answers[R["kind"]]> {
    const { signal, transfer = [] } = options;
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended);
      if (signal?.aborted) return reject(signal.reason);
      const id = this.#next++;
      const onAbort = () => {
        this.#send({ cancel: id }); // it is answered too, and until then the process doesn't end
        reject(signal!.reason);
      };
      // First, because it throws on what can't be sent, and then nothing may wait for an answer.
      this.#send({ id, request }, transfer);
      signal?.addEventListener("abort", onAbort, { once: true });
      const settled = <T>(settle: (value: T) => void) => {
        return (value: T) => {
          signal?.removeEventListener("abort", onAbort);
          settle(value);
        };
      };
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(id, { resolve: settled(resolve as (result: unknown) => void), reject: settled(reject) });
    });
  }

  #send(message: ToWorker, transfer: readonly ArrayBuffer[] = []): void {
    this.#worker.postMessage(message, transfer);
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (this.#pending.size === 0 && !this.#ended) this.#worker.unref();
    return pending;
  }

  #settle(message: FromWorker): void {
    const pending = this.#take(message.id);
    if ("error" in message) pending?.reject(new RuntimeFailureError(`ONNX Runtime: ${message.error}`));
    else pending?.resolve(message.result);
  }

  #end(error: RuntimeFailureError): void {
    this.#ended ??= error;
    for (const id of [...this.#pending.keys()]) this.#take(id)?.reject(error);
  }
}

/** Tensors in the worker, by name. */
export class TensorStore {
  /** @internal */
  readonly id: number;
  readonly #runtime: Runtime;

  /** @internal */
  constructor(runtime: Runtime, id: number) {
    this.#runtime = runtime;
    this.id = id;
  }

  /** Writes tensors. With `transfer` their buffers are given away, which copies nothing. */
  async write(tensors: Readonly<Record<string, TensorData>>, options: { transfer?: boolean } = {}): Promise<void> {
    for (const [name, tensor] of Object.entries(tensors)) checkSize(`TensorStore.write: ${name}`, tensor);
    const sent = options.transfer ? tensors : copied(tensors);
    const types = this.#runtime.stored.get(this.id) ?? new Map();
    this.#runtime.stored.set(this.id, types);
    for (const [name, { dtype, shape }] of Object.entries(tensors)) types.set(name, { dtype, shape });
    await this.#runtime.request(
      { kind: "write", store: this.id, tensors: sent },
      { transfer: buffersOf(Object.values(sent)) },
    );
  }

  /** A copy of one tensor. */
  async read(name: string): Promise<TensorData> {
    return await this.#runtime.request({ kind: "read", store: this.id, name });
  }

  /** For `stored` and `into` of a run. */
  at(name: string): StoredName {
    return { store: this.id, name };
  }

  /** Frees all tensors of this store. Sessions that hold them as constants have copies. */
  async drop(): Promise<void> {
    this.#runtime.stored.delete(this.id);
    await this.#runtime.request({ kind: "drop", store: this.id });
  }
}

export interface RunOptions {
  readonly signal?: AbortSignal | undefined;
  /** Inputs that lie in a store. */
  readonly stored?: Readonly<Record<string, StoredName>>;
  /** Outputs that overwrite a stored tensor, which may be an input of the same run, and are not returned. */
  readonly into?: Readonly<Record<string, StoredName>>;
  /** Gives the buffers of the feeds away: nothing is copied, and the caller's arrays are empty afterwards. @default false */
  readonly transfer?: boolean;
}

/** What one input takes; prepared once, because a query is over in milliseconds. */
interface Input {
  readonly port: Port;
  readonly name: string;
  /** Of each dimension, whether it is a sum or a product. */
  readonly formulas: readonly boolean[];
}

const NONE: Readonly<Record<string, never>> = {};

/** An opened model. */
export class Session {
  readonly #runtime: Runtime;
  readonly #id: number;
  readonly #inputs: readonly Input[];
  readonly #known: ReadonlySet<string>;
  readonly #outputs: ReadonlySet<string>;
  readonly #weights: Readonly<Record<string, StoredName>>;

  /** @internal */
  constructor(runtime: Runtime, id: number, model: EncodedModel, weights: Readonly<Record<string, StoredName>>) {
    this.#runtime = runtime;
    this.#id = id;
    this.#inputs = model.inputs.map((port) => ({
      port,
      name: plainName(port),
      formulas: port.shape.map((dim) => typeof parseDim(dim) === "object"),
    }));
    this.#known = new Set(this.#inputs.map(({ name }) => name));
    this.#outputs = new Set(model.outputs.map(({ name }) => name));
    this.#weights = weights;
  }

  /** Runs the graph on `feeds`, by the names of the inputs, and returns the outputs by name. */
  async run(
    feeds: Readonly<Record<string, TensorData>>,
    options: RunOptions = {},
  ): Promise<Readonly<Record<string, TensorData>>> {
    const { signal, stored = NONE, into = NONE, transfer = false } = options;
    this.#check(feeds, stored, into);
    const sent = transfer ? feeds : copied(feeds);
    return await this.#runtime.request(
      {
        kind: "run",
        session: this.#id,
        feeds: this.#byPort(sent),
        stored: { ...this.#weights, ...this.#byPort(stored) },
        into,
        fetch: [...this.#outputs].filter((name) => !(name in into)),
      },
      { signal, transfer: buffersOf(Object.values(sent)) },
    );
  }

  async close(): Promise<void> {
    await this.#runtime.request({ kind: "close", session: this.#id });
  }

  /** The same record by the names of the model. */
  #byPort<T>(record: Readonly<Record<string, T>>): Record<string, T> {
    const result: Record<string, T> = {};
    for (const { port, name } of this.#inputs) if (name in record) result[port.name] = record[name]!;
    return result;
  }

  /** Every input is given once, with its type and shape, a symbol means one number throughout, and outputs exist. */
  #check(
    feeds: Readonly<Record<string, TensorData>>,
    stored: Readonly<Record<string, StoredName>>,
    into: Readonly<Record<string, StoredName>>,
  ): void {
    for (const name of [...Object.keys(feeds), ...Object.keys(stored)]) {
      if (!this.#known.has(name)) {
        throw new InvalidInputError(`run: the graph has no input "${name}", only: ${listed(this.#known)}.`);
      }
      if (name in feeds && name in stored) {
        throw new InvalidInputError(`run: the input "${name}" is given twice, as a feed and as a stored tensor.`);
      }
    }
    for (const name of Object.keys(into)) {
      if (this.#outputs.has(name)) continue;
      throw new InvalidInputError(`run: the graph has no output "${name}", only: ${listed(this.#outputs)}.`);
    }
    const sizes = new Map<string, number>();
    for (const { port, name, formulas } of this.#inputs) {
      const at = stored[name];
      const feed = at ? this.#runtime.stored.get(at.store)?.get(at.name) : feeds[name];
      if (!feed) {
        throw new InvalidInputError(
          `run: the input "${name}" is missing${at ? `: no tensor is stored as "${at.name}"` : ""}.`,
        );
      }
      if (!at) checkSize(`run: ${name}`, feeds[name]!);
      const fits = feed.dtype === port.dtype && feed.shape.length === port.shape.length;
      if (fits && port.shape.every((dim, axis) => sizeFits(dim, formulas[axis]!, feed.shape[axis]!, sizes))) continue;
      const bound = [...sizes].map(([symbol, size]) => `${symbol} = ${size}`).join(", ");
      throw new InvalidInputError(
        `run: the input "${name}" is ${feed.dtype}${formatShape(feed.shape)}, the graph wants ${port.dtype}${formatShape(port.shape)}${bound && ` (${bound})`}.`,
      );
    }
  }
}

/** Copies that can be given away. Cloning would take along all of a larger buffer that an array is a part of. */
function copied(tensors: Readonly<Record<string, TensorData>>): Record<string, TensorData> {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape, data }]) => [name, { dtype, shape, data: data.slice() }]),
  );
}

function buffersOf(tensors: readonly TensorData[]): ArrayBuffer[] {
  return [...new Set(tensors.map(({ data }) => data.buffer as ArrayBuffer))];
}

function checkSize(what: string, { shape, data }: TensorData): void {
  const size = shape.reduce((a, b) => a * b, 1);
  if (size !== data.length) {
    throw new InvalidInputError(`${what}: shape ${formatShape(shape)} holds ${size} numbers, got ${data.length}.`);
  }
}

function listed(names: ReadonlySet<string>): string {
  return [...names].join(", ") || "none";
}

/** Whether a dimension can be `size`, where `sizes` holds what symbols and formulas were so far; a new one is entered. */
function sizeFits(dim: Dim, isFormula: boolean, size: number, sizes: Map<string, number>): boolean {
  if (typeof dim === "number") return dim === size;
  const expected = (isFormula ? evaluateDim(dim, sizes) : undefined) ?? sizes.get(dim) ?? size;
  sizes.set(dim, expected);
  return expected === size;
}

/** The one place where numbers are computed: ONNX Runtime in a worker thread, seen from the caller's thread. */
import { Worker } from "node:worker_threads";
import { InvalidInputError, RuntimeFailureError } from "../errors.js";
import { formatShape } from "../graph/dim.js";
import type { EncodedModel, Port } from "../onnx/encode.js";
import type { Answers, FromWorker, Request, StoredName, TensorData } from "./protocol.js";

export type { TensorArray, TensorData } from "./protocol.js";

export interface RuntimeOptions {
  /** ONNX Runtime's execution provider. Only `"cpu"` is tested by us. @default "cpu" */
  readonly provider?: string;
  /** Number of the device, for providers that have several. */
  readonly device?: number;
  /** Threads of one run; 0 lets ONNX Runtime choose (the physical cores). @default 0 */
  readonly threads?: number;
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/**
 * A worker thread with ONNX Runtime. The event loop of the caller stays free; the process may end while a runtime is
 * idle. `dispose()` ends the worker and frees its memory.
 */
export class Runtime implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #options: { provider: string; device: number | undefined; threads: number };
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  #ended: RuntimeFailureError | undefined;

  private constructor(worker: Worker, options: RuntimeOptions) {
    this.#worker = worker;
    this.#options = { provider: options.provider ?? "cpu", device: options.device, threads: options.threads ?? 0 };
    worker.unref();
    worker.on("message", (message: FromWorker) => this.#settle(message));
    worker.on("error", (cause) => this.#end(new RuntimeFailureError("Runtime: the worker thread failed.", { cause })));
    worker.on("exit", () => this.#end(new RuntimeFailureError("Runtime: the worker thread has ended.")));
  }

  /** Starts the worker and checks that the provider exists. */
  static async start(options: RuntimeOptions = {}): Promise<Runtime> {
    const { threads = 0, provider = "cpu" } = options;
    if (!Number.isInteger(threads) || threads < 0) {
      throw new InvalidInputError(`Runtime.start: threads must be a whole number from 0, got ${threads}.`);
    }
    const runtime = new Runtime(new Worker(new URL("./worker.js", import.meta.url)), options);
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
   * Opens a session. Its parameters are read from `weights` under their own names: as constants, which are copied into
   * the session, where the model was encoded with external weights, else at every run.
   */
  async open(model: EncodedModel, options: { weights?: TensorStore; constants?: boolean } = {}): Promise<Session> {
    const { weights, constants = false } = options;
    const store = weights?.id;
    if (model.parameters.length > 0 && store === undefined) {
      throw new InvalidInputError(
        `Runtime.open: the model reads ${model.parameters.length} weights, and no store was given.`,
      );
    }
    const at = Object.fromEntries(
      model.parameters.map(({ name }) => [name, { store: store!, name: name.slice("p/".length) }]),
    );
    const session = this.#next++;
    await this.request({
      kind: "open",
      session,
      model: model.bytes,
      constants: constants ? at : {},
      options: this.#options,
    });
    return new Session(this, session, model, constants ? {} : at);
  }

  /** Ends the worker; whatever still waits is rejected. */
  async dispose(): Promise<void> {
    this.#end(new RuntimeFailureError("Runtime: it was disposed of."));
    await this.#worker.terminate();
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
        this.#worker.postMessage({ cancel: id });
        this.#take(id)?.reject(signal!.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      const settled = <T>(settle: (value: T) => void) => {
        return (value: T) => {
          signal?.removeEventListener("abort", onAbort);
          settle(value);
        };
      };
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(id, { resolve: settled(resolve as (result: unknown) => void), reject: settled(reject) });
      this.#worker.postMessage({ id, request }, transfer);
    });
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (this.#pending.size === 0) this.#worker.unref();
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
    await this.#runtime.request(
      { kind: "write", store: this.id, tensors },
      { transfer: options.transfer ? buffersOf(Object.values(tensors)) : [] },
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

/** An opened model. */
export class Session {
  readonly #runtime: Runtime;
  readonly #id: number;
  readonly #model: EncodedModel;
  readonly #weights: Readonly<Record<string, StoredName>>;

  /** @internal */
  constructor(runtime: Runtime, id: number, model: EncodedModel, weights: Readonly<Record<string, StoredName>>) {
    this.#runtime = runtime;
    this.#id = id;
    this.#model = model;
    this.#weights = weights;
  }

  /** Runs the graph on `feeds`, by the names of the inputs, and returns the outputs by name. */
  async run(
    feeds: Readonly<Record<string, TensorData>>,
    options: RunOptions = {},
  ): Promise<Readonly<Record<string, TensorData>>> {
    const { signal, stored = {}, into = {}, transfer = false } = options;
    checkFeeds(this.#model.inputs, feeds, stored);
    return await this.#runtime.request(
      {
        kind: "run",
        session: this.#id,
        feeds: prefixed(feeds),
        stored: { ...this.#weights, ...prefixed(stored) },
        into,
        fetch: this.#model.outputs.flatMap(({ name }) => (name in into ? [] : [name])),
      },
      { signal, transfer: transfer ? buffersOf(Object.values(feeds)) : [] },
    );
  }

  async close(): Promise<void> {
    await this.#runtime.request({ kind: "close", session: this.#id });
  }
}

function prefixed<T>(record: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [`in/${name}`, value]));
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

/** Every input is given, with its type and shape, and a symbol means one number throughout. */
function checkFeeds(
  ports: readonly Port[],
  feeds: Readonly<Record<string, TensorData>>,
  stored: Readonly<Record<string, StoredName>>,
): void {
  const sizes = new Map<string, number>();
  const known = new Set(ports.map(({ name }) => name));
  for (const name of [...Object.keys(feeds), ...Object.keys(stored)]) {
    if (!known.has(`in/${name}`)) throw new InvalidInputError(`run: the graph has no input "${name}".`);
  }
  for (const port of ports) {
    const name = port.name.slice("in/".length);
    const feed = feeds[name];
    if (!feed && !(name in stored)) throw new InvalidInputError(`run: the input "${name}" is missing.`);
    if (!feed) continue;
    checkSize(`run: ${name}`, feed);
    const fits = feed.dtype === port.dtype && feed.shape.length === port.shape.length;
    const dimsFit = port.shape.every((dim, axis) => {
      const size = feed.shape[axis]!;
      if (typeof dim === "number") return dim === size;
      const seen = sizes.get(dim) ?? size;
      sizes.set(dim, seen);
      return seen === size;
    });
    if (!fits || !dimsFit) {
      const bound = [...sizes].map(([symbol, size]) => `${symbol} = ${size}`).join(", ");
      throw new InvalidInputError(
        `run: the input "${name}" is ${feed.dtype}${formatShape(feed.shape)}, the graph wants ${port.dtype}${formatShape(port.shape)}${bound && ` (${bound})`}.`,
      );
    }
  }
}

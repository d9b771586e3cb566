/**
 * The worker thread that owns sessions and weights. `session.run()` blocks the thread that calls it
 * (microsoft/onnxruntime#19611), so it is called here and nowhere else. Requests are answered in order.
 */
import { parentPort } from "node:worker_threads";
import { InferenceSession, listSupportedBackends, Tensor } from "onnxruntime-node";
import type { DType } from "../graph/value.js";
import type {
  FromWorker,
  OpenRequest,
  Request,
  RunRequest,
  StoredName,
  TensorArray,
  TensorData,
  ToWorker,
} from "./protocol.js";

const sessions = new Map<number, InferenceSession>();
const stores = new Map<number, Map<string, TensorData>>();
const queue: { id: number; request: Request }[] = [];
let working = false;

parentPort!.on("message", (message: ToWorker) => {
  if ("cancel" in message) {
    const index = queue.findIndex(({ id }) => id === message.cancel);
    if (index >= 0) queue.splice(index, 1);
    return;
  }
  queue.push(message);
  if (!working) void work();
});

async function work(): Promise<void> {
  working = true;
  for (let next = queue.shift(); next; next = queue.shift()) {
    try {
      const result = await answer(next.request);
      post({ id: next.id, result }, buffersOf(next.request, result));
    } catch (error) {
      post({ id: next.id, error: error instanceof Error ? error.message : String(error) }, []);
    }
    // Lets messages in that came meanwhile: a cancelled request must not run.
    await new Promise((resolve) => setImmediate(resolve));
  }
  working = false;
}

function post(message: FromWorker, transfer: ArrayBuffer[]): void {
  parentPort!.postMessage(message, transfer);
}

/** Only outputs of a run are handed over; stored tensors stay, so reading one copies it. */
function buffersOf(request: Request, result: unknown): ArrayBuffer[] {
  if (request.kind !== "run") return [];
  const tensors = Object.values(result as Record<string, TensorData>);
  return [...new Set(tensors.map(({ data }) => data.buffer as ArrayBuffer))];
}

async function answer(request: Request): Promise<unknown> {
  switch (request.kind) {
    case "check":
      return listSupportedBackends().map(({ name }) => name);
    case "write": {
      const store = stores.get(request.store) ?? new Map<string, TensorData>();
      stores.set(request.store, store);
      for (const [name, tensor] of Object.entries(request.tensors)) store.set(name, tensor);
      return undefined;
    }
    case "read":
      return storedTensor({ store: request.store, name: request.name });
    case "drop":
      stores.delete(request.store);
      return undefined;
    case "open":
      return open(request);
    case "close":
      await sessions.get(request.session)?.release();
      sessions.delete(request.session);
      return undefined;
    case "run":
      return run(request);
  }
}

async function open({ session, model, constants, options }: OpenRequest): Promise<undefined> {
  const externalData = Object.entries(constants).map(([path, stored]) => {
    const { data } = storedTensor(stored);
    return { path, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
  });
  const provider =
    options.device === undefined ? options.provider : { name: options.provider, deviceId: options.device };
  sessions.set(
    session,
    await InferenceSession.create(model, {
      executionProviders: [provider as string],
      externalData,
      // Fusions beyond "basic" are slower here: SkipLayerNormalization takes 3.5 times Add + LayerNormalization.
      graphOptimizationLevel: "basic",
      // Halves the peak; see docs/decisions/0003-runtime-options.md for this and for spinning.
      enableMemPattern: false,
      intraOpNumThreads: options.threads,
      logSeverityLevel: 4, // errors are thrown as well; the library never prints
      extra: { session: { intra_op: { allow_spinning: "0" } } },
    }),
  );
  return undefined;
}

async function run({ session: id, feeds, stored, into, fetch }: RunRequest): Promise<Record<string, TensorData>> {
  const session = sessions.get(id);
  if (!session) throw new Error("the session was closed");
  const inputs: Record<string, Tensor> = {};
  for (const [name, tensor] of Object.entries(feeds)) inputs[name] = toTensor(tensor);
  for (const [name, at] of Object.entries(stored)) inputs[name] = toTensor(storedTensor(at));
  const fetches: Record<string, Tensor | null> = {};
  for (const name of fetch) fetches[name] = null;
  for (const [name, at] of Object.entries(into)) fetches[name] = toTensor(storedTensor(at));
  const outputs = await session.run(inputs, fetches);
  return Object.fromEntries(
    fetch.map((name) => {
      const { type, dims, data } = outputs[name]! as Tensor;
      return [name, { dtype: type as DType, shape: dims, data: data as TensorArray }];
    }),
  );
}

function toTensor({ dtype, data, shape }: TensorData): Tensor {
  return new Tensor(dtype as "float32", data as Float32Array, shape);
}

function storedTensor({ store, name }: StoredName): TensorData {
  const tensor = stores.get(store)?.get(name);
  if (!tensor) throw new Error(`no tensor is stored as "${name}"`);
  return tensor;
}

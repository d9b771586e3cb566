/**
 * The worker thread that owns sessions and weights. `session.run()` blocks the thread that calls it
 * (microsoft/onnxruntime#19611), so it is called here and nowhere else. Requests are answered in order.
 */
import { parentPort, workerData } from "node:worker_threads";
import { InferenceSession, listSupportedBackends, Tensor } from "onnxruntime-node";
import type { DType } from "../graph/value.js";
import {
  BUSY,
  ENDING,
  type FromWorker,
  type OpenRequest,
  type Request,
  type RunRequest,
  type StoredName,
  type TensorArray,
  type TensorData,
  type ToWorker,
} from "./protocol.js";

const sessions = new Map<number, InferenceSession>();
const stores = new Map<number, Map<string, TensorData>>();
const queue: { id: number; request: Request }[] = [];
const shared = workerData as Int32Array;
let working = false;

parentPort!.on("message", (message: ToWorker) => {
  if ("cancel" in message) {
    const index = queue.findIndex(({ id }) => id === message.cancel);
    if (index < 0) return;
    queue.splice(index, 1);
    post({ id: message.cancel, error: "cancelled" }, []);
    return;
  }
  if ("id" in message) queue.push(message);
  if (!working) void work();
});

async function work(): Promise<void> {
  working = true;
  for (let next = queue.shift(); next; next = queue.shift()) {
    try {
      const result = await guarded(next.request);
      post({ id: next.id, result }, buffersOf(next.request, result));
    } catch (error) {
      post({ id: next.id, error: error instanceof Error ? error.message : String(error) }, []);
    }
    // Lets messages in that came meanwhile: a cancelled request must not run.
    await new Promise((resolve) => setImmediate(resolve));
  }
  working = false;
  if (Atomics.load(shared, ENDING)) process.exit();
}

/** Says that it is busy before it looks whether the end has come, and the other side does the reverse. */
async function guarded(request: Request): Promise<unknown> {
  Atomics.store(shared, BUSY, 1);
  try {
    if (Atomics.load(shared, ENDING)) throw new Error("the runtime was ended");
    return await answer(request);
  } finally {
    Atomics.store(shared, BUSY, 0);
    Atomics.notify(shared, BUSY);
  }
}

function post(message: FromWorker, transfer: ArrayBuffer[]): void {
  parentPort!.postMessage(message, transfer);
}

/** What is returned is handed over, not copied: outputs of a run, and the copy of a stored tensor. */
function buffersOf(request: Request, result: unknown): ArrayBuffer[] {
  if (request.kind !== "run" && request.kind !== "read") return [];
  const tensors =
    request.kind === "read" ? [result as TensorData] : Object.values(result as Record<string, TensorData>);
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
    case "read": {
      const { dtype, shape, data } = storedTensor(request);
      return { dtype, shape, data: data.slice() };
    }
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

async function open({ session, model, constants, folder, options }: OpenRequest): Promise<undefined> {
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
      // Halves the peak; see docs/decisions/0013-runtime-options.md for this and for spinning.
      enableMemPattern: false,
      enableCpuMemArena: options.arena,
      intraOpNumThreads: options.threads,
      logSeverityLevel: 4, // errors are thrown as well; the library never prints
      extra: {
        session: {
          intra_op: { allow_spinning: "1", spin_duration_us: "300" },
          ...(folder !== undefined && { model_external_initializers_file_folder_path: folder }),
        },
      },
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

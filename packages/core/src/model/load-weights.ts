/** Moves the weights that a graph asks for from a checkpoint into the runtime, one tensor at a time. */
import { ModelError } from "../errors.js";
import type { Port } from "../onnx/encode.js";
import type { TensorStore } from "../runtime/runtime.js";
import type { WeightSource } from "./quantize.js";

/** Names in the checkpoint that the graph doesn't read, and the other way round. */
export interface WeightReport {
  /** Tensors of the checkpoint that nothing read, by name. */
  readonly unused: string[];
}

export interface LoadWeightsOptions {
  /** What the checkpoint puts before our names, such as `"bert."`. @default "" */
  readonly prefix?: string;
  readonly signal?: AbortSignal | undefined;
  readonly onTensor?: (name: string) => void;
}

/**
 * Reads every parameter of `parameters` (named `p/<name>`) from the file. Raises ModelError that names all missing
 * tensors, or the first misshapen one with both shapes, before any weight is handed over.
 */
export async function loadWeights(
  file: WeightSource,
  parameters: readonly Port[],
  store: TensorStore,
  options: LoadWeightsOptions = {},
): Promise<WeightReport> {
  const { prefix = "", signal, onTensor } = options;
  const wanted = parameters.map((port) => ({ name: port.name.slice("p/".length), port }));
  checkTensors(file, wanted, prefix);
  for (const { name, port } of wanted) {
    signal?.throwIfAborted();
    const shape = port.shape as number[];
    const data =
      port.dtype === "float32" ? await file.readFloat32(prefix + name, shape) : await file.read(prefix + name);
    await store.write({ [name]: { dtype: port.dtype, shape, data: data as Float32Array } }, { transfer: true });
    onTensor?.(name);
  }
  const read = new Set(wanted.map(({ name }) => prefix + name));
  return { unused: [...file.tensors.keys()].filter((name) => !read.has(name)) };
}

/** Raises the errors of `loadWeights` and reads nothing. */
export function checkTensors(
  file: WeightSource,
  wanted: readonly { name: string; port: Port }[],
  prefix: string,
): void {
  const missing = wanted.filter(({ name }) => !file.tensors.has(prefix + name));
  if (missing.length > 0) {
    const names = missing.map(({ name }) => prefix + name);
    throw new ModelError(
      `loadWeights: ${file.path} lacks ${names.length} of ${wanted.length} tensors: ${listed(names)}. It has ${listed([...file.tensors.keys()])}. Is it the checkpoint of another architecture?`,
    );
  }
  for (const { name, port } of wanted) {
    const tensor = file.tensors.get(prefix + name)!;
    const fits = port.shape.length === tensor.shape.length && port.shape.every((dim, i) => dim === tensor.shape[i]);
    const typeFits = port.dtype === "float32" ? FLOATS.has(tensor.dtype) : tensor.dtype === CODES[port.dtype];
    if (!fits || !typeFits) {
      throw new ModelError(
        `loadWeights: ${prefix + name} is ${tensor.dtype}[${tensor.shape.join(", ")}] in ${file.path}, the configuration asks for ${port.dtype}[${port.shape.join(", ")}].`,
      );
    }
  }
}

const FLOATS: ReadonlySet<string> = new Set(["F32", "F16", "BF16", "F64"]);
const CODES: Readonly<Record<string, string>> = { int8: "I8", uint8: "U8", int32: "I32", int64: "I64" };

function listed(names: readonly string[]): string {
  return names.length <= 6 ? names.join(", ") : `${names.slice(0, 6).join(", ")} and ${names.length - 6} more`;
}

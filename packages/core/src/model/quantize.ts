/** float32 matrices to int8, one scale a row. */
import { internal, ModelError } from "../errors.js";
import type { Port } from "../onnx/encode.js";
import { type ActivationScales, scaleName } from "./int8-weights.js";
import type { SafetensorsFile } from "./safetensors.js";
import type { TensorInfo } from "./safetensors-header.js";

export interface QuantizedMatrix {
  /** [rows, width] as given. */
  readonly values: Int8Array;
  /** What one step of each row is worth. */
  readonly scales: Float32Array;
}

/**
 * Each row becomes round(x / scale) with scale = max|row| / 127; a row of zeros stays one. Raises ModelError that names
 * the matrix where an entry isn't finite.
 */
export function quantizeRows(matrix: Float32Array, rows: number, name: string): QuantizedMatrix {
  const width = matrix.length / rows;
  const values = new Int8Array(matrix.length);
  const scales = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * width;
    let largest = 0;
    for (let i = start; i < start + width; i++) largest = Math.max(largest, Math.abs(matrix[i]!));
    if (!Number.isFinite(largest)) {
      throw new ModelError(
        `quantizeRows: row ${row} of ${name} holds NaN or Infinity; such weights have no int8 form.`,
      );
    }
    const scale = Math.fround(largest / 127);
    scales[row] = scale;
    if (scale > 0) for (let i = start; i < start + width; i++) values[i] = Math.round(matrix[i]! / scale);
  }
  return { values, scales };
}

/** What `loadWeights` reads from. */
export type WeightSource = Pick<SafetensorsFile, "path" | "tensors" | "read" | "readFloat32">;

/**
 * A checkpoint seen as the int8 form of it that `parameters` ask for: float matrices are quantised when they are read.
 * What is int8 in the file already passes through. Products with dynamic scales want their matrices as [in, out].
 */
export function quantizedView(
  file: WeightSource,
  parameters: readonly Port[],
  { prefix, activations }: { prefix: string; activations: ActivationScales },
): WeightSource {
  // Look-up tables keep a row a token.
  const transposed = (name: string) => activations === "dynamic" && !/embeddings\.weight$/.test(name);
  const tensors = new Map<string, TensorInfo>(file.tensors);
  const matrices = new Set<string>();
  for (const { name, dtype } of parameters) {
    const full = prefix + name.slice("p/".length);
    const info = file.tensors.get(full);
    if (dtype !== "int8" || info?.shape.length !== 2 || info.dtype === "I8") continue;
    matrices.add(full);
    const shape = transposed(full) ? info.shape.toReversed() : info.shape;
    tensors.set(full, { dtype: "I8", shape, byteLength: shape[0]! * shape[1]! });
    tensors.set(scaleName(full), { dtype: "F32", shape: [info.shape[0]!], byteLength: 4 * info.shape[0]! });
  }
  // A matrix and its scales are read one after the other; what came with the first waits for the second.
  const waiting = new Map<string, QuantizedMatrix>();
  const quantized = async (matrix: string): Promise<QuantizedMatrix> => {
    const known = waiting.get(matrix);
    if (known) {
      waiting.delete(matrix);
      return known;
    }
    const result = quantizeRows(await file.readFloat32(matrix), file.tensors.get(matrix)!.shape[0]!, matrix);
    waiting.set(matrix, result);
    return result;
  };
  return {
    path: file.path,
    tensors,
    read: async (name) => {
      if (!matrices.has(name)) return file.read(name);
      const { values } = await quantized(name);
      const [rows] = file.tensors.get(name)!.shape;
      return transposed(name) ? transpose(values, rows!) : values;
    },
    readFloat32: async (name, shape) => {
      const matrix = [...matrices].find((candidate) => scaleName(candidate) === name);
      if (matrix === undefined) return file.readFloat32(name, shape);
      return (await quantized(matrix)).scales;
    },
  };
}

function transpose(matrix: Int8Array, rows: number): Int8Array {
  const width = matrix.length / rows;
  if (!Number.isInteger(width)) throw internal(`${matrix.length} entries in ${rows} rows`);
  const result = new Int8Array(matrix.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < width; c++) result[c * rows + r] = matrix[r * width + c]!;
  return result;
}

/** The weights that a run starts from, as float32, whatever form they are stored in. */
import { prefixOf } from "../encoder/load-biencoder.js";
import { InvalidInputError, ModelError } from "../errors.js";
import { scaleName } from "../model/int8-weights.js";
import { openWeights, type SafetensorsFile } from "../model/safetensors.js";
import type { NamedShape } from "./parameters.js";

/** Open weights of a base model, by the names that graphs use. */
export interface BaseWeights extends AsyncDisposable {
  /** sha256 of the weights as stored. */
  readonly digest: string;
  /** Whether they are stored as int8, so that a run starts from rounded values. */
  readonly int8: boolean;
  has(name: string): boolean;
  read(tensor: NamedShape): Promise<Float32Array>;
  /** Tensors that the names given don't cover: a pooler, buffers. In their own types. */
  others(read: ReadonlySet<string>): readonly string[];
  readonly file: SafetensorsFile;
}

/** `whole`: names in the file are the graph's, as in two-stage checkpoints; otherwise Hugging Face may prefix them. */
export async function openBaseWeights(path: string, { whole }: { whole: boolean }): Promise<BaseWeights> {
  const file = await openWeights(path);
  try {
    const prefix = whole ? "" : prefixOf(file);
    const int8 = [...file.tensors.values()].some(({ dtype }) => dtype === "I8");
    // A stage's own tensors stand beside the backbone's, without its prefix.
    const full = (name: string) => (file.tensors.has(prefix + name) ? prefix + name : name);
    return {
      digest: await file.digest(),
      int8,
      file,
      has: (name) => file.tensors.has(full(name)),
      others: (read) => {
        const known = new Set([...read].flatMap((name) => [full(name), scaleName(full(name))]));
        return [...file.tensors.keys()].filter((name) => !known.has(name));
      },
      read: async ({ name, shape }) => {
        const info = file.tensors.get(full(name));
        if (info?.dtype !== "I8") return await file.readFloat32(full(name), shape);
        const rows = info.shape[0] ?? 0;
        if (info.shape.length !== 2 || info.shape.some((size, axis) => size !== shape[axis])) {
          throw new ModelError(
            `training: tensor "${name}" of ${path} has shape [${info.shape.join(", ")}], config.json wants [${shape.join(", ")}].`,
          );
        }
        const values = (await file.read(full(name))) as Int8Array;
        return dequantized(values, await file.readFloat32(scaleName(full(name)), [rows]));
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Refuses int8 weights unless the caller said that rounded values will do. */
export function requireFloatWeights({ int8 }: BaseWeights, path: string, dequantize: boolean): void {
  if (!int8 || dequantize) return;
  throw new InvalidInputError(
    `Trainer.create: ${path} holds int8 weights; training goes on in float32. Start from the float32 weights that they were made from, or accept their rounded values with { dequantize: true }.`,
  );
}

function dequantized(values: Int8Array, scales: Float32Array): Float32Array {
  const width = values.length / scales.length;
  const result = new Float32Array(values.length);
  for (let row = 0; row < scales.length; row++) {
    const scale = scales[row]!;
    for (let i = row * width; i < (row + 1) * width; i++) result[i] = values[i]! * scale;
  }
  return result;
}

/** Weights that are used where they lie: ONNX Runtime maps the checkpoint's file instead of being given copies. */
import { realpath } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { FilePlace } from "../onnx/encode.js";
import type { SafetensorsFile } from "./safetensors.js";

export interface MappedWeights {
  /** Of all the files. */
  readonly folder: string;
  place(name: string): FilePlace;
}

/**
 * Places of float32 tensors; undefined where one has another type, lies across the grain of a float, or in another
 * folder, so that all have to be read. A mapped file must not be written over while a session holds it; to replace it
 * by renaming, as downloads and our own writer do, is safe. cde-small-v1 peaks at 1.2 GB so, and at 2.1 GB with copies.
 */
export async function mappedWeights(
  file: SafetensorsFile,
  names: readonly string[],
): Promise<MappedWeights | undefined> {
  const places = new Map<string, FilePlace>();
  const real = new Map<string, string>();
  for (const name of names) {
    const { dtype, byteLength } = file.tensors.get(name)!;
    const { path, start } = file.place(name);
    if (dtype !== "F32" || start % Float32Array.BYTES_PER_ELEMENT !== 0) return undefined;
    // The hub's cache holds links that lead out of their folder, which ONNX Runtime refuses.
    if (!real.has(path)) real.set(path, await realpath(path));
    places.set(name, { file: basename(real.get(path)!), start, byteLength });
  }
  const folders = new Set([...real.values()].map((path) => dirname(path)));
  if (folders.size !== 1) return undefined;
  return { folder: [...folders][0]!, place: (name) => places.get(name)! };
}

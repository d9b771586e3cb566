/** The golden figures of test/parity as tensors, and a way to run graphs on their weights. */
import { readFileSync } from "node:fs";
import type { Value } from "../graph/index.js";
import { encodeModel, type Port, plainName } from "../onnx/encode.js";
import type { Runtime, TensorData } from "../runtime/runtime.js";
import type { BackboneConfig } from "./backbone-config.js";
import { parseBackboneConfig } from "./backbone-config.js";
import type { JsonObject } from "./json-file.js";
import { parseSafetensors } from "./safetensors.js";

const root: URL = new URL("../../../../test/parity/golden/", import.meta.url);

export function goldenJson<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(path, root), "utf8")) as T;
}

/** All tensors of a golden file: floats as float32, integers as int32. */
export function goldenTensors(path: string): ReadonlyMap<string, TensorData> {
  const file = parseSafetensors(readFileSync(new URL(path, root)));
  return new Map(
    [...file.tensors].map(([name, { dtype, shape }]) => [
      name,
      dtype === "I64"
        ? { dtype: "int32", shape, data: Int32Array.from(file.read(name) as BigInt64Array, Number) }
        : { dtype: "float32", shape, data: file.readFloat32(name) },
    ]),
  );
}

export function float32(shape: readonly number[], data: Iterable<number>): TensorData {
  return { dtype: "float32", shape, data: Float32Array.from(data) };
}

export function int32(shape: readonly number[], data: Iterable<number>): TensorData {
  return { dtype: "int32", shape, data: Int32Array.from(data) };
}

/** A golden integer mask as the graph takes it. */
export function asMask({ shape, data }: TensorData): TensorData {
  return float32(shape, data as Int32Array);
}

/** The first rows along axis 0. */
export function rows({ dtype, shape, data }: TensorData, start: number, end: number): TensorData {
  const width = data.length / shape[0]!;
  return { dtype, shape: [end - start, ...shape.slice(1)], data: data.slice(start * width, end * width) };
}

/** A fixture's configuration with what the fixture leaves out because it is the class's default. */
export function goldenBackbone(
  type: "bert" | "nomic_bert" | "modernbert",
  config: JsonObject,
  changes: JsonObject = {},
): BackboneConfig {
  return parseBackboneConfig("goldenBackbone", "fixture.json", { model_type: type, ...config, ...changes });
}

type Weights = ReadonlyMap<string, TensorData> | ((port: Port) => TensorData);

/** Runs what `outputs` depend on: weights by name from `weights`, inputs from `feeds`, of which others are left out. */
export async function runGraph(
  runtime: Runtime,
  outputs: Readonly<Record<string, Value>>,
  weights: Weights,
  feeds: Readonly<Record<string, TensorData>>,
): Promise<Readonly<Record<string, TensorData>>> {
  const model = encodeModel(outputs);
  const store = runtime.createStore();
  for (const port of model.parameters) {
    const name = plainName(port);
    const tensor = typeof weights === "function" ? weights(port) : weights.get(name);
    if (!tensor) throw new Error(`the golden weights have no ${name}`);
    await store.write({ [name]: tensor });
  }
  const session = await runtime.open(model, { weights: store });
  const wanted = Object.fromEntries(model.inputs.map((port) => [plainName(port), feeds[plainName(port)]!]));
  try {
    return await session.run(wanted);
  } finally {
    await session.close();
    await store.drop();
  }
}

/** The largest absolute difference; of tensors [batch, length, width] with a mask [batch, length], at real tokens. */
export function difference(a: TensorData, b: TensorData, mask?: TensorData): number {
  if (a.shape.join() !== b.shape.join()) throw new Error(`shapes differ: [${a.shape}] and [${b.shape}]`);
  const width = mask ? a.data.length / mask.data.length : 1;
  let largest = 0;
  for (let i = 0; i < a.data.length; i++) {
    if (mask && !Number(mask.data[Math.floor(i / width)])) continue;
    const distance = Math.abs(Number(a.data[i]) - Number(b.data[i]));
    if (!(distance <= largest)) largest = distance; // NaN too
  }
  return largest;
}

/** The same in units of the largest entry of `b`. */
export function relativeDifference(a: TensorData, b: TensorData): number {
  return difference(a, b) / Math.max(...Array.from(b.data as Float32Array, Math.abs));
}

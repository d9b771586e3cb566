/** Readers of safetensors weights: one file, a sharded model, or bytes in memory. Tensors are read one at a time. */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { CorruptFileError, ModelError } from "../errors.js";
import { canonicalJson, sha256Hex } from "./digest.js";
import { bfloat16ToFloat32, float16ToFloat32 } from "./half.js";
import { describe, isJsonObject, readJsonObject, unreadable } from "./json-file.js";
import {
  HEAD_BYTES,
  headerLength,
  type PlacedTensor,
  parseHeader,
  type SafetensorsHeader,
  type TensorDtype,
  type TensorInfo,
} from "./safetensors-header.js";

export { encodeSafetensors, type TensorToWrite, writeSafetensors } from "./safetensors-writer.js";

/**
 * A tensor's elements in the array of its own type. Without one in Node 20: F16 and BF16 are their bits in a
 * Uint16Array, BOOL and the types of 8 bits and fewer their bytes, C64 pairs of a Float32Array.
 */
export type TensorData =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

/** Open weights: one file, or the shards of one model. Close them, or hold them with `await using`. */
export interface SafetensorsFile extends AsyncDisposable {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of the data. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The tensor in its own type. Raises ModelError where there is none of that name. */
  read(name: string): Promise<TensorData>;
  /**
   * The tensor as float32, from F32, F16, BF16 or F64 (rounded); converted in pieces, so that no second copy of it
   * exists. With `shape`, a tensor of another shape is a ModelError that names both.
   */
  readFloat32(name: string, shape?: readonly number[]): Promise<Float32Array>;
  /** The file and the first byte of a tensor in it. */
  place(name: string): { readonly path: string; readonly start: number };
  /** sha256 (hex) of the file; of a sharded model, that of the shards' names and digests. */
  digest(): Promise<string>;
  close(): Promise<void>;
}

const PIECE_BYTES = 1 << 22;

/** Opens one file and checks its whole header against its size. Raises MissingFileError or CorruptFileError. */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const operation = "openSafetensors";
  let file: FileHandle | undefined;
  try {
    file = await open(path, "r");
    const stats = await file.stat();
    if (!stats.isFile()) throw new CorruptFileError(path, `${operation}: ${path} isn't a regular file.`);
    const head = await readAt(operation, path, file, 0, new Uint8Array(Math.min(HEAD_BYTES, stats.size)));
    const length = headerLength(operation, path, head, stats.size);
    const json = await readAt(operation, path, file, 8, new Uint8Array(length));
    return new SingleFile(path, file, stats.size, parseHeader(operation, path, json, stats.size));
  } catch (cause) {
    await file?.close();
    throw unreadable(operation, path, cause);
  }
}

class SingleFile implements SafetensorsFile {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, PlacedTensor>;
  readonly #file: FileHandle;
  readonly #size: number;

  constructor(path: string, file: FileHandle, size: number, { metadata, tensors }: SafetensorsHeader) {
    this.path = path;
    this.metadata = metadata;
    this.tensors = tensors;
    this.#file = file;
    this.#size = size;
  }

  async read(name: string): Promise<TensorData> {
    const tensor = findTensor("read", this, name);
    const bytes = allocate("read", name, Uint8Array, tensor.byteLength);
    await this.#fill("read", tensor.start, bytes);
    return inOwnType(tensor.dtype, bytes.buffer);
  }

  async readFloat32(name: string, shape?: readonly number[]): Promise<Float32Array> {
    const tensor = findFloatTensor(this, name, shape);
    const target = allocate("readFloat32", name, Float32Array, product(tensor.shape));
    if (tensor.dtype === "F32") {
      await this.#fill("readFloat32", tensor.start, new Uint8Array(target.buffer));
      return target;
    }
    const width = tensor.dtype === "F64" ? 8 : 2;
    const piece = new Uint8Array(Math.min(PIECE_BYTES, tensor.byteLength));
    for (let done = 0; done < tensor.byteLength; done += piece.length) {
      const length = Math.min(piece.length, tensor.byteLength - done);
      await this.#fill("readFloat32", tensor.start + done, piece.subarray(0, length));
      convert(tensor.dtype, piece.buffer, length / width, target, done / width);
    }
    return target;
  }

  place(name: string): { path: string; start: number } {
    return { path: this.path, start: findTensor("place", this, name).start };
  }

  async digest(): Promise<string> {
    const hash = createHash("sha256");
    const piece = new Uint8Array(Math.min(PIECE_BYTES, this.#size));
    for (let done = 0; done < this.#size; done += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, this.#size - done));
      await this.#fill("digest", done, part);
      hash.update(part);
    }
    return hash.digest("hex");
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #fill(operation: string, position: number, target: Uint8Array): Promise<void> {
    try {
      await readAt(operation, this.path, this.#file, position, target);
    } catch (cause) {
      throw unreadable(operation, this.path, cause);
    }
  }
}

/** Opens `model.safetensors`, or the shards of a `model.safetensors.index.json`. */
export function openWeights(path: string): Promise<SafetensorsFile> {
  return path.endsWith(".index.json") ? openSharded(path) : openSafetensors(path);
}

/** Opens the shards that an index names: they lie beside it, and hold exactly the tensors it says they hold. */
async function openSharded(indexPath: string): Promise<SafetensorsFile> {
  const operation = "openWeights";
  const corrupt = (reason: string) => new CorruptFileError(indexPath, `${operation}: ${indexPath}: ${reason}`);
  const { weight_map: weightMap, metadata } = await readJsonObject(operation, indexPath);
  if (!isJsonObject(weightMap) || Object.keys(weightMap).length === 0)
    throw corrupt(`"weight_map" should name a file for every tensor, found ${describe(weightMap)}.`);
  const names = new Map(Object.entries(weightMap));
  for (const [name, file] of names)
    if (typeof file !== "string" || !/^[\w][\w.-]*\.safetensors$/.test(file))
      throw corrupt(
        `tensor "${name}" is said to lie in ${describe(file)}; a plain name ending in .safetensors is wanted.`,
      );

  const shards = new Map<string, SafetensorsFile>();
  try {
    const tensors = new Map<string, TensorInfo>();
    for (const file of [...new Set(names.values() as Iterable<string>)].sort()) {
      const shard = await openSafetensors(join(dirname(indexPath), file));
      shards.set(file, shard);
      for (const [name, tensor] of shard.tensors) {
        if (names.get(name) !== file)
          throw corrupt(`${file} holds tensor "${name}", which the index places in ${describe(names.get(name))}.`);
        tensors.set(name, tensor);
      }
    }
    for (const [name, file] of names)
      if (!tensors.has(name)) throw corrupt(`tensor "${name}" should lie in ${describe(file)} and doesn't.`);
    return new ShardedFile(indexPath, stringEntries(metadata), tensors, names as Map<string, string>, shards);
  } catch (error) {
    for (const shard of shards.values()) await shard.close();
    throw error;
  }
}

class ShardedFile implements SafetensorsFile {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #files: ReadonlyMap<string, string>;
  readonly #shards: ReadonlyMap<string, SafetensorsFile>;

  constructor(
    path: string,
    metadata: ReadonlyMap<string, string>,
    tensors: ReadonlyMap<string, TensorInfo>,
    files: ReadonlyMap<string, string>,
    shards: ReadonlyMap<string, SafetensorsFile>,
  ) {
    this.path = path;
    this.metadata = metadata;
    this.tensors = tensors;
    this.#files = files;
    this.#shards = shards;
  }

  async read(name: string): Promise<TensorData> {
    findTensor("read", this, name);
    return this.#shard(name).read(name);
  }

  async readFloat32(name: string, shape?: readonly number[]): Promise<Float32Array> {
    findTensor("readFloat32", this, name);
    return this.#shard(name).readFloat32(name, shape);
  }

  place(name: string): { path: string; start: number } {
    findTensor("place", this, name);
    return this.#shard(name).place(name);
  }

  async digest(): Promise<string> {
    const digests: Record<string, string> = {};
    for (const [file, shard] of this.#shards) digests[file] = await shard.digest();
    return sha256Hex(canonicalJson(digests));
  }

  async close(): Promise<void> {
    for (const shard of this.#shards.values()) await shard.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #shard(name: string): SafetensorsFile {
    return this.#shards.get(this.#files.get(name)!)!;
  }
}

/** A safetensors file that is already in memory. */
export interface SafetensorsBytes {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** A copy of the tensor in its own type. */
  read(name: string): TensorData;
  /** A copy as float32; see `SafetensorsFile.readFloat32`. */
  readFloat32(name: string, shape?: readonly number[]): Float32Array;
}

/** The same checks as `openSafetensors`, on bytes. Raises CorruptFileError with the path "(bytes)". */
export function parseSafetensors(bytes: Uint8Array): SafetensorsBytes {
  const operation = "parseSafetensors";
  const length = headerLength(operation, "(bytes)", bytes, bytes.length);
  const header = parseHeader(operation, "(bytes)", bytes.subarray(8, 8 + length), bytes.length);
  // A copy, since typed arrays want alignment. (Not slice: a Buffer's is no copy.)
  const copy = ({ start, byteLength }: PlacedTensor) =>
    new Uint8Array(bytes.subarray(start, start + byteLength)).buffer;
  return {
    ...header,
    read(name) {
      const tensor = findTensor("read", { path: "(bytes)", tensors: header.tensors }, name);
      return inOwnType(tensor.dtype, copy(tensor));
    },
    readFloat32(name, shape) {
      const tensor = findFloatTensor({ path: "(bytes)", tensors: header.tensors }, name, shape);
      if (tensor.dtype === "F32") return new Float32Array(copy(tensor));
      const target = new Float32Array(product(tensor.shape));
      convert(tensor.dtype, copy(tensor), target.length, target, 0);
      return target;
    },
  };
}

interface Listing<T extends TensorInfo> {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, T>;
}

function findTensor<T extends TensorInfo>(operation: string, { path, tensors }: Listing<T>, name: string): T {
  const tensor = tensors.get(name);
  if (tensor) return tensor;
  const tail = name.split(".").slice(-2).join(".");
  const like = [...tensors.keys()].find((other) => other.endsWith(tail)) ?? [...tensors.keys()][0];
  throw new ModelError(
    `${operation}: ${path} has no tensor "${name}"; it has ${tensors.size}${like === undefined ? "" : `, such as "${like}"`}. These aren't the weights of the model in config.json.`,
  );
}

function findFloatTensor<T extends TensorInfo>(listing: Listing<T>, name: string, shape?: readonly number[]): T {
  const tensor = findTensor("readFloat32", listing, name);
  if (shape && (shape.length !== tensor.shape.length || shape.some((size, axis) => size !== tensor.shape[axis])))
    throw new ModelError(
      `readFloat32: tensor "${name}" of ${listing.path} has shape [${tensor.shape.join(", ")}], config.json wants [${shape.join(", ")}].`,
    );
  if (!["F32", "F16", "BF16", "F64"].includes(tensor.dtype))
    throw new ModelError(
      `readFloat32: tensor "${name}" of ${listing.path} has dtype ${tensor.dtype}; F32, F16, BF16 or F64 is wanted.`,
    );
  return tensor;
}

async function readAt<T extends Uint8Array>(
  operation: string,
  path: string,
  file: FileHandle,
  position: number,
  target: T,
): Promise<T> {
  // Node reads at most 2 GiB at once.
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await file.read(target, done, Math.min(target.length - done, 1 << 30), position + done);
    if (bytesRead === 0)
      throw new CorruptFileError(
        path,
        `${operation}: ${path} ended at byte ${position + done}: it was cut while open.`,
      );
    done += bytesRead;
  }
  return target;
}

function allocate<T>(operation: string, name: string, array: new (length: number) => T, length: number): T {
  try {
    return new array(length);
  } catch (cause) {
    throw new ModelError(`${operation}: no memory for the ${length} entries of tensor "${name}".`, { cause });
  }
}

function inOwnType(dtype: TensorDtype, buffer: ArrayBufferLike): TensorData {
  switch (dtype) {
    case "F64":
      return new Float64Array(buffer);
    case "F32":
    case "C64":
      return new Float32Array(buffer);
    case "I64":
      return new BigInt64Array(buffer);
    case "U64":
      return new BigUint64Array(buffer);
    case "I32":
      return new Int32Array(buffer);
    case "U32":
      return new Uint32Array(buffer);
    case "I16":
      return new Int16Array(buffer);
    case "F16":
    case "BF16":
    case "U16":
      return new Uint16Array(buffer);
    case "I8":
      return new Int8Array(buffer);
    default:
      return new Uint8Array(buffer);
  }
}

function convert(dtype: TensorDtype, from: ArrayBufferLike, count: number, target: Float32Array, offset: number): void {
  if (dtype === "F64") target.set(new Float64Array(from, 0, count), offset);
  else if (dtype === "F16") float16ToFloat32(new Uint16Array(from, 0, count), target, offset);
  else bfloat16ToFloat32(new Uint16Array(from, 0, count), target, offset);
}

function product(shape: readonly number[]): number {
  return shape.reduce((total, size) => total * size, 1);
}

function stringEntries(value: unknown): Map<string, string> {
  const entries = isJsonObject(value) ? Object.entries(value) : [];
  return new Map(entries.filter((entry): entry is [string, string] => typeof entry[1] === "string"));
}

/** Writes safetensors files: tensor by tensor, in one order whatever the caller's, and wholly or not at all. */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { InvalidInputError, internal, RuntimeFailureError } from "../errors.js";
import { float32ToFloat16 } from "./half.js";
import { lengthInBytes, MAX_HEADER_BYTES } from "./safetensors-header.js";

/** The array that holds each type that can be written; F16 is given as float32 and rounded to the nearest, ties to even. */
export interface WritableData {
  F64: Float64Array;
  F32: Float32Array;
  F16: Float32Array;
  I64: BigInt64Array;
  I32: Int32Array;
  I8: Int8Array;
  U8: Uint8Array;
}

const ARRAYS = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Float32Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I8: Int8Array,
  U8: Uint8Array,
} as const;

/** One tensor to write; `data` may be a function, called when its turn has come and not held afterwards. */
export type TensorToWrite = {
  [D in keyof WritableData]: {
    readonly name: string;
    readonly dtype: D;
    readonly shape: readonly number[];
    readonly data: WritableData[D] | (() => WritableData[D] | Promise<WritableData[D]>);
  };
}[keyof WritableData];

const PIECE_ELEMENTS = 1 << 20;

/**
 * Writes to a temporary file beside `path`, syncs it and renames it: `path` holds the old file or the whole new one.
 * The data stand by element size, widest first, then by name, so that equal tensors make equal bytes.
 * Raises InvalidInputError for tensors that don't fit their type or shape, and RuntimeFailureError where the disk fails.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const sorted = plan(tensors);
  const header = encodeHeader(sorted, metadata);
  const temporary = `${path}.${process.pid}-${randomBytes(6).toString("hex")}.tmp`;
  try {
    const file = await open(temporary, "wx");
    try {
      await writeAll(file, header);
      for (const { tensor } of sorted) await writeTensor(file, tensor);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (cause) {
    await rm(temporary, { force: true });
    if (cause instanceof Error && "syscall" in cause)
      throw new RuntimeFailureError(`writeSafetensors: can't write ${path}: ${cause.message}`, { cause });
    throw cause;
  }
}

/** The same bytes in memory, for a file that somebody else writes. */
export function encodeSafetensors(
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const sorted = plan(tensors);
  const parts: Uint8Array[] = [encodeHeader(sorted, metadata)];
  for (const { tensor } of sorted) {
    if (typeof tensor.data === "function") throw internal("encodeSafetensors takes data, not functions");
    parts.push(...tensorBytes(tensor, tensor.data));
  }
  return Buffer.concat(parts);
}

interface Planned {
  readonly tensor: TensorToWrite;
  readonly byteLength: number;
}

function plan(tensors: Iterable<TensorToWrite>): Planned[] {
  const names = new Set<string>();
  const planned: Planned[] = [];
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    const refuse = (reason: string) => new InvalidInputError(`writeSafetensors: tensor "${name}" ${reason}`);
    if (name === "__metadata__") throw refuse("has a name that the format reserves.");
    if (names.has(name)) throw refuse("is given twice.");
    names.add(name);
    if (!Object.hasOwn(ARRAYS, dtype))
      throw refuse(`has dtype ${dtype}; ${Object.keys(ARRAYS).join(", ")} can be written.`);
    const byteLength = shape.every((size) => Number.isSafeInteger(size) && size >= 0)
      ? lengthInBytes(dtype, shape)
      : undefined;
    if (byteLength === undefined) throw refuse(`has the impossible shape [${shape.join(", ")}].`);
    planned.push({ tensor, byteLength });
  }
  const width = ({ tensor }: Planned) => (tensor.dtype === "F16" ? 2 : ARRAYS[tensor.dtype].BYTES_PER_ELEMENT);
  return planned.sort((a, b) => width(b) - width(a) || (a.tensor.name < b.tensor.name ? -1 : 1));
}

/** The length, the JSON and spaces up to a multiple of 8. As text, since an object would put names like "0" first. */
function encodeHeader(planned: readonly Planned[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const members: string[] = [];
  const entries = Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [key, value] of entries)
    if (typeof value !== "string")
      throw new InvalidInputError(`writeSafetensors: metadata "${key}" should be text, got ${typeof value}.`);
  if (entries.length > 0)
    members.push(
      `"__metadata__":{${entries.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(",")}}`,
    );
  let offset = 0;
  for (const { tensor, byteLength } of planned) {
    const { name, dtype, shape } = tensor;
    const place = { dtype, shape, data_offsets: [offset, offset + byteLength] };
    members.push(`${JSON.stringify(name)}:${JSON.stringify(place)}`);
    offset += byteLength;
  }
  const json = Buffer.from(`{${members.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  if (length > MAX_HEADER_BYTES)
    throw new InvalidInputError(`writeSafetensors: the header takes ${length} bytes; at most ${MAX_HEADER_BYTES}.`);
  const header = Buffer.alloc(8 + length, " ");
  header.writeBigUInt64LE(BigInt(length));
  json.copy(header, 8);
  return header;
}

async function writeTensor(file: FileHandle, tensor: TensorToWrite): Promise<void> {
  const data = typeof tensor.data === "function" ? await tensor.data() : tensor.data;
  for (const bytes of tensorBytes(tensor, data)) await writeAll(file, bytes);
}

/** The tensor as it stands in the file, in pieces where it has to be converted. */
function* tensorBytes(
  { name, dtype, shape }: TensorToWrite,
  data: WritableData[keyof WritableData],
): Generator<Uint8Array> {
  const count = shape.reduce((total, size) => total * size, 1);
  if (!(data instanceof ARRAYS[dtype]) || data.length !== count)
    throw new InvalidInputError(
      `writeSafetensors: tensor "${name}" is ${dtype}[${shape.join(", ")}], so ${count} entries of a ${ARRAYS[dtype].name}; got ${data?.length} of a ${data?.constructor.name}.`,
    );
  if (dtype !== "F16") {
    yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return;
  }
  for (let start = 0; start < count; start += PIECE_ELEMENTS) {
    let bits: Uint16Array;
    try {
      bits = float32ToFloat16((data as Float32Array).subarray(start, start + PIECE_ELEMENTS));
    } catch (cause) {
      const position = start + ((cause as InvalidInputError).position ?? 0);
      throw new InvalidInputError(
        `writeSafetensors: entry ${position} of tensor "${name}" is ${data[position]}, out of float16's range; write it as F32.`,
        { cause, position },
      );
    }
    yield new Uint8Array(bits.buffer);
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(bytes.length - done, 1 << 30));
    done += bytesWritten;
  }
}

/** Makes the rename itself durable. Some systems can't open a folder; there the rename is as durable as they make it. */
async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, "r");
    await handle.sync();
  } catch (error) {
    if (!["EISDIR", "EPERM", "EACCES", "EINVAL"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  } finally {
    await handle?.close();
  }
}

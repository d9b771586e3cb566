/** The header of a safetensors file: its element types, and a reader that believes nothing. */
import { CorruptFileError } from "../errors.js";
import { describe, isJsonObject, isLfsPointer, lfsPointerError, parseJson } from "./json-file.js";

/** Bits of one element of every type that the format names. */
const BITS = {
  F64: 64,
  F32: 32,
  F16: 16,
  BF16: 16,
  C64: 64,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F4: 4,
  I64: 64,
  I32: 32,
  I16: 16,
  I8: 8,
  U64: 64,
  U32: 32,
  U16: 16,
  U8: 8,
  BOOL: 8,
} as const;

export type TensorDtype = keyof typeof BITS;

/** What the header says of one tensor. */
export interface TensorInfo {
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** A tensor's place in the file, in bytes from its start. */
export interface PlacedTensor extends TensorInfo {
  readonly start: number;
}

export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, PlacedTensor>;
}

/** Longest header read or written, in bytes. The header of a model of 10,000 tensors is about 1.5 MB. */
export const MAX_HEADER_BYTES: number = 25 * 2 ** 20;

/** Bytes that `headerLength` needs to see: the length itself, and enough to tell what else the file may be. */
export const HEAD_BYTES = 64;

/**
 * Length of the JSON header, from the first bytes of a file (`HEAD_BYTES` of them, or all it has) and its size.
 * Raises CorruptFileError where no header of that length can stand in the file.
 */
export function headerLength(operation: string, path: string, head: Uint8Array, fileSize: number): number {
  const corrupt = (reason: string) => new CorruptFileError(path, `${operation}: ${path} ${reason}`);
  if (isLfsPointer(head)) throw lfsPointerError(operation, path);
  if (head.length < 8)
    throw corrupt(`has ${fileSize} bytes, a safetensors file at least 10: the download wasn't finished. Repeat it.`);
  const length = new DataView(head.buffer, head.byteOffset).getBigUint64(0, true);
  const startsObject = head.length < 9 || head[8] === 0x7b;
  if (!startsObject)
    throw corrupt(`isn't a safetensors file: no "{" after the first 8 bytes. Convert the weights, or check the path.`);
  if (length < 2n) throw corrupt(`announces a header of ${length} bytes; the shortest has 2.`);
  if (length > BigInt(MAX_HEADER_BYTES))
    throw corrupt(`announces a header of ${length} bytes; at most ${MAX_HEADER_BYTES} are read.`);
  if (length + 8n > BigInt(fileSize))
    throw corrupt(
      `announces a header of ${length} bytes and has ${fileSize} in all: the download wasn't finished. Repeat it.`,
    );
  return Number(length);
}

/**
 * Checks the header against the file's size: every type known, every length equal to shape times type, the tensors
 * end to end from the first data byte to the last. Raises CorruptFileError.
 */
export function parseHeader(operation: string, path: string, json: Uint8Array, fileSize: number): SafetensorsHeader {
  const corrupt = (reason: string) => new CorruptFileError(path, `${operation}: ${path}: ${reason}`);
  const header = parseJson(operation, path, json);
  if (!isJsonObject(header)) throw corrupt(`the header should be an object, found ${describe(header)}.`);

  const metadata = new Map<string, string>();
  const placed: [name: string, tensor: PlacedTensor][] = [];
  const dataStart = 8 + json.length;
  for (const [name, entry] of Object.entries(header)) {
    if (!isJsonObject(entry)) throw corrupt(`entry ${describe(name)} should be an object, found ${describe(entry)}.`);
    if (name === "__metadata__") {
      for (const [key, value] of Object.entries(entry)) {
        if (typeof value !== "string")
          throw corrupt(`metadata ${describe(key)} should be text, found ${describe(value)}.`);
        metadata.set(key, value);
      }
      continue;
    }
    const { dtype, shape, data_offsets: offsets } = entry;
    if (typeof dtype !== "string" || !Object.hasOwn(BITS, dtype))
      throw corrupt(`tensor ${describe(name)} has dtype ${describe(dtype)}, which the format doesn't know.`);
    if (!isSizes(shape)) throw corrupt(`tensor ${describe(name)} has shape ${describe(shape)}.`);
    if (!isSizes(offsets) || offsets.length !== 2)
      throw corrupt(`tensor ${describe(name)} has offsets ${describe(offsets)}.`);
    const [begin, end] = offsets as [number, number];
    const byteLength = lengthInBytes(dtype as TensorDtype, shape);
    if (byteLength === undefined || end - begin !== byteLength)
      throw corrupt(
        `tensor ${describe(name)} is ${dtype}${describe(shape)}, ${byteLength ?? "no whole number of"} bytes, but its offsets ${describe(offsets)} hold ${end - begin}.`,
      );
    placed.push([name, { dtype: dtype as TensorDtype, shape, byteLength, start: dataStart + begin }]);
  }

  // Empty tensors first: they may stand at any border, and must not count as an overlap.
  placed.sort(([, a], [, b]) => a.start - b.start || a.byteLength - b.byteLength);
  let position = dataStart;
  for (const [name, tensor] of placed) {
    if (tensor.start !== position)
      throw corrupt(
        `tensor ${describe(name)} begins at data byte ${tensor.start - dataStart}, the one before it ends at ${position - dataStart}: tensors may neither overlap nor leave holes.`,
      );
    position += tensor.byteLength;
  }
  if (position > fileSize)
    throw corrupt(
      `its tensors need ${position} bytes, the file has ${fileSize}: the download wasn't finished. Repeat it.`,
    );
  if (position < fileSize) throw corrupt(`its tensors end at byte ${position}, the file has ${fileSize}.`);
  return { metadata, tensors: new Map(placed) };
}

/** Bytes of a tensor; undefined where that is no safe whole number. */
export function lengthInBytes(dtype: TensorDtype, shape: readonly number[]): number | undefined {
  if (shape.includes(0)) return 0;
  let elements = 1;
  for (const size of shape) {
    elements *= size;
    if (!Number.isSafeInteger(elements)) return undefined;
  }
  const bytes = (elements * BITS[dtype]) / 8;
  return Number.isSafeInteger(bytes) && elements * BITS[dtype] <= Number.MAX_SAFE_INTEGER ? bytes : undefined;
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** A minimal reader and writer of safetensors, independent of the library's own. */
import { readFileSync, writeFileSync } from "node:fs";

export interface PlainTensor {
  readonly dtype: "F32" | "I8";
  readonly shape: readonly number[];
  readonly data: Float32Array | Int8Array;
}

export function writeTensors(path: string, tensors: ReadonlyMap<string, PlainTensor>): void {
  const header: Record<string, unknown> = {};
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    parts.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    offset += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([length, json, ...parts]));
}

/** One F32 tensor of a file. */
export function readTensor(path: string, name: string): Float32Array {
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const { dtype, data_offsets: offsets } = JSON.parse(bytes.toString("utf8", 8, start))[name];
  if (dtype !== "F32") throw new Error(`${name} is ${dtype}`);
  return new Float32Array(new Uint8Array(bytes.subarray(start + offsets[0], start + offsets[1])).buffer);
}

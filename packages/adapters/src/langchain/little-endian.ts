/** Float32 numbers as the bytes of files and caches, and back: the same on nearly every machine. */
import { endianness } from "node:os";

export function littleEndian(vectors: Float32Array): Buffer {
  const bytes = Buffer.from(new Uint8Array(vectors.buffer, vectors.byteOffset, vectors.byteLength));
  return endianness() === "LE" ? bytes : bytes.swap32();
}

/** @param bytes are copied; their number is a multiple of 4 */
export function fromLittleEndian(bytes: Uint8Array): Float32Array {
  const aligned = Uint8Array.from(bytes);
  if (endianness() === "BE") Buffer.from(aligned.buffer).swap32();
  return new Float32Array(aligned.buffer);
}

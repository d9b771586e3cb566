/** Digests: sha256 of bytes, of files, and the canonical JSON that a fingerprint is made of. */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { InvalidInputError } from "../errors.js";
import { unreadable } from "./json-file.js";

/** sha256 in lower-case hex; a string is hashed as UTF-8. */
export function sha256Hex(data: Uint8Array | string): string {
  return createHash("sha256").update(data).digest("hex");
}

/**
 * JSON with sorted keys (by UTF-16 code unit) and no white space, so that equal values have equal text. Members that
 * are undefined are left out, as JSON.stringify does. Raises InvalidInputError for what JSON would change in silence:
 * non-finite numbers, undefined in an array, functions, symbols, bigints, and objects that aren't plain.
 */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === "boolean" || typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new InvalidInputError(`canonicalJson: ${value} has no JSON form.`);
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${Array.from(value, canonicalJson).join(",")}]`;
  if (typeof value === "object" && [Object.prototype, null].includes(Object.getPrototypeOf(value))) {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
    return `{${members.join(",")}}`;
  }
  const found = typeof value === "object" ? value.constructor.name : typeof value;
  throw new InvalidInputError(`canonicalJson: a value of type ${found} has no canonical form; pass plain data.`);
}

/** sha256 (hex) of a file's bytes, read in pieces of 1 MiB. */
export async function fileDigest(path: string): Promise<string> {
  try {
    await using file = await open(path, "r");
    const hash = createHash("sha256");
    const piece = new Uint8Array(1 << 20);
    for (;;) {
      const { bytesRead } = await file.read(piece, 0, piece.length);
      if (bytesRead === 0) return hash.digest("hex");
      hash.update(piece.subarray(0, bytesRead));
    }
  } catch (cause) {
    throw unreadable("fileDigest", path, cause);
  }
}

/** The key of a stored vector: 104 bits of its text's digest as two integers. */
import { createHash } from "node:crypto";

export interface RowKey {
  readonly first: number;
  readonly second: number;
}

export function rowKey(...parts: readonly string[]): RowKey {
  const digest = createHash("sha256").update(parts.join("\n")).digest("hex");
  return { first: Number.parseInt(digest.slice(0, 13), 16), second: Number.parseInt(digest.slice(13, 26), 16) };
}

/** When two texts count as the same, and a short number that stands for a text. */
import { createHash } from "node:crypto";

/**
 * The text without what doesn't tell two texts apart: case, punctuation, runs of white space, compatible forms of
 * characters. Numbers stay. A text of nothing but punctuation is itself.
 */
export function normalisedText(text: string): string {
  const words = text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{M}\p{N}]+/gu, " ")
    .trim();
  return words === "" ? text.trim() : words;
}

export function sameText(a: string, b: string): boolean {
  return a === b || normalisedText(a) === normalisedText(b);
}

/**
 * 52 bits of the digest of the normalised text, as an integer that a Float64Array keeps exactly. Among ten million
 * texts two different ones share a key with a chance of one in a hundred: enough to keep texts apart in a batch, and
 * never used alone to drop one.
 */
export function textKey(text: string): number {
  return keyOf(normalisedText(text));
}

/** The same of any string as it stands. */
export function keyOf(text: string): number {
  return Number.parseInt(createHash("sha256").update(text).digest("hex").slice(0, 13), 16);
}
